"""What every report says in its own way: the headline, the sites side by side, the worst place."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from gn_deploy.parity.report import OutputVerdict, ParityReport, RuntimeVerdict, SiteVerdict, TaskVerdict
from gn_deploy.parity.status import Status

Verdict = SiteVerdict | OutputVerdict | RuntimeVerdict | TaskVerdict

GLYPHS = {
    Status.PASS: "✓",
    Status.WARN: "!",
    Status.UNSTABLE: "≈",
    Status.FAIL: "✗",
    Status.NAN: "✗",
    Status.CRASH: "✗",
    Status.TIMEOUT: "✗",
    Status.LOWPREC: "≈",
    Status.NOTRUN: "–",
}
MEANINGS = {
    Status.PASS: "inside the bound",
    Status.WARN: "every GroupNorm held, the end-to-end error is larger than rounding explains",
    Status.UNSTABLE: "right formula, unsafe arithmetic: the variance is computed in one pass",
    Status.FAIL: "outside the bound",
    Status.NAN: "NaN or infinity where the reference has a number, or the other way round",
    Status.CRASH: "the runtime refused or crashed",
    Status.TIMEOUT: "the runtime took longer than it was given",
    Status.LOWPREC: "the right function in a lower precision than promised",
    Status.NOTRUN: "not run here",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One GroupNorm site across all runtimes; ``number`` counts from 1 in graph order."""

    number: int
    site: SiteVerdict
    """Any runtime's verdict on the site: what it says about the place is the same in each."""
    cells: dict[str, SiteVerdict]

    @property
    def form(self) -> str:
        """The form or forms it is written in; torch runs the module itself, which has none."""
        forms = [cell.form for cell in self.cells.values() if cell.form not in ("", "module")]
        return ", ".join(dict.fromkeys(forms)) or self.site.form

    @property
    def peak(self) -> float:
        """The largest measured error over the bound on any runtime; 0 when nothing was measured."""
        top = worst(self.cells.values())
        return error(top) if top is not None else 0.0

    @property
    def broken(self) -> bool:
        return any(cell.status.broken for cell in self.cells.values())


def rows(report: ParityReport) -> list[Row]:
    """The sites in the order of the report, one row each."""
    cells: dict[str, dict[str, SiteVerdict]] = {}
    for verdict in report.sites:
        cells.setdefault(verdict.site, {})[verdict.runtime] = verdict
    return [Row(i, next(iter(row.values())), row) for i, row in enumerate(cells.values(), start=1)]


