"""Histograms of error over bound as bars: how many elements lie where, and how many beyond the bound."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gn_deploy.parity.report import HISTOGRAM_EDGES, ParityReport

BOUND = HISTOGRAM_EDGES.index(1.0)
"""The edge at the bound; bins above this number lie beyond it."""
_AROUND = (8, 4)  # bins always shown below and above the bound: two decades and one
_PER_DECADE = 4


@dataclass(frozen=True, slots=True)
class Bar:
    """One bin: its place and width, 0 to 100 from left to right; its height, 0 to 100 on a logarithm of the count."""

    x: float
    width: float
    height: float
    beyond: bool
    name: str


@dataclass(frozen=True, slots=True)
class Histogram:
    """The bars that hold something, with the axis they stand on."""

    bars: list[Bar]
    ticks: list[tuple[float, str]]
    """(place, label) of each decade."""
    levels: list[tuple[float, str]]
    """(height, label) of powers of ten of the count."""
    bound: float
    """Where the bound stands."""
    elements: int
    beyond: int

    @property
    def told(self) -> str:
        return f"{self.beyond:,} of {self.elements:,} elements beyond the bound"


def histogram(counts: Sequence[int]) -> Histogram | None:
    """Bars of the counts of a SiteVerdict; None when nothing was counted."""
    if len(counts) != len(HISTOGRAM_EDGES) + 1 or not any(count > 0 for count in counts):
        return None
    held = [i for i, count in enumerate(counts) if count > 0]
    first = min(held[0], BOUND - _AROUND[0] + 1)
    last = max(held[-1], BOUND + _AROUND[1])
    width = 100 / (last - first + 1)
    top = math.log10(max(counts)) + 0.3  # 0.3: a count of 1 has a height, and the highest bar some air
    bars = [
        Bar(
            x=round((i - first) * width, 2),
            width=round(width, 2),
            height=round(100 * (math.log10(counts[i]) + 0.2) / (top + 0.2), 1),
            beyond=i > BOUND,
            name=f"{_span(i)}: {counts[i]:,}",
        )
        for i in held
    ]
    edges = [i for i in range(0, len(HISTOGRAM_EDGES), _PER_DECADE) if first <= i < last]
    ticks = [(round((i + 1 - first) * width, 2), _label(HISTOGRAM_EDGES[i])) for i in edges]
    powers = range(0, math.floor(top) + 1, 1 + math.floor(top) // 4)
    levels = [(round(100 * (power + 0.2) / (top + 0.2), 1), f"{10**power:,}") for power in powers]
    bound = round((BOUND + 1 - first) * width, 2)
    return Histogram(bars, ticks, levels, bound, sum(counts), sum(counts[BOUND + 1 :]))


def of_runtimes(report: ParityReport) -> dict[str, Histogram]:
    """Of each runtime the elements of every site's worst case together."""
    found = {}
    for runtime in dict.fromkeys(v.runtime for v in report.sites):
        drawn = histogram(_total(v.histogram for v in report.sites if v.runtime == runtime))
        if drawn is not None:
            found[runtime] = drawn
    return found


def _total(histograms: Iterable[Sequence[int]]) -> list[int]:
    return [sum(column) for column in zip(*filter(None, histograms), strict=False)]


def _span(index: int) -> str:
    if index == 0:
        return f"at most {_label(HISTOGRAM_EDGES[0])}"
    low = f"above {_label(HISTOGRAM_EDGES[index - 1])}"
    return low if index == len(HISTOGRAM_EDGES) else f"{low}, at most {_label(HISTOGRAM_EDGES[index])}"


def _label(edge: float) -> str:
    if 1e-2 <= edge < 1e3:
        return f"{edge:.2g}" if edge < 10 else f"{edge:.0f}"
    return f"{edge:.0e}".replace("e-0", "e-").replace("e+0", "e")
