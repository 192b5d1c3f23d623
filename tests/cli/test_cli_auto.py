"""--target tensorrt+auto and +plugin: what is chosen, why, and that the file still runs where there is no plugin."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper, parser

from tests.cli.conftest import Ended

NETWORK = """<ir_version: 10, opset_import: ["": 21]>
 g (float[N,8,6,6] x, float[N,8,6,6] r) => (float[N,8,6,6] y, float[N,8,6,6] e, int8[N,8,6,6] q) {
  [plain] a = GroupNormalization<num_groups = 2>(x, w, b)  s = Sigmoid(a)  h = Mul(a, s)
  e = Add(h, r)
  [skip] c = GroupNormalization<num_groups = 2>(e, w, b)  y = Gelu(c)
  [whole] d = GroupNormalization<num_groups = 1>(y, w, b)
  q = QuantizeLinear(d, k, z) }"""


def network(folder: Path) -> Path:
    proto = parser.parse_model(NETWORK)
    held = {"w": np.linspace(0.5, 1.5, 8), "b": np.linspace(-1, 1, 8), "k": np.asarray(0.05)}
    for name, array in held.items():
        proto.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), name))
    proto.graph.initializer.append(numpy_helper.from_array(np.zeros((), np.int8), "z"))
    path = folder / "net.onnx"
    onnx.save(proto, path)
    return path


def test_each_choice_is_explained(here: Callable[..., Ended], tmp_path: Path) -> None:
    network(tmp_path)
    told = here("inspect", "net.onnx", "--target", "tensorrt+auto")
    assert told.code == 0
    assert "already written as native (TensorRT's own op is one kernel or two" in " ".join(told.err.split())
    assert "plugin: a sum before the statistics makes 4 kernels; gelu is a kernel more" in " ".join(told.err.split())
    sites = here("inspect", "net.onnx", "--target", "tensorrt+auto", "--json").document["sites"]
    assert [site["decision"]["form"] for site in sites] == [None, "plugin", "plugin"]
    assert "NVIDIA/TensorRT#4756" in sites[2]["decision"]["reason"]
    assert "tensorrt+auto" in here("lower", "-h").out
    refused = here("inspect", "net.onnx", "--target", "openvino+auto")
    assert (refused.code, "only TensorRT has a plugin to choose" in refused.err) == (2, True)


def test_the_lowered_file_runs_without_the_plugin(here: Callable[..., Ended], tmp_path: Path) -> None:
    network(tmp_path)
    for target, kept, ops in (
        ("tensorrt+auto", 1, ["GroupNormalization", "Sigmoid", "Mul", "SkipGroupNorm", "GroupNormQuantize"]),
        ("tensorrt+plugin", 0, ["GroupNorm", "SkipGroupNorm", "GroupNormQuantize"]),
    ):
        lowered = here("lower", "net.onnx", "--target", target, "-o", "out.onnx", "--json")
        assert lowered.document["summary"] == {"sites": 3, "rewritten": 3 - kept, "kept": kept}
        written = onnx.load(tmp_path / "out.onnx")
        onnx.checker.check_model(written, full_check=True)
        assert [node.op_type for node in written.graph.node] == ops
        again = here("lower", "out.onnx", "--target", target, "-o", "again.onnx", "--json").document
        assert again["summary"]["rewritten"] == 0
        assert [n.op_type for n in onnx.load(tmp_path / "again.onnx").graph.node] == ops
    ended = here("parity", "net.onnx", "out.onnx", "--runtime", "onnx-reference", "--runtime", "onnxruntime", "--json")
    assert ended.code == 0, ended.err
    assert {site["status"] for site in ended.document["sites"]} == {"pass"}
