"""Error over bound of every site, drawn as dots on a logarithmic axis, one plot for each runtime."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from gn_deploy.parity.report import ParityReport, SiteVerdict
from gn_deploy.reports import summary

_DOTS_WITH_NAMES = 4000  # a tooltip is about 120 bytes: above this the page would pass half a megabyte


@dataclass(frozen=True, slots=True)
class Scale:
    """A logarithmic axis over whole decades that always shows 1, the bound."""

    low: int
    high: int

    @classmethod
    def around(cls, values: Iterable[float]) -> "Scale":
        """Wide enough for every positive finite value, within 1e-3 to 1e8 and at least 1e-2 to 1e1."""
        logs = [math.log10(v) for v in values if 0 < v < math.inf]
        low = max(-3, min([-2, *(math.floor(x) for x in logs)]))
        return cls(low, min(8, max([1, *(math.ceil(x) for x in logs)])))

    def at(self, value: float) -> float:
        """Where ``value`` stands, 0 to 100; what lies outside, infinity too, stands at the end."""
        if math.isnan(value) or value <= 0:
            return 0.0
        place = math.log10(value) if value < math.inf else self.high
        return round(100 * min(1.0, max(0.0, (place - self.low) / (self.high - self.low))), 2)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """(place, label) of each decade."""
        labels = {-2: "0.01", -1: "0.1", 0: "1", 1: "10", 2: "100"}
        return [(self.at(10.0**d), labels.get(d, f"1e{d}")) for d in range(self.low, self.high + 1)]


@dataclass(frozen=True, slots=True)
class Dot:
    """One case of one site: x counts sites from 0, y is 0 to 100 on the scale."""

    x: float
    y: float
    worst: bool
    broken: bool
    name: str


@dataclass(frozen=True, slots=True)
class Plot:
    """The errors of one runtime, site by site in graph order."""

    runtime: str
    sites: int
    dots: list[Dot]

    @property
    def told(self) -> str:
        """The plot in words, for who cannot see it."""
        broken = len({dot.x for dot in self.dots if dot.broken})
        rest = f"; {broken} of them broken" if broken else "; none broken"
        return f"Error over bound on {self.runtime}, {summary.plural(self.sites, 'site')}{rest}"


def plots(report: ParityReport, scale: Scale) -> list[Plot]:
    """One plot for each runtime that measured anything; every case a dot, the worst of a site on top."""
    rows = summary.rows(report)
    named = sum(len(v.cases) for v in report.sites) <= _DOTS_WITH_NAMES
    drawn = []
    for runtime in dict.fromkeys(v.runtime for v in report.sites if v.metrics is not None):
        dots = []
        for row in rows:
            if (cell := row.cells.get(runtime)) is not None and cell.metrics is not None:
                dots += [_dot(cell, row, case, value, scale, named) for case, value in _cases(cell).items()]
        drawn.append(Plot(runtime, len(rows), sorted(dots, key=lambda dot: dot.worst)))
    return drawn


def families(report: ParityReport) -> dict[str, dict[str, float]]:
    """case -> runtime -> the worst error over the bound of any site."""
    table: dict[str, dict[str, float]] = {}
    for verdict in report.sites:
        for case, value in verdict.cases.items():
            row = table.setdefault(case, {})
            row[verdict.runtime] = max(row.get(verdict.runtime, 0.0), value)
    return table


def _cases(cell: SiteVerdict) -> dict[str, float]:
    return cell.cases or {cell.case: summary.error(cell)}


def _dot(cell: SiteVerdict, row: summary.Row, case: str, value: float, scale: Scale, named: bool) -> Dot:
    worst = case == cell.case
    name = f"#{row.number} {summary.place(cell)}, {case}: {summary.ratio(value)}" if named or worst else ""
    return Dot(row.number - 1, scale.at(value), worst, cell.status.broken, name)
