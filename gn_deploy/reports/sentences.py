"""What a report says of its findings, one sentence each: how sure it is, where a runtime parts, what is at fault."""

import math

from gn_deploy.parity.report import Blame, Confidence, Divergence, ParityReport, Vote
from gn_deploy.reports.summary import listed, number, percent, plural


def confidence(sure: Confidence) -> str:
    """How sure the verdict is over inputs like those drawn."""
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


def parting(found: Divergence) -> str:
    """Where a runtime leaves what it should compute."""
    if not found.value:
        return f"{found.runtime} never leaves {other(found)}{_because(found.reason)}."
    at = f"'{found.value}'" + (f", the output of {found.op_type or 'node'} '{found.node}'" if found.node else "")
    where = listed([w for w in (found.module, found.source) if w])
    how = [f"it looks like {found.looks_like}"] if found.looks_like else []
    how += [f"{number(found.noise_ratio)} times rounding noise"] if not math.isnan(found.noise_ratio) else []
    told = f"{found.runtime} first leaves {other(found)} at {at}" + (f" ({where})" if where else "")
    return told + (f": {', '.join(how)}" if how else "") + _because(found.reason) + "."


def other(found: Divergence) -> str:
    """What a runtime was compared with."""
    return "the oracle" if found.against == "oracle" else found.against


def blame(found: Blame) -> str:
    """Which setting of a runtime is at fault."""
    if not found.culprit:
        tried = f" of {plural(len(found.tried), 'setting')} tried" if found.tried else ""
        return f"{found.runtime}: none{tried} is at fault{_because(found.reason)}."
    told = f"{found.runtime}: {found.kind or 'setting'} {found.culprit} is at fault"
    if not math.isnan(found.with_it):
        told += f", {number(found.with_it)} times rounding noise with it and {number(found.without_it)} without it"
    return told + _because(found.reason) + "."


def vote(cast: Vote) -> str:
    """Who agrees with whom, and who is right."""
    camps = " against ".join(listed(list(camp)) for camp in cast.camps)
    right = f"right by the oracle: {listed(list(cast.right))}" if cast.right else "none of them is right by the oracle"
    return f"{camps}; {right}"


def _because(reason: str) -> str:
    return f" ({reason})" if reason else ""
