"""What every report of a matrix says: the headline, the table of models and columns, and what did not hold."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gn_deploy.matrix.plan import Column
from gn_deploy.matrix.report import JobVerdict, MatrixReport
from gn_deploy.parity.status import Status
from gn_deploy.reports import summary
from gn_deploy.reports.summary import plural

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that did not hold, and the models and cases that tell it."""

    column: str
    status: Status
    reason: str
    models: tuple[str, ...]
    cases: tuple[str, ...]

    @property
    def place(self) -> str:
        """Where, in a few words."""
        return f"{', '.join(self.models)} for {self.column}, {', '.join(self.cases)}"


def title(report: MatrixReport) -> str:
    return {"held": "Everything held", "broken": "Parity broken", "open": "Not everything was judged"}[report.verdict]


def headline(report: MatrixReport) -> str:
    """How much there is, how it ended, and what is left."""
    size = f"{plural(len(report.models), 'model')} × {plural(len(report.columns), 'target')} × "
    size += f"{plural(len(report.cases), 'case')}: "
    ended = ", ".join(f"{count} {status}" for status, count in report.counts.items())
    left = f"{len(report.left)} not finished" if report.left else ""
    return size + ", ".join(filter(None, (ended, left))) + "."


def problems(report: MatrixReport) -> list[Problem]:
    """Jobs that did not end with exit code 0, what tells the same once; the gravest first, else in order."""
    alike: dict[tuple[str, Status, str], list[JobVerdict]] = {}
    for job in report.jobs:
        if job.exit_code:
            alike.setdefault((column(report, job), job.status, reason(job)), []).append(job)
    found = [
        Problem(*key, tuple(dict.fromkeys(j.model for j in jobs)), tuple(dict.fromkeys(j.case for j in jobs)))
        for key, jobs in alike.items()
    ]
    return sorted(found, key=lambda problem: -problem.status.severity)


def reason(job: JobVerdict) -> str:
    """Why a job ended as it did: the places that broke, or the job's own words."""
    places: dict[str, None] = {}
    if job.report is not None:
        for where, status, _ in summary.problems(job.report):
            places.setdefault(f"{where.removesuffix(f' on {job.runtime}')} ({status})")
    if not places or job.reason:
        return job.reason or summary.MEANINGS[job.status]
    shown = list(places)[:3]
    more = len(places) - len(shown)
    return "; ".join(shown) + (f"; {more} more" if more else "")


def column(report: MatrixReport, job: JobVerdict) -> str:
    same = (c.label for c in report.columns if (c.target, c.runtime) == (job.target, job.runtime))
    return next(same, job.target)


def sites(job: JobVerdict) -> str:
    return f"{job.rewritten[0]} of {job.rewritten[1]} rewritten" if job.rewritten else "–"


def strip(report: MatrixReport, model: str, at: Column) -> str:
    """The cases of a cell, for who cannot see their colours."""
    return ", ".join(f"{job.case} {job.status}" for job in report.of(model, at)) or "no result"


def show(report: MatrixReport, console: "Console") -> None:
    """The table of models and columns, and what did not hold, for a terminal."""
    from rich.text import Text

    from gn_deploy.reports.text import plain, table

    style = {"held": "bold green", "broken": "bold red", "open": "bold yellow"}[report.verdict]
    glyph = {"held": "✓", "broken": "✗", "open": "–"}[report.verdict]
    console.print(Text.assemble((f"{glyph} {title(report)}. ", style), headline(report)))
    lines: list[list[RenderableType]] = [
        [model, *(_cell(report, model, at) for at in report.columns)] for model in report.models
    ]
    console.print(table("", ("model", *(at.label for at in report.columns)), lines))
    for problem in problems(report):
        console.print(
            Text.assemble(
                "  ", _status(problem.status), "  ", (plain(problem.place), "bold"), "  ", plain(problem.reason)
            )
        )


def _cell(report: MatrixReport, model: str, at: Column) -> "Text":
    from rich.text import Text

    cell = report.cell(model, at)
    if not cell.cases:
        return Text("open", style="dim")
    told = "" if math.isnan(cell.error) else f"  {summary.ratio(cell.error)}"
    left = f"  {cell.left} open" if cell.left else ""
    return Text.assemble(_status(cell.status), (f"{told}{left}", "dim"))


def _status(status: Status) -> "Text":
    from rich.text import Text

    style = "green" if status is Status.PASS else "red" if status.broken else "yellow"
    return Text(f"{summary.GLYPHS[status]} {status}", style=style)
