"""A broken comparison looked into: where it parts, what is at fault, and a small model of it for each runtime."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gn_deploy.diagnosis.between import between
from gn_deploy.diagnosis.closely import closely
from gn_deploy.diagnosis.deployed import Deployed
from gn_deploy.diagnosis.locate import ORACLE, Located, Tell, locate_run, locate_written
from gn_deploy.diagnosis.locate_site import locate_site
from gn_deploy.errors import GnDeployError, InputError
from gn_deploy.parity.cases import Case
from gn_deploy.parity.inputs import fed_to
from gn_deploy.parity.oracle import REFERENCE_RUNTIME
from gn_deploy.parity.pairing import pair
from gn_deploy.parity.report import Divergence, ParityReport
from gn_deploy.parity.status import Status
from gn_deploy.parity.subject import find_sites
from gn_deploy.runtimes.onnx_reference import ONNX_REFERENCE

if TYPE_CHECKING:
    import onnx_ir as ir

    from gn_deploy.parity.pairing import Pair

_CASES = 4  # of those given: broken ones first; every case is one run of the whole network in float64 and four more


def diagnose(
    report: ParityReport,
    reference: "ir.Model",
    candidate: "ir.Model",
    cases: Iterable[Case],
    deployed: Sequence[Deployed],
    *,
    at_fault: bool = False,
    folder: Path | None = None,
    tell: Tell | None = None,
) -> ParityReport:
    """``report`` with ``located`` filled in: what is written first, then each runtime in the report's order.

    ``at_fault`` also looks for the setting of each runtime that makes it go wrong. A small model of what goes wrong is
    written into a folder of its own in ``folder``, named after the runtime.

    Both models are normalized, ``cases`` have the reference's names. A runtime that did not run is left out; one that
    holds is looked at all the same, because rounding hides small errors from the outputs.
    """
    tell = tell or (lambda _: None)
    some = _some(cases, report)
    pairs = pair(reference, find_sites(reference), candidate, find_sites(candidate)).pairs
    written = locate_written(
        reference, candidate, pairs, some, runtime=REFERENCE_RUNTIME, against=report.reference, tell=tell
    )
    verdicts = {v.runtime: v for v in report.runtimes}
    standard = Deployed(REFERENCE_RUNTIME, REFERENCE_RUNTIME, ONNX_REFERENCE.open)
    found = [] if written.piece is None else [(written, standard)]
    for one in deployed:
        if verdicts[one.label].status is not Status.NOTRUN:
            found.append((_on(one, reference, candidate, pairs, some, report, tell), one))
    apart = between([(located, one) for located, one in found if located is not written])
    closer = [closely(located, one, report, at_fault, folder, tell) for located, one in found]
    return replace(
        report,
        located=(*(_named(divergence, pairs, report) for divergence, _ in closer), *apart),
        blamed=tuple(blame for _, blame in closer if blame is not None),
    )


def _on(
    one: Deployed,
    reference: "ir.Model",
    candidate: "ir.Model",
    pairs: "Sequence[Pair]",
    cases: Sequence[Case],
    report: ParityReport,
    tell: Tell,
) -> Located:
    def named(text: str) -> None:
        tell(f"{one.label}: {text}")

    fed = fed_to(reference, candidate, cases)
    try:
        found = locate_run(candidate, one.opened, fed, runtime=one.label, asked=one.asked, tell=named)
    except InputError:
        raise
    except GnDeployError as error:
        return Located(Divergence(one.label, ORACLE, "", reason=f"it does not run: {error.message}"))
    broken = {v.site: v for v in report.sites if v.runtime == one.label and v.status.broken}
    for each in pairs:
        if found.piece is None and each.site.name in broken:
            found = locate_site(
                reference,
                candidate,
                each,
                broken[each.site.name],
                one.opened,
                runtime=one.label,
                against=report.reference,
                asked=one.asked,
                tell=named,
            )
            break
    return found


def _named(found: Divergence, pairs: "Sequence[Pair]", report: ParityReport) -> Divergence:
    """At the output of a GroupNorm its own verdict knows more: which fault explains it on all its probes."""
    site = next((p.site.name for p in pairs if found.value and str(p.output.name) == found.value), None)
    own = (v.looks_like for v in report.sites if v.site == site and v.runtime == found.runtime)
    return replace(found, looks_like=next(filter(None, own), found.looks_like))


def _some(cases: Iterable[Case], report: ParityReport) -> list[Case]:
    """The cases on which something broke, and others until there are enough; of a stream only these are kept."""
    broken = {v.case for v in report.outputs if v.status.broken} | {v.case for v in report.sites if v.status.broken}
    chosen: list[Case] = []
    others: list[Case] = []
    for case in cases:
        if case.name in broken and len(chosen) < _CASES:
            chosen.append(case)
        elif len(others) < _CASES:
            others.append(case)
        if len(chosen) == _CASES:
            break
    return [*chosen, *others][:_CASES]
