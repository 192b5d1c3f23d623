"""--redraw-affine as typed: a fault that the 1 and 0 of a fresh network hide."""

from collections.abc import Callable
from pathlib import Path

import onnx_ir as ir

from tests.cli.conftest import Ended
from tests.parity.test_redraw import moved, named, op


def test_as_typed(here: Callable[..., Ended], tmp_path: Path) -> None:
    ir.save(named(op), tmp_path / "a.onnx")
    ir.save(named(moved(1)), tmp_path / "b.onnx")
    assert here("parity", "--in-process", "a.onnx", "b.onnx").code == 0
    ended = here("parity", "--in-process", "a.onnx", "b.onnx", "--redraw-affine")
    assert ended.code == 1
    assert "on case 'redrawn " in ended.err
    assert "note: scale and bias of 1 of 1 GroupNorms were drawn anew as well" in ended.err
