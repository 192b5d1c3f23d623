"""Inputs of the user's own as typed after --data: every kind of source judged, and a wrong model found on it."""

import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import numpy_helper

from tests.cli.conftest import Ended
from tests.cli.test_cli_bad_input import refused

Cli = Callable[..., Ended]
Saved = Callable[..., Path]

SOURCES = ["x.npz", "cases.npz", "x.npy", "folder", "feeds.json", "x.pt", "sets", "loader.py", "loader.py:tuples",
           "loader:tuples"]  # fmt: skip
LOADER = """
import numpy as np

def load_data():
    rng = np.random.default_rng(0)
    for _ in range(3):
        yield {"x": rng.standard_normal((2, 4, 4, 4)).astype("float32")}

def tuples():
    return [(feeds["x"],) for feeds in load_data()]

def fails():
    yield from load_data()
    raise ValueError("no more")

def nothing():
    return iter(())
"""


@pytest.fixture
def folder(saved: Saved, tmp_path: Path) -> Path:
    saved("m.onnx")
    saved("wrong.onnx", epsilon=1e-2)
    x = np.random.default_rng(0).standard_normal((2, 4, 4, 4)).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    np.savez(tmp_path / "cases.npz", **{"a/x": x, "b/x": x})
    np.savez(tmp_path / "other.npz", picture=x)
    np.save(tmp_path / "x.npy", x)
    (tmp_path / "folder").mkdir()
    np.savez(tmp_path / "folder" / "one.npz", x=x)
    np.savez(tmp_path / "folder" / "two.npz", x=x)
    golden = (Path(__file__).parents[1] / "golden" / "polygraphy" / "inputs.json").read_text()
    (tmp_path / "feeds.json").write_text(golden)
    torch.save({"x": torch.from_numpy(x)}, tmp_path / "x.pt")
    (tmp_path / "sets" / "test_data_set_0").mkdir(parents=True)
    (tmp_path / "sets" / "test_data_set_0" / "input_0.pb").write_bytes(
        numpy_helper.from_array(x, "x").SerializeToString()
    )
    (tmp_path / "loader.py").write_text(LOADER)
    return tmp_path


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_is_judged(source: str, here: Cli, saved: Saved, folder: Path) -> None:
    if source == "feeds.json":  # its arrays are (N, 4, 3, 2)
        for name, options in (("m.onnx", {}), ("wrong.onnx", {"epsilon": 1e-2})):
            saved(name, size=(3, 2), **options)
    right = here("parity", "--in-process", "m.onnx", "m.onnx", "--data", source, "--json")
    assert right.code == 0, right.err
    own = [name for name in right.document["sites"][0]["cases"] if not name.startswith("probe")]
    count = {"loader.py": 3, "loader.py:tuples": 3, "loader:tuples": 3, "cases.npz": 2, "folder": 2, "feeds.json": 2}
    assert len(own) == count.get(source, 1)
    assert right.document["outputs"][0]["status"] == "pass"
    wrong = here("parity", "--in-process", "m.onnx", "wrong.onnx", "--data", source, "--json")
    assert wrong.code == 1
    assert all(wrong.document["sites"][0]["cases"][name] > 1 for name in own)


def test_limit_and_notes(here: Cli, folder: Path) -> None:
    ended = here("parity", "--in-process", "m.onnx", "m.onnx", "--data", "loader.py", "--limit", 2, "--json")
    assert len([n for n in ended.document["sites"][0]["cases"] if n.startswith("load_data")]) == 2
    told = here("parity", "--in-process", "m.onnx", "m.onnx", "--data", "other.npz")
    assert told.code == 0
    assert "note: other.npz: its only array 'picture' was taken for input 'x'" in told.err


WRONG = {
    "--data loader.py:absent": ("'loader.py' has no 'absent'", "yields"),
    "--data loader.py:fails": ("loader.py:fails() raised ValueError: no more at input 3", "loader.py line 14"),
    "--data loader.py:nothing": ("'loader.py:nothing' gives no input at all", ""),
    "--data absent.module:load": ("no module 'absent'", "FILE.py:FUNCTION"),
    "--data m.onnx": ("cannot read m.onnx: it is not a NumPy file", "FILE.py:FUNCTION"),
    "--data x.npz --limit 0": ("a limit of 0", "1 or more"),
    "--limit 3": ("none were given", "data"),
    "--data feeds.json": ("feeds.json: 'x' has shape (1, 4, 3, 2), the model takes (batch, 4, 4, 4)", "free"),
}


@pytest.mark.parametrize("line", WRONG)
def test_what_cannot_be_read_is_told(line: str, here: Cli, folder: Path) -> None:
    message, hint = refused(here("parity", "--in-process", "m.onnx", "m.onnx", *shlex.split(line))).splitlines()
    assert WRONG[line][0] in message
    assert WRONG[line][1] in hint
