"""What stands beside a verdict, one sentence each: how sure it is, and what was taken for held."""

from gn_deploy.parity.report import Confidence, ParityReport
from gn_deploy.reports.summary import listed, plural


def confidence(sure: Confidence | None) -> str:
    """How sure the verdict is over inputs like those drawn; "" when nothing is known."""
    if sure is None:
        return ""
    over = plural(sure.inputs, "input")
    because = f" ({sure.reason})" if sure.reason else ""
    if not sure.inputs:
        return f"Not settled: no input was judged{because}."
    share = f"{100 * sure.rate_below:.3g} %"
    claim = f"with {100 * sure.level:g} % confidence fewer than {share} of inputs like these break it"
    if sure.violations:
        return f"Broken on {sure.violations} of {over}{because}."
    return f"Held on {over}: {claim}." if sure.settled else f"Not settled{because}. Held on {over}: {claim}."


def accepted(report: ParityReport) -> str:
    """What would have been broken had it not been asked to be taken for held; "" when there is no such thing."""
    statuses = [v.status for v in report.sites] + [v.status for v in report.outputs] + [v.status for v in report.tasks]
    told = []
    for status in report.accepted:
        count = statuses.count(status)
        times = {0: "not met", 1: "once"}.get(count, f"{count} times")
        told.append(f"{status} ({times})")
    return f"Taken for held, as asked: {listed(told)}." if told else ""
