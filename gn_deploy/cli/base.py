"""What every verb shares: where text goes, what it answers, and the options that mean the same everywhere."""

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from typer.core import TyperCommand

from gn_deploy.errors import ExitCode, InputError

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console, RenderableType
    from rich.table import Table

    from gn_deploy.parity.progress import Progress
    from gn_deploy.parity.report import ParityReport
    from gn_deploy.passes.lower import SiteDecision

T = TypeVar("T")
MEMORY_LIMIT = "8GiB"
"""Of a runtime's process unless asked otherwise: half of a small CI machine, twice the largest model of our tests."""
JSON_HELP = "Print one JSON document on stdout, and nothing else."
Json = Annotated[bool, typer.Option("--json", help=JSON_HELP)]
NoVerify = Annotated[
    bool, typer.Option("--no-verify", help="Skip the check of every rewritten site against the float64 oracle.")
]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a verb found out: the document that ``--json`` prints, if it was asked for, and the exit code."""

    document: dict[str, Any]
    exit_code: ExitCode = ExitCode.OK
    json: bool = False


class Verb(TyperCommand):
    """A command during which nothing but its Answer can reach stdout.

    Libraries, compilers and users' recipes print there when they like; while a verb runs, that goes to stderr.
    """

    def invoke(self, ctx: Any) -> Any:
        with _stdout_to_stderr():
            return super().invoke(ctx)


@contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    try:
        kept = os.dup(1)
    except OSError:  # stdout is closed: there is nothing to protect
        yield
        return
    try:
        sys.stdout.flush()
        os.dup2(2, 1)
        with redirect_stdout(sys.stderr):
            yield
    finally:
        with suppress(OSError):
            os.dup2(kept, 1)
        os.close(kept)


def terminal(json: bool = False) -> "Console":
    """The console for people, on stderr; silent with ``--json``. Not cut to 80 columns when it is not a terminal."""
    from rich.console import Console

    class Terminal(Console):
        def on_broken_pipe(self) -> None:
            """The reader of stderr went away; the work, and its exit code, go on."""
            self.quiet = True
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)

    columns = os.environ.get("COLUMNS", "")
    width = None if sys.stderr.isatty() else int(columns) if re.fullmatch("[1-9][0-9]{1,3}", columns) else 160
    return Terminal(stderr=True, quiet=json, width=width, highlight=False, markup=False, emoji=False)


def once(option: str, pairs: "Iterable[tuple[str, T]]") -> "dict[str, T]":
    """The values of a repeatable NAME=VALUE option; InputError when a name is given two."""
    found: dict[str, T] = {}
    for name, value in pairs:
        if found.setdefault(name, value) != value:
            raise InputError(f"{option} gives '{name}' two values", "give each name once")
    return found


@contextmanager
def bar(console: "Console", unit: str) -> "Iterator[Callable[[Progress], None]]":
    """A bar with how many ``unit`` are done, of how many, how many a second and how long it will take; on a terminal
    alone. Progress in other units changes the words beside it.
    """
    if console.quiet or not console.is_terminal:
        yield lambda _: None
        return
    from rich.progress import BarColumn, ProgressColumn, SpinnerColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Any) -> Text:
            return Text(f"{task.speed:.3g}/s" if task.speed else "", style="dim")

    class Count(ProgressColumn):
        def render(self, task: Any) -> Text:
            whole = "" if task.total is None else f"/{task.total:.0f}"
            return Text(f"{task.completed:.0f}{whole} {unit}" if task.completed or whole else "")

    class Left(TimeRemainingColumn):
        def render(self, task: Any) -> Text:
            left = super().render(task)
            return Text.assemble("ETA ", left) if task.total is not None and task.time_remaining is not None else Text()

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(24),
        Count(),
        Rate(),
        Left(compact=True),
    )
    with Bar(*columns, console=console, transient=True, speed_estimate_period=60) as shown:
        task = shown.add_task("reading", total=None)

        def tell(step: "Progress") -> None:
            if step.unit == unit:
                shown.update(task, completed=step.done, total=step.total)
            if step.doing:
                shown.update(task, description=plain_line(step.doing))

        yield tell


def plain_line(text: str) -> str:
    from gn_deploy.reports.text import plain

    return plain(" ".join(text.split()))


def sized(text: str) -> tuple[str, int]:
    """("batch", 4) of "batch=4"."""
    name, sizes = tried(text)
    if len(sizes) > 1:
        raise InputError(f"--dim {text} is not NAME=SIZE", "for example --dim batch=4")
    return name, sizes[0]


def tried(text: str) -> tuple[str, tuple[int, ...]]:
    """("batch", (1, 4)) of "batch=1,4"."""
    name, _, sizes = text.partition("=")
    found = sizes.split(",")
    if not name or not all(size.isdecimal() and int(size) > 0 for size in found):
        raise InputError(f"--dim {text} is not NAME=SIZE or NAME=SIZE,SIZE", "for example --dim batch=4")
    return name, tuple(map(int, found))


def bytes_of(option: str, text: str) -> int | None:
    """The bytes that "8GiB", "500MB" or "1073741824" says; None for "0", which is no limit."""
    units = {"": 1, "B": 1} | {
        f"{prefix}{kind}": base**power
        for power, prefix in enumerate("KMGT", start=1)
        for kind, base in (("", 1024), ("iB", 1024), ("B", 1000))
    }
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", text.strip())
    unit = next((unit for unit in units if match and unit.lower() == match[2].lower()), None)
    if match is None or unit is None:
        raise InputError(f"{option} {text} is not a size", "for example 8GiB, 500MB, or 0 for no limit")
    return int(float(match[1]) * units[unit]) or None


def check_folder(folder: "Path") -> None:
    """Raises InputError where no folder can be made, before the work whose result would go there."""
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    if not existing.is_dir():
        raise InputError(f"cannot write into '{folder}': '{existing}' is a file", "name a folder; it is made if needed")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(f"cannot write into '{folder}': '{existing}' is not writable", "choose another folder")


def save_report(report: "ParityReport", folder: "Path", console: "Console") -> None:
    """Write the report files and name each; what cannot be written here says why."""
    from gn_deploy.reports import write

    for path in write(report, folder, on_skip=lambda name, why: console.print(f"no {name} report: {why}")):
        console.print(f"wrote {path}")


def site_rows(decisions: "Iterable[SiteDecision]") -> list[dict[str, Any]]:
    """What ``--json`` says of every GroupNorm and of what a target makes of it."""
    return [
        {
            "name": d.site,
            "form": d.form,
            "num_groups": d.spec.num_groups,
            "num_channels": d.spec.num_channels,
            "epsilon": d.spec.epsilon,
            "dtype": d.spec.dtype,
            "stash_dtype": d.spec.stash_dtype,
            "wide_affine": d.spec.wide_affine,
            "rank": d.spec.rank,
            "channel_axis": d.spec.channel_axis,
            "activation": str(d.spec.activation),
            "residual": d.spec.residual,
            "scale_shift": d.spec.scale_shift,
            "module": d.module,
            "source": d.source,
            "decision": {"accepted": bool(d.decision), "form": d.wrote, "reason": d.decision.reason},
        }
        for d in decisions
    ]


def show_sites(decisions: "Iterable[SiteDecision]", heading: str, console: "Console") -> None:
    """The same for people; ``heading`` stands above the form each site gets, or why it stays."""
    decisions = list(decisions)
    whole = _site_table(decisions, heading, _COLUMNS)
    if decisions and whole.__rich_measure__(console, console.options.update(max_width=9999)).maximum > console.width:
        console.print(_site_table(decisions, heading, _NARROW))
        console.print(f"{', '.join(sorted(set(_COLUMNS) - set(_NARROW)))}: in a wider terminal, or with --json")
    elif decisions:
        console.print(whole)


def _site_table(decisions: "Iterable[SiteDecision]", heading: str, columns: "Sequence[str]") -> "Table":
    from rich.text import Text

    from gn_deploy.reports.text import plain, table

    def verdict(d: "SiteDecision") -> Text:
        if d.decision:
            wrote = d.wrote and ": ".join(filter(None, (d.wrote, plain(d.because))))
            return Text(wrote or d.decision.reason, style="green")
        reason = d.decision.reason.removeprefix(f"left as {d.form}: ")
        return Text(f"left alone: {plain(reason)}", style="yellow")

    def facts(d: "SiteDecision") -> dict[str, str]:
        return {
            "site": d.module or d.site,
            "form": d.form,
            "groups": f"{d.spec.num_groups}×{d.spec.num_channels}",
            "epsilon": f"{d.spec.epsilon:g}",
            "dtype": d.spec.dtype,
            "around": ", ".join(_AROUND.get(part, part) for part in sorted(d.spec.around)),
            "source": d.source,
        }

    lines: list[list[RenderableType]] = [[*(facts(d)[c] for c in columns), verdict(d)] for d in decisions]
    return table("", (*columns, heading), lines)


_COLUMNS = ("site", "form", "groups", "epsilon", "dtype", "around", "source")
_NARROW = ("site", "form", "groups", "around")
_AROUND = {"channels_last": "channels last", "scale_shift": "scale and shift", "wide_affine": "float32 inside"}
