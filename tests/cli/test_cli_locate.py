"""Where a comparison parts, as a user asks for it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from gn_deploy.diagnosis.repro import FILES
from tests.cli.conftest import Ended
from tests.diagnosis.networks import network
from tests.diagnosis.test_blame import requantized


def saved_pair(folder: Path) -> tuple[Path, Path]:
    def change(weights: dict[str, np.ndarray], nodes: list[onnx.NodeProto]) -> None:
        weights["w2"][3] *= 1.01

    paths = folder / "a.onnx", folder / "b.onnx"
    for path, made in zip(paths, (network(), network(change)), strict=True):
        path.write_bytes(made.SerializeToString())
    return paths


def test_a_weight_that_is_wrong_is_located(here: Callable[..., Ended], tmp_path: Path) -> None:
    saved_pair(tmp_path)
    ended = here("parity", "a.onnx", "b.onnx", "--locate", "--in-process", "--json")
    assert ended.code == 1
    (found,) = ended.document["located"][:1]
    assert (found["runtime"], found["against"], found["value"]) == ("onnx-reference", "a.onnx", "conv2")
    assert (found["node"], found["op_type"]) == ("n_conv2", "Conv")
    assert found["looks_like"] == "1.01 times what it should be (only channel 3 of 8)"
    told = here("parity", "a.onnx", "b.onnx", "--locate", "--in-process").err
    assert "Where it parts" in told
    assert "first leaves a.onnx at 'conv2', made by Conv 'n_conv2'" in told
    assert "no value leaves the oracle" in told, "who runs it is not at fault"


def test_what_holds_parts_nowhere(here: Callable[..., Ended], tmp_path: Path) -> None:
    saved_pair(tmp_path)
    ended = here("parity", "a.onnx", "a.onnx", "--runtime", "onnxruntime", "--locate", "--in-process", "--json")
    assert ended.code == 0
    assert [found["value"] for found in ended.document["located"]] == [""]


def test_a_place_is_found_by_running(here: Callable[..., Ended], tmp_path: Path) -> None:
    saved_pair(tmp_path)
    ended = here("parity", "a.onnx", "b.onnx", "--locate", "--probes-only")
    assert ended.code == 2
    assert "a place is found by running the networks" in ended.err


def test_the_fault_and_a_small_model_of_it(here: Callable[..., Ended], tmp_path: Path) -> None:
    """ONNX Runtime 1.32 makes one step of two quantizations."""
    pytest.importorskip("onnxruntime")
    (tmp_path / "a.onnx").write_bytes(requantized().SerializeToString())
    ended = here(
        "parity", "a.onnx", "a.onnx", "-r", "onnxruntime", "--blame", "--in-process", "--report", "out", "--json"
    )
    assert ended.code == 1
    (found,), (fault,) = ended.document["located"], ended.document["blamed"]
    assert (found["value"], found["op_type"]) == ("d2", "DequantizeLinear")
    assert found["reason"].startswith("only while")
    assert fault["culprit"] == "DoubleQDQPairsRemover"
    assert fault["remedy"] == 'onnxruntime.InferenceSession(path, disabled_optimizers=["DoubleQDQPairsRemover"])'
    assert sorted(p.name for p in (tmp_path / "out" / "repro" / "onnxruntime").iterdir()) == sorted(FILES)
    told = here("parity", "a.onnx", "a.onnx", "-r", "onnxruntime", "--repro", "small", "--in-process").err
    assert "to see it by itself: python small/onnxruntime/repro.py" in told.replace("\\", "/")


def test_a_file_that_was_found_wrong_is_not_looked_into_again(
    here: Callable[..., Ended], saved: Callable[..., Path]
) -> None:
    saved("a.onnx")
    saved("b.onnx", epsilon=0.1)
    ended = here("parity", "a.onnx", "b.onnx", "--runtime", "onnxruntime", "--in-process", "--locate")
    assert "Next:  b.onnx is wrong, whoever runs it; see what each computes: gn-deploy inspect a.onnx ;" in ended.err
