"""What a report is given when it is looked into: votes where three ran and something broke, a diagnosis if asked."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gn_deploy.diagnosis.deployed import deployed
from gn_deploy.diagnosis.diagnose import diagnose
from gn_deploy.diagnosis.locate import Tell
from gn_deploy.diagnosis.vote import FEWEST, votes
from gn_deploy.parity.cases import Case
from gn_deploy.parity.report import ParityReport

if TYPE_CHECKING:
    import onnx_ir as ir

    from gn_deploy.runtimes.isolated import Limits


def explain(
    report: ParityReport,
    reference: "ir.Model",
    candidate: "ir.Model",
    cases: Callable[[], Iterable[Case]],
    labels: Sequence[str],
    limits: "Limits | None",
    *,
    locate: bool = False,
    at_fault: bool = False,
    folder: Path | None = None,
    tell: Tell | None = None,
) -> ParityReport:
    """``report`` with votes, and with ``located`` and ``blamed`` when that is asked for; arguments as ``diagnose``.

    ``labels`` are the runtimes in the report's order, ``limits`` those of their processes. ``cases`` gives them anew
    each time it is called.
    """
    voting = not report.held and len(labels) >= FEWEST
    if not (voting or locate):
        return report
    ready = deployed(labels, limits)
    if voting:
        (tell or (lambda _: None))("asking who agrees with whom")
        report = replace(report, votes=votes(report, reference, candidate, cases(), ready))
    if not locate:
        return report
    return diagnose(report, reference, candidate, cases(), ready, at_fault=at_fault, folder=folder, tell=tell)
