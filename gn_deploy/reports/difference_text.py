"""What changed between two reports, for a terminal: the answer first, then one table, the worse on top."""

from collections import Counter

from rich.console import Console, RenderableType
from rich.text import Text

from gn_deploy.reports.difference import Change, Difference, Direction
from gn_deploy.reports.summary import outcome, plural
from gn_deploy.reports.text import plain, table

_MARKS = {Direction.WORSE: ("✗ worse", "red"), Direction.BETTER: ("✓ better", "green"), Direction.CHANGED: ("·", "dim")}


def show(difference: Difference, console: Console) -> None:
    """Print the difference."""
    counts = Counter(change.direction for change in difference.changes)
    worse, better, other = (counts[direction] for direction in Direction)
    answer, style = ("✗ Something got worse. ", "bold red") if worse else ("✓ Nothing got worse. ", "bold green")
    told = [f"{worse} worse"] * bool(worse) + [f"{better} better"] * bool(better)
    told += [f"{other} neither"] * bool(other)
    total = f"{plural(len(difference.changes), 'change')}: {', '.join(told)}." if told else "No change."
    console.print(Text.assemble((answer, style), total))
    for name, report in (("before", difference.before), ("after", difference.after)):
        sides = f"{outcome(report).lower()}, {report.candidate} against {report.reference}"
        console.print(Text.assemble((f"  {name:<6} ", "dim"), plain(sides)))
    if difference.changes:
        console.print(
            table("", ("", "what", "where", "runtime", "before", "after"), list(map(_line, difference.changes)))
        )


def _line(change: Change) -> list[RenderableType]:
    mark = Text(*_MARKS[change.direction])
    return [mark, change.kind, change.place, change.runtime, change.before or "–", change.after or "–"]
