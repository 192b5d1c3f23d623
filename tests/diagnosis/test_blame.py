"""The setting at fault is found, and the small model that is written really goes wrong, by itself and elsewhere."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from gn_deploy import api
from gn_deploy.diagnosis.blame import _least, blame
from gn_deploy.diagnosis.closely import closely
from gn_deploy.diagnosis.deployed import Deployed, deployed
from gn_deploy.diagnosis.locate import locate_run
from gn_deploy.diagnosis.minimal import smallest
from gn_deploy.graph.normalize import normalize
from gn_deploy.parity.cases import Case
from gn_deploy.parity.report import ParityReport
from tests.cli.conftest import model as one_norm
from tests.diagnosis.networks import Fusing, model, network, normal

NOTHING = ParityReport("a", "b", (), ())


@given(st.sets(st.integers(0, 60), min_size=1, max_size=4), st.integers(61, 90))
def test_the_least_set_of_rules_is_found_among_many(culprits: set[int], count: int) -> None:
    rules = [str(i) for i in range(count)]
    wanted = {str(i) for i in culprits}
    asked = []

    def enough(chosen: Sequence[str]) -> bool:
        asked.append(chosen)
        return wanted <= set(chosen)

    assert set(_least(rules, enough)) == wanted
    if len(wanted) == 1:
        assert len(asked) <= 2 * 7, "by halves"


def test_a_fused_pair_is_blamed_on_its_rule_and_cut_down() -> None:
    what = model()
    one = Deployed("it", "onnxruntime", Fusing().open)
    found = locate_run(what, one.opened, normal(what), runtime="it")
    small = smallest(found, one.opened)
    assert small is not None
    assert [n.op_type for n in small[0].nodes] == ["Pad", "MaxPool"]
    (fed,) = small[0].feeds.values()
    assert fed.shape[0] == 1
    assert fed.size < 8 * 16 * 16 / 4, "smaller than in the network"
    told, options = blame(small[0], one.open_with, label="it", runtime="onnxruntime")
    assert (told.culprit, told.kind) == ("Pad_Fusion", "optimizer rule")
    assert options["disabled_optimizers"] == ("Pad_Fusion",)
    assert told.remedy == 'onnxruntime.InferenceSession(path, disabled_optimizers=["Pad_Fusion"])'
    assert told.with_it > 1000 > 1 >= told.without_it
    assert "every optimization off" in told.tried


def requantized() -> onnx.ModelProto:
    """Quantized, and at once quantized again in another scale; ONNX Runtime makes one step of the two."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv", pads=[1] * 4),
        helper.make_node("QuantizeLinear", ["c", "s1", "z"], ["q1"], name="q1"),
        helper.make_node("DequantizeLinear", ["q1", "s1", "z"], ["d1"], name="dq1"),
        helper.make_node("QuantizeLinear", ["d1", "s2", "z"], ["q2"], name="q2"),
        helper.make_node("DequantizeLinear", ["q2", "s2", "z"], ["d2"], name="dq2"),
        helper.make_node("Softplus", ["d2"], ["y"], name="softplus"),
    ]
    weights = {
        "w": rng.standard_normal((4, 3, 3, 3)).astype(np.float32),
        "s1": np.float32(0.05),
        "s2": np.float32(0.03),
        "z": np.uint8(128),
    }
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4, 8, 8])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def script(folder: Path, *names: str) -> subprocess.CompletedProcess[str]:
    path = folder.joinpath(*names, "repro.py")
    return subprocess.run([sys.executable, path], capture_output=True, text=True, check=False, cwd="/", timeout=60)


def test_onnx_runtimes_own_rule_is_blamed_and_the_script_shows_it(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    what = normalize(ir.from_proto(requantized()))
    (one,) = deployed(["onnxruntime"])
    found = locate_run(what, one.opened, normal(what), runtime="onnxruntime")
    assert found.divergence.value == "d2"
    divergence, told = closely(found, one, NOTHING, at_fault=True, folder=tmp_path, tell=lambda _: None)
    assert told is not None
    assert (told.culprit, told.kind) == ("DoubleQDQPairsRemover", "optimizer rule")
    assert [Path(f).name for f in divergence.files] == [
        "model.onnx",
        "inputs.npz",
        "expected.npz",
        "repro.py",
        "README.md",
    ]
    ended = script(tmp_path, "onnxruntime")
    assert ended.returncode == 1, ended.stderr
    assert "as it is: at (" in ended.stdout
    assert "without DoubleQDQPairsRemover: at (" in ended.stdout
    onnx.checker.check_model(onnx.load(tmp_path / "onnxruntime" / "model.onnx"), full_check=True)
    readme = (tmp_path / "onnxruntime" / "README.md").read_text()
    assert "python repro.py" in readme
    assert "Without `DoubleQDQPairsRemover` (optimizer rule) it is right" in readme


def test_what_no_setting_changes_is_the_kernel() -> None:
    """ONNX Runtime has no kernel for GroupNormalization and expands it into one pass over the data."""
    pytest.importorskip("onnxruntime")
    what = normalize(ir.from_proto(one_norm()))
    x = (1000 + np.random.default_rng(0).standard_normal((2, 4, 4, 4))).astype(np.float32)
    (one,) = deployed(["onnxruntime"])
    found = locate_run(what, one.opened, [Case("far", {"x": x}, "user", True)], runtime="onnxruntime")
    assert found.divergence.op_type == "GroupNormalization"
    _, told = closely(found, one, NOTHING, at_fault=True, folder=None, tell=lambda _: None)
    assert told is not None
    assert told.culprit == ""
    assert "it is how onnxruntime computes GroupNormalization" in told.reason
    assert "every optimization off" in told.tried


def test_a_weight_is_no_settings_fault_and_shows_in_any_runtime(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")

    def change(weights: dict[str, Any], nodes: list[onnx.NodeProto]) -> None:
        weights["w2"][3] *= 1.01

    report = api.compare(
        network(), network(change), runtimes=["onnxruntime"], blame=True, repro=tmp_path, isolate=False
    )
    assert [d.value for d in report.located] == ["conv2", ""]
    assert [(b.culprit, b.reason) for b in report.blamed] == [("", "no setting: it is what is written in the model")]
    assert report.located[0].files
    ended = script(tmp_path, "model")
    assert ended.returncode == 1, ended.stderr
    assert onnx.load(tmp_path / "model" / "model.onnx").graph.node[0].op_type == "Conv"
