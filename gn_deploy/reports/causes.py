"""What a diagnosis found, in sentences: where a comparison parts, which setting is at fault, who agrees with whom."""

from gn_deploy.parity.report import Blame, Divergence, ParityReport, Vote
from gn_deploy.reports.summary import number

Told = tuple[str, list[str]]
"""What it is about, and sentences."""


def located(report: ParityReport) -> list[Told]:
    return [(d.runtime, _divergence(d)) for d in report.located]


def blamed(report: ParityReport) -> list[Told]:
    return [(b.runtime, _blame(b)) for b in report.blamed]


def voted(report: ParityReport) -> list[Told]:
    return [(v.place, _vote(v)) for v in report.votes]


def _divergence(d: Divergence) -> list[str]:
    if not d.value:
        return [*([d.reason] if d.reason else ["nothing parts"]), *_files(d.files)]
    node = f"{d.op_type} '{d.node}'" if d.node else d.op_type
    where = ", ".join(filter(None, (d.module, d.source)))
    lines = [f"first leaves {other(d)} at '{d.value}', made by {node}{f' ({where})' if where else ''}"]
    far = "" if d.noise_ratio == float("inf") and d.looks_like else size(d)
    lines.append(f"on case '{d.case}': " + "; ".join(filter(None, (far, d.looks_like))))
    return [*lines, *([d.reason] if d.reason else []), *_files(d.files)]


def other(d: Divergence) -> str:
    """What a runtime was compared with."""
    return "the float64 oracle" if d.against == "oracle" else d.against


def size(d: Divergence) -> str:
    """How far off the first wrong value is."""
    if d.noise_ratio == float("inf"):
        return "NaN, infinity or other integers"
    if d.noise_ratio != d.noise_ratio and d.metrics is not None:  # judged as a GroupNorm, by its bound
        return f"{number(d.metrics.error_over_bound)} times the bound"
    return times(d.noise_ratio)


def _blame(b: Blame) -> list[str]:
    if not b.culprit:
        return [b.reason or "no setting makes a difference", *_files(b.files)]
    lines = [f"{b.culprit} ({b.kind}): {times(b.with_it)} with it, {times(b.without_it)} without"]
    lines += [b.reason] if b.reason else []
    lines += [f"do without it: {b.remedy}"] if b.remedy else []
    return [*lines, *_files(b.files)]


def _vote(v: Vote) -> list[str]:
    if not v.camps:
        camps = "nobody to agree with"
    elif len(v.camps) == 1:
        camps = f"{_and(v.camps[0])} agree"
    else:
        odd_first = v.camps[::-1] if len(v.camps) == 2 and len(v.camps[1]) == 1 else v.camps
        first, *others = (_and(camp) + (" alone" if len(camp) == 1 else "") for camp in odd_first)
        camps = f"{first} against {' and against '.join(others)}"
    right = f"right by the oracle: {_and(v.right)}" if v.right else "none is right by the oracle"
    return [f"on case '{v.case}': {camps}; {right}" + (f" ({v.reason})" if v.reason else "")]


def _files(files: tuple[str, ...]) -> list[str]:
    return [f"to see it by itself: python {name}" for name in files if name.endswith(".py")]


def times(value: float) -> str:
    """A noise ratio in words."""
    if value == float("inf"):
        return "it fails, or gives NaN"
    return "nothing is known" if value != value else f"{number(value)} times rounding noise" if value else "no error"


def _and(names: tuple[str, ...]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
