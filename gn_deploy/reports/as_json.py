"""report.json: the whole comparison as one strict JSON document with a versioned schema.

Top level (``schema_version`` 2)::

    schema_version  int     raised when a field changes its meaning or goes away
    verdict         str     "held" | "broken"
    held            bool    the same as a truth value
    title, reference, candidate, command   str
    runtimes   [{runtime, status, version, precision, reason, taps, process}]
               process: "own" when it ran in a process of its own, "shared" in ours, "" when no network was run
    sites      [{site, runtime, status, case, metrics, reason, form, num_groups, num_channels, epsilon, dtype, module,
                 source, cases, looks_like, histogram, group, precision}]
               one per site and runtime; cases: {case: error_over_bound}; histogram: elements of the worst case by
               error over bound, in quarter decades from 1e-4 to 1e4 with an open bin at either end, [] when nothing
               was measured; group: null or at most 256 elements of the group that is furthest off, {sample, group,
               index, x, expected, actual, bound}
    outputs    [{output, runtime, status, case, metrics, noise_ratio, reason}]
    tasks      [{runtime, metric, reference_value, value, agreement, agreement_lower, samples, certified, difference,
                 interval, allowed_drop, status, reason}]
    engines    [{runtime, version, size, kernels: [{name, kind, origin}]}]
    unpaired   [str]        sites of the reference without a counterpart, each with the reason
    notes      [str]        how it was judged: an array taken under another name, a size that was not run
    votes      [{place, case, camps, right, reason}]      who agrees with whom, and who with the oracle
    located    [{runtime, against, value, node, op_type, module, source, case, metrics, noise_ratio, looks_like, files,
                 reason}]   the first value at which a runtime leaves what it should compute
    blamed     [{runtime, culprit, kind, with_it, without_it, tried, remedy, files, reason}]
    confidence null | {inputs, violations, rate_below, level, settled, reason}
    noticed    [{fault, seeded, effective, noticed, named, missed, reason}]   --would-notice
    accepted   [status]     verdicts that were asked to be taken for held
    environment {package: version}

``status`` is one of pass, warn, lowprec, unstable, nan, fail, timeout, crash, notrun. ``metrics`` is null when nothing
was measured, else {error_over_bound, max_abs, rel_l2, cosine, max_ulp, slope, offset}; ``error_over_bound`` at most 1
is a pass. Version 1 had no notes, votes, located, blamed, confidence, noticed, accepted and fewer fields in sites and
tasks. JSON has no NaN and no infinity: NaN is null, infinity the word "inf" or "-inf", the status says what happened.
"""

import json
import re
from typing import Any

from gn_deploy.parity.report import ParityReport
from gn_deploy.reports.base import ReportFile

_NUMBER = r"(?:-?\d[\d.e+-]*|null|\"-?inf\")"
_NUMBERS = re.compile(rf"\[\n\s+({_NUMBER}(?:,\n\s+{_NUMBER})*)\n\s*\]")
"""A list of numbers over several lines; no string looks like it, because inside a string a newline is escaped."""


def dumps(document: Any) -> str:
    """One strict JSON document, indented, ending in a newline; text outside ASCII is kept as it is, and a list of
    numbers is one line.

    Raises ValueError for NaN and infinity, which JSON does not have.
    """
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    text = _NUMBERS.sub(lambda found: f"[{' '.join(found[1].split())}]", text)
    return text.encode("utf-8", "replace").decode("utf-8") + "\n"  # a lone surrogate in a name has no UTF-8


def render(report: ParityReport) -> str:
    return dumps(report.to_dict())


REPORT = ReportFile("report.json", render)
