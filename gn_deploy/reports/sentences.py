"""What stands beside a verdict, one sentence each: how sure it is, and what was taken for held."""

from gn_deploy.parity.report import Confidence, ParityReport
from gn_deploy.reports.summary import listed, percent, plural


def confidence(sure: Confidence | None) -> str:
    """How sure the verdict is over inputs like those drawn; "" when nothing is known."""
    if sure is None:
        return ""
    drawn = f"{plural(sure.violations, 'violation')} in {plural(sure.inputs, 'input')}"
    share = percent(sure.rate_below)
    claim = f"with {100 * sure.level:g} % confidence fewer than {share} of inputs like these break parity"
    state = "settled" if sure.settled else "not settled yet"
    return f"{drawn}: {claim}; {state}{f', {sure.reason}' if sure.reason else ''}."


def accepted(report: ParityReport) -> str:
    """What would have been broken had it not been asked to be taken for held; "" when there is no such thing."""
    statuses = [v.status for v in report.sites] + [v.status for v in report.outputs] + [v.status for v in report.tasks]
    told = []
    for status in report.accepted:
        count = statuses.count(status)
        times = {0: "not met", 1: "once"}.get(count, f"{count} times")
        told.append(f"{status} ({times})")
    return f"Taken for held, as asked: {listed(told)}." if told else ""
