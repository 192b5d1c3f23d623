"""The bar beside long work: what is done, of how many, how fast and how long still; for people at terminals only."""

import io
import re

import pytest
from rich.console import Console

from gn_deploy.cli.base import bar
from gn_deploy.parity.progress import Progress


def shown(console: Console, *steps: Progress) -> list[str]:
    """Each state of the bar, without colours."""
    with bar(console, "GroupNorms") as tell:
        for step in steps:
            tell(step)
            console.file.flush()
    text = console.file.getvalue()  # type: ignore[attr-defined]
    moves = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "\r", re.sub(r"\x1b\[[0-9;]*m", "", text))
    return [line.strip() for line in re.split(r"[\r\n]+", moves) if line.strip()]


def test_a_terminal_shows_how_far_how_fast_and_how_long_still(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 0.5
        return now

    console = Console(file=io.StringIO(), force_terminal=True, width=120, get_time=clock)
    steps = [Progress("onnxruntime", done, 61, "GroupNorms") for done in (0, 10, 20, 37)]
    lines = shown(console, *steps, Progress("openvino: judging\n61 GroupNorm(s)", 1, 4))
    assert lines[0].endswith("reading " + "━" * 24), "nothing is known yet"
    last = lines[-1]
    assert "openvino: judging 61 GroupNorm(s)" in last, "other units change the words alone"
    assert "37/61 GroupNorms" in last
    rate = re.search(r"([\d.]+)/s", last)
    assert rate is not None
    assert 0 < float(rate[1]) < 100
    assert re.search(r"ETA \d+:\d\d", last)


def test_nothing_is_shown_to_files_and_programs() -> None:
    step = Progress("onnxruntime", 1, 2, "GroupNorms")
    assert shown(Console(file=io.StringIO(), width=120), step) == []
    assert shown(Console(file=io.StringIO(), force_terminal=True, quiet=True), step) == []


def test_an_unknown_end_is_not_made_up() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    last = shown(console, Progress("onnxruntime", 7, None, "GroupNorms"))[-1]
    assert "7 GroupNorms" in last
    assert "7/" not in last
