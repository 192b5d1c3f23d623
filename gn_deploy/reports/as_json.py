"""report.json: the whole comparison as one strict JSON document with a versioned schema.

Top level (``schema_version`` 1)::

    schema_version  int     raised when a field changes its meaning or goes away
    verdict         str     "held" | "broken"
    held            bool    the same as a truth value
    title, reference, candidate, command   str
    runtimes   [{runtime, status, version, precision, reason}]
    sites      [{site, runtime, status, case, metrics, reason, form, num_groups, num_channels, epsilon, dtype, module,
                 source, cases}]             one per site and runtime; cases: {case: error_over_bound}
    outputs    [{output, runtime, status, case, metrics, noise_ratio, reason}]
    tasks      [{runtime, metric, reference_value, value, agreement, agreement_lower, samples}]
    engines    [{runtime, version, size, kernels: [{name, kind, origin}]}]
    unpaired   [str]        sites of the reference without a counterpart, each with the reason
    environment {package: version}

``status`` is one of pass, unstable, fail, nan, crash, notrun, warn. ``metrics`` is null when nothing was measured, else
{error_over_bound, max_abs, rel_l2, cosine, max_ulp, slope, offset}; ``error_over_bound`` at most 1 is a pass.
JSON has no NaN and no infinity: such a number is null, and the status says what happened.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

from gn_deploy.parity.report import ParityReport
from gn_deploy.reports.base import ReportFile


def document(report: ParityReport) -> dict[str, Any]:
    """The report as data that any JSON reader accepts; nothing in it depends on when or where it was made."""
    plain: dict[str, Any] = strict(report.to_dict())
    for runtime in plain["runtimes"]:
        runtime.pop("seconds", None)  # a clock: two equal runs must give equal files
    return plain


def strict(value: Any) -> Any:
    """``value`` with NaN and infinity as None, tuples as lists, enums and paths as strings."""
    if isinstance(value, Mapping):
        return {str(key): strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [strict(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int)):
        return value
    return str(value)


def dumps(value: Any) -> str:
    """One strict JSON document, indented, ending in a newline; text outside ASCII is kept as it is."""
    text = json.dumps(strict(value), indent=2, ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "replace").decode("utf-8") + "\n"  # a lone surrogate in a name has no UTF-8


def render(report: ParityReport) -> str:
    return dumps(document(report))


REPORT = ReportFile("report.json", render)
