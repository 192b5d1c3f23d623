"""The worst group of a site as curves: what was expected with its band, what came out, the error, the input."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gn_deploy.parity.report import ParityReport, SiteVerdict, WorstGroup
from gn_deploy.reports import summary
from gn_deploy.reports.bars import Histogram, histogram

BROKEN, HELD = 8, 5  # groups drawn on a page, about 15 kB each: what nobody scrolls past is in report.json
WIDTH = 400.0
VALUES, ERRORS, INPUT = (0.0, 120.0), (142.0, 222.0), (244.0, 284.0)
"""From top to bottom: value, error over bound, x; SVG units."""
_LINEAR = 1.0  # bounds up to which the axis of the error is linear; beyond, a decade takes as much room
_WIDER = 1.0  # spans of what was expected that the axis of values may reach beyond it; what lies further is at the edge


@dataclass(frozen=True, slots=True)
class Mark:
    """An element outside its band; ``y`` on the values, ``error`` on the errors."""

    x: float
    y: float
    error: float


@dataclass(frozen=True, slots=True)
class Drawn:
    """A worst group in SVG units, and what it shows in words."""

    site: SiteVerdict
    band: str
    expected: str
    actual: str
    error: str
    x: str
    marks: list[Mark]
    values: list[tuple[float, str]]
    """(y, label) of ticks of the value; of the error and the input as well below."""
    errors: list[tuple[float, str]]
    inputs: list[tuple[float, str]]
    within: tuple[float, float]
    """Top and bottom of the band of +- 1 bound on the errors."""
    ends: tuple[str, str]
    """Labels of the first and the last element."""
    histogram: Histogram | None
    told: str


@dataclass(frozen=True, slots=True)
class _Axis:
    low: float
    high: float
    top: float
    bottom: float

    def at(self, value: float) -> float:
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(self.bottom - share * (self.bottom - self.top), 1)

    def ticks(self) -> list[tuple[float, str]]:
        return [
            (self.at(v), summary.number(v) if v else "0") for v in (self.low, (self.low + self.high) / 2, self.high)
        ]


def groups(report: ParityReport) -> list[Drawn]:
    """The worst groups of the broken sites, and the worst held one of each runtime that broke nothing."""
    with_group = [v for v in report.sites if v.group is not None and v.group.index]
    ranked = sorted(with_group, key=_size, reverse=True)
    broken = [v for v in ranked if v.status.broken][:BROKEN]
    told = {v.runtime for v in broken}
    held: dict[str, SiteVerdict] = {}
    for verdict in ranked:
        if verdict.runtime not in told and not verdict.status.broken:
            held.setdefault(verdict.runtime, verdict)
    return [draw(v) for v in [*broken, *list(held.values())[:HELD]]]


def draw(site: SiteVerdict) -> Drawn:
    """``site.group`` drawn; it must have one."""
    group = site.group
    assert group is not None
    columns = _columns(len(group.index))
    value, ratio = _value_axis(group), _ratios(group)
    largest = max((abs(r) for r in ratio if math.isfinite(r)), default=1.0)
    error = _Axis(-(reach := _squeezed(max(largest, 2.0))), reach, *ERRORS)
    source = _spanning([v for v in group.x if math.isfinite(v)], *INPUT)
    outside = [i for i, r in enumerate(ratio) if abs(r) > 1 or _special(group, i)]
    marks = [
        Mark(
            columns[i],
            value.at(group.actual[i]) if math.isfinite(group.actual[i]) else VALUES[0],
            error.at(_squeezed(ratio[i])) if math.isfinite(ratio[i]) else ERRORS[0],
        )
        for i in outside
    ]
    place = f"Group {group.group} of sample {group.sample}"
    count = f"{len(outside)} of {summary.plural(len(columns), 'drawn element')} outside the band"
    special = sum(_special(group, i) for i in outside)
    count += f", {special} of them NaN or infinity" if special else ""
    return Drawn(
        site=site,
        band=_band(columns, group, value),
        expected=_line(columns, group.expected, value),
        actual=_line(columns, group.actual, value),
        error=_line(columns, [_squeezed(r) for r in ratio], error),
        x=_line(columns, group.x, source),
        marks=marks,
        values=value.ticks(),
        errors=[(error.at(_squeezed(t)), label) for t, label in _error_ticks(largest)],
        inputs=source.ticks()[::2],
        within=(error.at(1.0), error.at(-1.0)),
        ends=(str(group.index[0]), str(group.index[-1])),
        histogram=histogram(site.histogram),
        told=f"{place}: {count}, worst {summary.ratio(summary.error(site))} bounds",
    )


def _size(verdict: SiteVerdict) -> float:
    return -1.0 if math.isnan(size := summary.error(verdict)) else size


def _columns(count: int) -> list[float]:
    return [round(WIDTH * (i + 0.5) / count, 1) for i in range(count)]


def _ratios(group: WorstGroup) -> list[float]:
    """Signed error over bound; NaN where nothing can be said."""
    found = []
    for expected, actual, bound in zip(group.expected, group.actual, group.bound, strict=True):
        error = actual - expected
        known = math.isfinite(error) and math.isfinite(bound)
        found.append(0.0 if error == 0 else error / bound if known and bound else math.nan)
    return found


def _special(group: WorstGroup, i: int) -> bool:
    """NaN or infinity where something else was expected, and nothing excuses it."""
    a, e = group.actual[i], group.expected[i]
    same = a == e or (math.isnan(a) and math.isnan(e))
    return not same and not (math.isfinite(a) and math.isfinite(e)) and math.isfinite(group.bound[i])


def _value_axis(group: WorstGroup) -> _Axis:
    expected = [v for v in group.expected if math.isfinite(v)] or [0.0]
    span = (max(expected) - min(expected)) or abs(expected[0]) or 1.0
    low, high = min(expected) - _WIDER * span, max(expected) + _WIDER * span
    near = [min(max(v, low), high) for v in group.actual if math.isfinite(v)]
    return _spanning([*expected, *near], *VALUES)


def _spanning(values: Sequence[float], top: float, bottom: float) -> _Axis:
    low, high = min(values, default=0.0), max(values, default=0.0)
    if not low < high or not math.isfinite(high - low):
        low, high = min(low, 0.0), max(high, 0.0)
        low, high = (low, high) if low < high and math.isfinite(high - low) else (-1.0, 1.0)
    return _Axis(low, high, top, bottom)


def _squeezed(ratio: float) -> float:
    """Linear up to the bound, then one unit a decade, with the sign."""
    size = abs(ratio)
    if math.isnan(size) or size <= _LINEAR:
        return ratio
    return math.copysign(_LINEAR + math.log10(min(size, 1e300)), ratio)


def _error_ticks(largest: float) -> list[tuple[float, str]]:
    """The bound on both sides; where the error goes far beyond it, a power of ten on both sides instead."""
    power = min(math.floor(math.log10(largest)), 99) if largest >= 100 else 0  # 100: below it the labels would touch
    label = f"1e{power}" if power > 2 else f"{10**power}"
    return [(-(10.0**power), f"-{label}"), (0.0, "0"), (10.0**power, label)]


def _line(columns: Sequence[float], values: Sequence[float], axis: _Axis) -> str:
    """A path through the finite values, interrupted where one is not."""
    path, pen = [], "M"
    for x, value in zip(columns, values, strict=True):
        if math.isfinite(value):
            path.append(f"{pen}{x:g} {axis.at(value):g}")
        pen = "L" if math.isfinite(value) else "M"
    return "".join(path)


def _band(columns: Sequence[float], group: WorstGroup, axis: _Axis) -> str:
    """An area from expected + bound there to expected - bound back; an infinite bound reaches to the edges."""
    points = [p for p in zip(columns, group.expected, group.bound, strict=True) if math.isfinite(p[1]) and p[2] >= 0]
    there = [f"{x:g} {axis.at(e + b):g}" for x, e, b in points]
    back = [f"{x:g} {axis.at(e - b):g}" for x, e, b in reversed(points)]
    return f"M{'L'.join([*there, *back])}Z" if points else ""
