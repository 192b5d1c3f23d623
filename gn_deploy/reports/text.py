"""A comparison for a terminal: the verdict first, then runtimes, sites, outputs and the task as tables."""

from collections.abc import Sequence

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from gn_deploy.parity.report import Noticed, ParityReport, RuntimeVerdict, SiteVerdict, TaskVerdict
from gn_deploy.parity.status import Status
from gn_deploy.reports import causes, sentences
from gn_deploy.reports.advice import next_steps
from gn_deploy.reports.summary import (
    GLYPHS,
    Row,
    error,
    headline,
    measured,
    number,
    outcome,
    percent,
    place,
    problems,
    ratio,
    reason,
    rows,
    worst,
    worst_rows,
)

_SHORT = 24  # letters of a name that are worth keeping together on 80 columns
WIDE = 120  # columns from which every table has room for all it knows
_STYLES = {Status.PASS: "green", Status.NOTRUN: "dim"} | dict.fromkeys(
    (Status.WARN, Status.UNSTABLE, Status.LOWPREC), "yellow"
)


def show(report: ParityReport, console: Console) -> None:
    """Print the report; long site tables keep every broken site and say how many others held.

    On a narrow console tables keep what cannot be done without; report.html and ``--json`` have the rest.
    """
    wide = console.width >= WIDE
    console.print(_headline(report))
    for sentence in filter(None, (sentences.confidence(report.confidence), sentences.accepted(report))):
        console.print(Text(f"  {plain(sentence)}"))
    for where, status, why in problems(report):
        console.print(Text.assemble("  ", _status(status), "  ", (plain(where), "bold"), "  ", plain(why)))
    console.print(_runtimes(report, wide))
    if report.sites:
        console.print(_sites(report, wide))
    if report.outputs:
        console.print(_outputs(report))
    if report.tasks:
        console.print(_tasks(report, wide))
        for t in filter(lambda task: task.reason, report.tasks):
            console.print(Text.assemble("  ", (f"{plain(t.metric)} on {t.runtime}", "bold"), f"  {plain(t.reason)}"))
    for title, heading, told in (
        ("Where it parts", "runtime", causes.located(report)),
        ("At fault", "runtime", causes.blamed(report)),
        ("Who agrees", "where", causes.voted(report)),
    ):
        if told:
            console.print(table(f"\n{title}", (heading, ""), [[about, _lines(said)] for about, said in told]))
    if report.noticed:
        _noticed(report, console)
    for left in report.unpaired:
        console.print(Text(f"not compared: {plain(left)}", style="yellow"))
    for note in report.notes:
        console.print(Text(f"note: {plain(note)}", style="yellow"))
    for i, step in enumerate(next_steps(report)):
        console.print(Text.assemble(("       " if i else "\nNext:  ", "bold"), plain(step)), soft_wrap=True)


def table(title: str, columns: Sequence[str], lines: Sequence[Sequence[RenderableType]]) -> Table:
    """A calm table: a title, headings, no box; a heading that starts with ">" is aligned to the right. What a line is
    about, its first cell, is not broken while it is short."""
    made = Table(
        title=title, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0), header_style="dim"
    )
    for column in columns:
        made.add_column(column.lstrip(">"), justify="right" if column.startswith(">") else "left", overflow="fold")
    names = [line[0] for line in lines if line and isinstance(line[0], str)]
    if made.columns and max(map(len, names), default=0) <= _SHORT:
        made.columns[0].no_wrap = True
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
    return Text.assemble((f"{glyph} {outcome(report)}. ", style), headline(report))


def _status(status: Status) -> Text:
    return Text(f"{GLYPHS[status]} {status}", style=_STYLES.get(status, "red"))


