"""Several sizes and --until-confident, as typed: what is judged, what is said, and what cannot be asked for."""

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Ended
from tests.cli.test_cli_bad_input import refused

Cli = Callable[..., Ended]
Saved = Callable[..., Path]


@pytest.fixture
def folder(saved: Saved, tmp_path: Path) -> Path:
    saved("m.onnx", size=("h", "w"))
    saved("wrong.onnx", size=("h", "w"), epsilon=1e-2)
    return tmp_path


def test_sizes_asked_for_and_chosen(here: Cli, folder: Path) -> None:
    asked = here(
        "parity", "--in-process", "m.onnx", "m.onnx", "--dim", "batch=1,3", "--dim", "h=5", "--dim", "w=5,7", "--json"
    )
    assert asked.code == 0, asked.err
    sizes = {name.partition(" at ")[2] for name in asked.document["sites"][0]["cases"]} - {""}
    assert sizes == {f"batch={batch}, h=5, w={w}" for batch in (1, 3) for w in (5, 7)}
    chosen = here("parity", "--in-process", "m.onnx", "m.onnx", "--sizes", "auto", "--dim", "h=4")
    assert chosen.code == 0, chosen.err
    assert "note: judged at h=4; h=4, batch=1; h=4, batch=3, w=33; h=4, batch=2, w=1" in chosen.err
    assert here("parity", "--in-process", "m.onnx", "wrong.onnx", "--sizes", "auto").code == 1


def test_until_confident(here: Cli, folder: Path) -> None:
    sizes = ("--dim", "h=4", "--dim", "w=4")
    held = here("parity", "--in-process", "m.onnx", "m.onnx", *sizes, "--until-confident", "--rate", "0.1")
    assert held.code == 0, held.err
    assert "Held on 29 inputs: with 95 % confidence fewer than 9.81 % of inputs like these break it." in held.err
    found = here("parity", "--in-process", "m.onnx", "wrong.onnx", *sizes, "--until-confident", "--json")
    assert found.code == 1
    assert found.document["confidence"]["violations"] > 0
    late = here("parity", "--in-process", "m.onnx", "m.onnx", *sizes, "--until-confident", "--time-budget", "0.001")
    assert late.code == 1, "a confidence was asked for and not reached"
    assert "✗ Parity not proved. 1 GroupNorm on 1 runtime: nothing broke, but how sure that is was not" in late.err
    assert "Not settled (the time was up after 4 of 299 inputs). Held on 4 inputs: with 95 % confidence" in late.err
    assert "Next:  Give it more inputs: a longer --time-budget or none, or more --data, or ask for less" in late.err
    enough = ("--until-confident", "--rate", "0.53")
    assert "--rate 0.53 is settled by 4 inputs" in late.err
    assert here("parity", "--in-process", "m.onnx", "m.onnx", *sizes, *enough).code == 0


WRONG = {
    "--dim h=3,": ("--dim h=3, is not NAME=SIZE", "for example"),
    "--dim h=3,0": ("is not NAME=SIZE or NAME=SIZE,SIZE", "for example"),
    "--dim rows=3,4": ("no input has a dim named 'rows'", "batch, h, w"),
    "--dim h=1,2,3,4,5,6,7,8 --dim w=1,2,3,4,5,6,7,8,9": ("are more than 64 combinations", "fewer"),
    "--sizes all": ("sizes are 'all'", "auto"),
    "--rate 0.1": ("are of --until-confident", "add it"),
    "--until-confident --rate 0": ("a rate of 0 is not between 0 and 1", "0.01"),
    "--until-confident --confidence 1": ("a level of 1 is not between 0 and 1", "0.95"),
    "--until-confident --rate 1e-9": ("takes 2995732", "larger rate"),
    "--until-confident --probes-only": ("of networks that run", "--probes-only"),
    "--sizes auto --data m.onnx": ("have the sizes they have", "leave out"),
}


@pytest.mark.parametrize("line", WRONG)
def test_what_cannot_be_asked_is_told(line: str, here: Cli, folder: Path) -> None:
    message, hint = refused(here("parity", "--in-process", "m.onnx", "m.onnx", *shlex.split(line))).splitlines()
    assert WRONG[line][0] in message
    assert WRONG[line][1] in hint
