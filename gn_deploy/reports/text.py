"""A comparison for a terminal: the verdict first, then runtimes, sites, outputs and the task as tables."""

from collections.abc import Sequence

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from gn_deploy.parity.report import ParityReport, RuntimeVerdict, SiteVerdict, TaskVerdict
from gn_deploy.parity.status import Status
from gn_deploy.reports import causes
from gn_deploy.reports.advice import next_steps
from gn_deploy.reports.summary import (
    GLYPHS,
    Row,
    error,
    headline,
    measured,
    number,
    percent,
    place,
    problems,
    ratio,
    reason,
    rows,
    worst,
    worst_rows,
)

_STYLES = {Status.PASS: "green", Status.NOTRUN: "dim"} | dict.fromkeys(
    (Status.WARN, Status.UNSTABLE, Status.LOWPREC), "yellow"
)


def show(report: ParityReport, console: Console) -> None:
    """Print the report; long site tables keep every broken site and say how many others held."""
    console.print(_headline(report))
    for where, status, why in problems(report):
        console.print(Text.assemble("  ", _status(status), "  ", (plain(where), "bold"), "  ", plain(why)))
    console.print(_runtimes(report))
    if report.sites:
        console.print(_sites(report, wide=console.width >= 120))
    if report.outputs:
        console.print(_outputs(report))
    if report.tasks:
        console.print(_tasks(report))
        for t in filter(lambda task: task.reason, report.tasks):
            console.print(Text.assemble("  ", (f"{plain(t.metric)} on {t.runtime}", "bold"), f"  {plain(t.reason)}"))
    for title, heading, told in (
        ("Where it parts", "runtime", causes.located(report)),
        ("At fault", "runtime", causes.blamed(report)),
        ("Who agrees", "where", causes.voted(report)),
    ):
        if told:
            console.print(table(f"\n{title}", (heading, ""), [[about, _lines(said)] for about, said in told]))
    for left in report.unpaired:
        console.print(Text(f"not compared: {plain(left)}", style="yellow"))
    for note in report.notes:
        console.print(Text(f"note: {plain(note)}", style="yellow"))
    for i, step in enumerate(next_steps(report)):
        console.print(Text.assemble(("       " if i else "\nNext:  ", "bold"), plain(step)), soft_wrap=True)


def table(title: str, columns: Sequence[str], lines: Sequence[Sequence[RenderableType]]) -> Table:
    """A calm table: a title, headings, no box; a heading that starts with ">" is aligned to the right."""
    made = Table(
        title=title, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0), header_style="dim"
    )
    for column in columns:
        made.add_column(column.lstrip(">"), justify="right" if column.startswith(">") else "left", overflow="fold")
    for line in lines:
        made.add_row(*(Text(plain(cell)) if isinstance(cell, str) else cell for cell in line))
    return made


def _lines(said: Sequence[str]) -> Text:
    return Text("\n".join(map(plain, said)))


def plain(text: str) -> str:
    """``text`` without control characters: a name in a file must not drive the terminal."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _headline(report: ParityReport) -> Text:
    style = "bold green" if report.held else "bold red"
    glyph = GLYPHS[Status.PASS if report.held else Status.FAIL]
    return Text.assemble((f"{glyph} Parity {report.verdict}. ", style), headline(report))


def _status(status: Status) -> Text:
    return Text(f"{GLYPHS[status]} {status}", style=_STYLES.get(status, "red"))


def _runtimes(report: ParityReport) -> Table:
    def line(verdict: RuntimeVerdict) -> list[RenderableType]:
        own = [v for v in report.sites if v.runtime == verdict.runtime and v.status is not Status.NOTRUN]
        peak = worst(own)
        held = f"{sum(not v.status.broken for v in own)} of {len(own)}" if own else "–"
        where = f"{place(peak)} ({peak.case})" if peak else verdict.reason
        return [
            verdict.runtime,
            verdict.version or "–",
            verdict.precision or "–",
            _status(verdict.status),
            held,
            ratio(error(peak)) if peak else "–",
            where,
        ]

    columns = ("runtime", "version", "precision", "verdict", ">GroupNorms held", ">worst err/bound", "where")
    return table("\nRuntimes", columns, [line(v) for v in report.runtimes])


def _sites(report: ParityReport, wide: bool, limit: int = 24) -> Table:
    """All sites when they fit a screen of ``limit`` lines, else the worst."""
    every = rows(report)
    shown = worst_rows(every, limit)
    names = list(dict.fromkeys(v.runtime for v in report.sites if v.status is not Status.NOTRUN))

    def line(row: Row) -> list[RenderableType]:
        site = row.site
        facts = (row.form, f"{site.num_groups}×{site.num_channels}", f"{site.epsilon:g}") if wide else ()
        return [str(row.number), place(site), *facts, *(_cell(row.cells.get(name)) for name in names), site.source]

    hidden = len(every) - len(shown)
    title = "\nGroupNorm sites, error over bound" + (f" ({hidden} more held)" if hidden else "")
    facts = ("form", "groups", "epsilon") if wide else ()
    return table(title, (">#", "site", *facts, *(f">{n}" for n in names), "source"), list(map(line, shown)))


def _cell(verdict: SiteVerdict | None) -> Text:
    if verdict is None or verdict.status is Status.NOTRUN:
        return Text("–", style="dim")
    style = _STYLES.get(verdict.status, "red")
    return Text(ratio(error(verdict)) if verdict.metrics else str(verdict.status), style=style)


def _outputs(report: ParityReport) -> Table:
    lines: list[list[RenderableType]] = [
        [
            v.output,
            v.runtime,
            _status(v.status),
            number(v.noise_ratio),
            number(v.metrics.max_abs) if v.metrics else "–",
            reason(v) if v.status is not Status.PASS else "",
        ]
        for v in report.outputs
    ]
    return table("\nEnd to end", ("output", "runtime", "verdict", ">noise ratio", ">max error", ""), lines)


def _tasks(report: ParityReport) -> Table:
    asked = any(t.allowed_drop == t.allowed_drop for t in report.tasks)  # not NaN
    alike = any(t.agreement == t.agreement for t in report.tasks)

    def line(t: TaskVerdict) -> list[RenderableType]:
        def show(value: float) -> str:
            return measured(t.metric, value)

        judged: list[RenderableType] = [show(-t.allowed_drop), _status(t.status)] if asked else []
        same = [percent(t.agreement), percent(t.agreement_lower), f"{t.certified} of {t.samples}"] if alike else []
        told = " to ".join(map(show, t.interval)) or "–"
        values = [show(t.reference_value), show(t.value), show(t.difference), told]
        return [t.runtime, t.metric, *values, *judged, *same]

    columns = ["runtime", "metric", ">reference", ">value", ">difference", ">95 % interval"]
    columns += [">allowed", "verdict"] if asked else []
    columns += [">agreement", ">at least", ">certified samples"] if alike else []
    return table("\nTask", columns, [line(t) for t in report.tasks])