def _runtimes(report: ParityReport, wide: bool) -> Table:
    def line(verdict: RuntimeVerdict) -> list[RenderableType]:
        own = [v for v in report.sites if v.runtime == verdict.runtime and v.status is not Status.NOTRUN]
        peak = worst(own)
        held = f"{sum(not v.status.broken for v in own)} of {len(own)}" if own else "–"
        where = f"{place(peak)} ({peak.case})" if peak else verdict.reason
        return [
            verdict.runtime,
            *([verdict.version or "–"] if wide else []),
            verdict.precision or "–",
            _status(verdict.status),
            held,
            ratio(error(peak)) if peak else "–",
            where,
        ]

    full = ("runtime", "version", "precision", "verdict", ">GroupNorms held", ">worst err/bound", "where")
    short = ("runtime", "precision", "verdict", ">held", ">err/bound", "where")
    return table("\nRuntimes", full if wide else short, [line(v) for v in report.runtimes])


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
            ratio(v.metrics.error_over_bound) if v.metrics else "–",
            number(v.metrics.max_abs) if v.metrics else "–",
            reason(v) if v.status is not Status.PASS else "",
        ]
        for v in report.outputs
    ]
    columns = ("output", "runtime", "verdict", ">noise ratio", ">err/bound", ">max error", "")
    return table("\nEnd to end", columns, lines)


def _tasks(report: ParityReport, wide: bool) -> Table:
    asked = any(t.allowed_drop == t.allowed_drop for t in report.tasks)  # not NaN
    alike = any(t.agreement == t.agreement for t in report.tasks)

    def line(t: TaskVerdict) -> list[RenderableType]:
        def show(value: float) -> str:
            return measured(t.metric, value)

        judged: list[RenderableType] = [show(-t.allowed_drop), _status(t.status)] if asked else []
        same = [percent(t.agreement), percent(t.agreement_lower), f"{t.certified} of {t.samples}"] if alike else []
        told = " to ".join(map(show, t.interval)) or "–"
        values = [show(t.value), show(t.difference), told]
        if wide:
            return [t.runtime, t.metric, show(t.reference_value), *values, *judged, *same]
        return [t.runtime, t.metric, *values, *judged[1:]]

    columns = ["runtime", "metric", ">reference", ">value", ">difference", ">95 % interval"]
    columns += [">allowed", "verdict"] if asked else []
    columns += [">agreement", ">at least", ">certified samples"] if alike else []
    short = ["runtime", "metric", ">value", ">difference", ">95 % interval"] + ["verdict"] * asked
    return table("\nTask", columns if wide else short, [line(t) for t in report.tasks])


def _noticed(report: ParityReport, console: Console, names: int = 3) -> None:
    """What went unnoticed, and what had no effect; the rest in a sentence."""
    acting = [row for row in report.noticed if row.effective]
    clear = [row for row in acting if row.named == row.effective]
    absent = [row for row in report.noticed if not row.seeded]
    heard = sum(row.noticed == row.effective for row in acting)
    glyph, style = ("–", "bold") if not acting else ("✓", "bold green") if heard == len(acting) else ("✗", "bold red")
    told = f"{heard} of {len(acting)} kinds of fault that change what is computed on this data were noticed."
    if not acting:
        told = "No fault that changes what is computed on this data could be tried."
    console.print(Text.assemble((f"\n{glyph} Would it notice? ", style), told))

    def line(row: Noticed) -> list[RenderableType]:
        deaf = row.noticed < row.effective
        missed = [*row.missed[:names], *([f"{len(row.missed) - names} more"] if len(row.missed) > names else [])]
        return [
            Text(f"{'✗' if deaf else '✓' if row.effective else '–'} {plain(row.fault)}", style="red" if deaf else ""),
            *(str(n) for n in (row.seeded, row.effective, row.noticed, row.named)),
            ", ".join(missed),
            row.reason,
        ]

    rows = [row for row in report.noticed if row not in clear and row not in absent]
    if rows:
        rows.sort(key=lambda row: (row.noticed == row.effective, not row.effective))
        columns = ("fault seeded", ">GroupNorms", ">effective", ">noticed", ">named", "missed in", "why")
        console.print(table("", columns, list(map(line, rows))))
    told = ", ".join(f"{row.fault} ({row.noticed})" for row in clear)
    if clear:
        console.print(Text(f"Noticed each time, and the right GroupNorm named (how often): {told}."))
    if absent:
        why: dict[str, list[str]] = {}
        for row in absent:
            why.setdefault(row.reason, []).append(row.fault)
        told = "; ".join(f"{', '.join(faults)}: {reason}" for reason, faults in why.items())
        console.print(Text(f"Not seeded. {plain(told)}.", style="dim"))