def worst_rows(every: list[Row], limit: int) -> list[Row]:
    """All rows when they are not more than ``limit``; else every broken one, and of the others the worst until there
    are a third of it; in graph order."""
    if len(every) <= limit:
        return every
    ranked = sorted(every, key=lambda row: (not row.broken, -row.peak))
    keep = max(limit // 3, sum(row.broken for row in every))
    return sorted(ranked[:keep], key=lambda row: row.number)


def error(verdict: SiteVerdict) -> float:
    """error_over_bound of a verdict, NaN when nothing was measured."""
    return verdict.metrics.error_over_bound if verdict.metrics is not None else math.nan


def worst(verdicts: Iterable[SiteVerdict]) -> SiteVerdict | None:
    """The verdict with the largest measured error; infinity is largest, an unmeasured one never wins."""
    measured = [v for v in verdicts if not math.isnan(error(v))]
    return max(measured, key=error, default=None)


def ran(report: ParityReport) -> list[RuntimeVerdict]:
    return [v for v in report.runtimes if v.status is not Status.NOTRUN]


def judged(report: ParityReport) -> list[Verdict]:
    """The verdicts on sites and outputs, sites first."""
    return [*report.sites, *report.outputs]


def outcome(report: ParityReport) -> str:
    """The verdict for people: what is not held because too little was judged is not called broken."""
    return f"Parity {report.verdict if report.held or report.broken else 'not proved'}"


def headline(report: ParityReport) -> str:
    """One sentence: the verdict, how much was judged, and the worst place."""
    sites = len({v.site for v in report.sites})
    scope = f"{plural(sites, 'GroupNorm')} on {plural(len(ran(report)), 'runtime')}"
    if not any(v.status is not Status.NOTRUN for v in judged(report)):
        return "Nothing was judged, so nothing is proved."
    peak = worst(report.sites)
    if report.held:
        if not sites:
            return f"No GroupNorm to judge, the outputs agree on {plural(len(ran(report)), 'runtime')}."
        taken = sorted({v.status for v in judged(report) if v.status.broken})
        words = f", {' and '.join(taken)} accepted as asked" if taken else ""
        return f"{scope}, {f'worst error {ratio(error(peak))} of' if peak else 'all inside'} the bound{words}."
    broken = {v.site for v in report.sites if v.status.broken and v.status not in report.accepted}
    if not sites:
        return f"No GroupNorm to judge, and the models differ on {plural(len(ran(report)), 'runtime')}."
    if not broken and report.unjudged:
        return f"{scope}: nothing vouches for {len(report.unjudged)} of them."
    if not broken and not report.broken:
        return f"{scope}: nothing broke, but how sure that is was not settled."
    if not broken:
        return f"{scope}: every GroupNorm held, but something else broke."
    where = f", worst: {place(peak)} on {peak.runtime}" if peak and peak.status.broken else ""
    return f"{len(broken)} of {scope} broken{where}."


def place(site: SiteVerdict) -> str:
    """Where a site stands, in the words of the source model when the file has them."""
    return site.module or site.site


def problems(report: ParityReport) -> list[tuple[str, Status, str]]:
    """(where, status, why) of everything broken, for the reader who wants to know only that; alike things once.

    When nothing is, what was left unjudged: it keeps a report from being held.
    """
    wrong = {status for status in Status if status.broken} - set(report.accepted)
    alike: dict[tuple[str, Status, str], list[SiteVerdict]] = {}
    for v in report.sites:
        if v.status in wrong:
            alike.setdefault((v.runtime, v.status, v.reason), []).append(v)
    found = [
        (f"{listed(list(map(place, same)))} on {runtime}", status, reason(worst(same) or same[0]))
        for (runtime, status, _), same in alike.items()
    ]
    found += [(f"output {v.output} on {v.runtime}", v.status, reason(v)) for v in report.outputs if v.status in wrong]
    found += [(f"{v.metric} on {v.runtime}", v.status, reason(v)) for v in report.tasks if v.status in wrong]
    told = {v.runtime for v in (*judged(report), *report.tasks) if v.status in wrong}
    found += [(v.runtime, v.status, reason(v)) for v in report.runtimes if v.status in wrong and v.runtime not in told]
    if not found:
        blind = "judged neither in itself nor through an output of the network"
        found = [(text, Status.NOTRUN, blind) for text in report.unjudged]
    return found


def listed(names: list[str], limit: int = 4) -> str:
    """ "a", "a and b", "a, b, c, d and 5 more"; "" of nothing."""
    if not names:
        return ""
    shown = names if len(names) <= limit + 1 else [*names[:limit], f"{len(names) - limit} more"]
    return " and ".join(filter(None, (", ".join(shown[:-1]), shown[-1])))


def reason(verdict: Verdict) -> str:
    """Why a verdict is what it is: how large the error is, and the verdict's own words or what the status means."""
    meaning = verdict.reason or MEANINGS[verdict.status]
    if isinstance(verdict, SiteVerdict) and verdict.metrics is not None and verdict.status is not Status.PASS:
        peak = error(verdict)
        size = "NaN or infinity" if not math.isfinite(peak) else f"{ratio(peak)} times the bound"
        known = verdict.status is Status.UNSTABLE or not verdict.looks_like  # the word itself says it
        return f"{size} on case '{verdict.case}': {meaning}{'' if known else f'; it looks like: {verdict.looks_like}'}"
    if isinstance(verdict, TaskVerdict):
        return "; ".join(filter(None, (verdict.reason, task(verdict))))
    if verdict.reason:
        return verdict.reason
    if isinstance(verdict, OutputVerdict) and verdict.metrics is not None:
        size = f"max error {number(verdict.metrics.max_abs)}, {number(verdict.noise_ratio)} times rounding noise"
        return f"{size}: {meaning}"
    return meaning


def ratio(value: float) -> str:
    """An error over its bound for people; never rounds a failure down to a pass."""
    return ">1" if 1 < value < 1.005 else number(value)  # three digits would print 1


def number(value: float) -> str:
    """A float for people: at most three significant digits."""
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if value == 0 or 0.001 <= abs(value) < 1000:  # what reads better without an exponent
        return f"{value:#.3g}".rstrip(".") if value else "0"
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    return f"{mantissa}e{int(exponent)}"


def percent(value: float) -> str:
    """A share of 1 for people."""
    return "–" if math.isnan(value) else f"{100 * value:.2f} %"


def plural(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def size(count: int) -> str:
    """Bytes for people."""
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"


_SHARES = ("accuracy", "agreement", "top", "iou", "miou")
"""Beginnings of the names of metrics that are shares of 1."""


def measured(metric: str, value: float) -> str:
    """The value of a task metric, or a difference of two, in the metric's own unit."""
    name = metric.lower()
    if name.startswith(_SHARES):
        return percent(value)
    return f"{value:.2f} dB" if name.startswith("psnr") and math.isfinite(value) else number(value)


def task(verdict: TaskVerdict) -> str:
    """The numbers of a task metric in one line; what was not measured is left out."""
    metric = verdict.metric
    told = []
    if not math.isnan(verdict.value):
        told.append(f"{measured(metric, verdict.value)} against {measured(metric, verdict.reference_value)}")
    if not math.isnan(verdict.difference):
        told.append(f"difference {difference(verdict)}")
    if not math.isnan(verdict.agreement):
        told.append(f"agreement {percent(verdict.agreement)}")
    if not math.isnan(verdict.allowed_drop):
        told.append(f"allowed drop {measured(metric, verdict.allowed_drop)}")
    return f"{metric}: {', '.join(told) or 'not measured'}, {plural(verdict.samples, 'sample')}"


def difference(verdict: TaskVerdict) -> str:
    """The difference of a task metric with its interval."""
    if math.isnan(verdict.difference):
        return "–"
    value = measured(verdict.metric, verdict.difference)
    if len(verdict.interval) != 2:
        return value
    low, high = (measured(verdict.metric, end) for end in verdict.interval)
    return f"{value} (95 % interval {low} to {high})"
