"""Regions cut out compute what they computed in place; taps show inner values and change nothing else."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from gn_deploy.errors import InputError
from gn_deploy.graph.cut import cut, tap

TEXT = """<ir_version: 10, opset_import: ["": 21]>
agraph (float[2,3] x, bool c) => (float[2,3] y) <float[3] w = {1, 2, 3}>
{ a = Mul(x, w)
  b = Relu(a)
  d = If (c) <
    then_branch = g1 () => (float[2,3] t) { t = Add(b, a) },
    else_branch = g2 () => (float[2,3] e) { e = Sub(b, w) }
  >
  y = Sigmoid(d) }"""


@pytest.fixture
def model() -> ir.Model:
    return ir.from_proto(onnx.shape_inference.infer_shapes(onnx.parser.parse_model(TEXT)))


def run(model: ir.Model, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:  # type: ignore[type-arg]
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)  # type: ignore[no-any-return]


def test_a_cut_brings_what_subgraphs_read_from_outside(model: ir.Model) -> None:
    part = cut(model, ["b"], ["d"])
    assert [v.name for v in part.graph.inputs] == ["b", "c", "x"]  # the branches read a, and so x
    x = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)
    b = np.maximum(x * np.array([1, 2, 3], np.float32), 0)
    for c, expected in ((True, b + x * [1, 2, 3]), (False, b - [1, 2, 3])):
        (d,) = run(part, {"b": b, "c": np.array(c), "x": x})
        np.testing.assert_allclose(d, expected, rtol=1e-6)  # one addition in float32


def test_a_cut_shares_the_weights_and_leaves_the_model_alone(model: ir.Model) -> None:
    before = ir.to_proto(model).SerializeToString()
    part = cut(model, ["x"], ["a"])
    assert part.graph.initializers["w"].const_value is model.graph.initializers["w"].const_value
    assert [n.op_type for n in part.graph] == ["Mul"]
    assert ir.to_proto(model).SerializeToString() == before


def test_taps_come_after_the_outputs_and_change_none(model: ir.Model) -> None:
    tapped = tap(model, ["b", "y"])
    assert [v.name for v in tapped.graph.outputs] == ["y", "b"]
    assert [v.name for v in model.graph.outputs] == ["y"]
    x = np.array([[1, -2, 3], [-4, 5, -6]], np.float32)
    y, b = run(tapped, {"x": x, "c": np.array(True)})
    np.testing.assert_array_equal(y, run(model, {"x": x, "c": np.array(True)})[0])
    np.testing.assert_array_equal(b, np.maximum(x * np.array([1, 2, 3], np.float32), 0))


def test_unknown_names_are_told(model: ir.Model) -> None:
    with pytest.raises(InputError, match="no value named nowhere"):
        tap(model, ["nowhere"])
