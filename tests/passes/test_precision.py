"""A model in half precision: inputs and outputs kept, what half precision cannot hold kept in float32."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

import gn_deploy as gn
from gn_deploy.errors import InputError
from gn_deploy.passes.precision import convert

TEXT = """<ir_version: 10, opset_import: ["": 21]>
agraph (float[N,4,H,W] x, int64[N] t) => (float[N,8,H2,W2] y)
<float[1] freq = {0.37}, float[4] scales = {1, 1, 2, 2}, float mask = {-1e9},
 int64[1] one = {1}, int64[2] back = {2, 3}>
{ tf = Cast<to = 1>(t)
  arg = Mul(tf, freq)
  s = Sin(arg)
  s1 = Unsqueeze(s, one)
  e = Gemm(s1, wt)
  e4 = Unsqueeze(e, back)
  c = Conv<pads = [1,1,1,1]>(x, w)
  sum = Add(c, e4)
  n = GroupNormalization<num_groups = 2, epsilon = 0.00001>(sum, gamma, beta)
  sg = Sigmoid(n)
  a = Mul(n, sg)
  m = Max(a, mask)
  y = Resize<mode = "nearest">(m, , scales) }"""


@pytest.fixture
def model() -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    proto = onnx.parser.parse_model(TEXT)
    weights = {"wt": (1, 8), "w": (8, 4, 3, 3), "gamma": (8,), "beta": (8,)}
    for name, shape in weights.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name))
    return proto


def run(model: onnx.ModelProto) -> np.ndarray:  # type: ignore[type-arg]
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(1).normal(size=(2, 4, 6, 5)).astype(np.float32)
    (y,) = session.run(None, {"x": x, "t": np.array([3, 981])})
    return np.asarray(y)


@pytest.mark.parametrize("target", ["tensorrt:fp16", "ort-cpu:fp16", "onnx:fp16+primitives"])
def test_half_precision_keeps_the_answer_and_what_half_cannot_hold(model: onnx.ModelProto, target: str) -> None:
    lowered = gn.lower(model, target).model
    proto = ir.to_proto(lowered)
    onnx.checker.check_model(proto, full_check=True)
    assert {v.name: v.dtype for v in (*lowered.graph.inputs, *lowered.graph.outputs)} == {
        "x": ir.DataType.FLOAT,
        "t": ir.DataType.INT64,
        "y": ir.DataType.FLOAT,
    }
    types = {node.op_type: node.outputs[0].dtype for node in lowered.graph}
    assert types["Conv"] == types["Gemm"] == types["Sigmoid"] == ir.DataType.FLOAT16
    assert types["Sin"] == ir.DataType.FLOAT  # sin(0.37 * 981) has no digit left in float16
    assert types["Max"] == ir.DataType.FLOAT  # -1e9 overflows float16
    if "primitives" in target:
        assert types["ReduceMean"] == ir.DataType.FLOAT
    expected, actual = run(model), run(proto)
    # values of a few units through about ten float16 roundings of 2^-11
    np.testing.assert_allclose(actual, expected, atol=10 * 2**-11 * np.abs(expected).max())
    assert np.abs(actual - expected).max() > 0


def test_the_model_given_keeps_its_types(model: onnx.ModelProto) -> None:
    source = ir.from_proto(onnx.shape_inference.infer_shapes(model))
    before = ir.to_proto(source).SerializeToString()
    gn.lower(source, "tensorrt:fp16")
    assert ir.to_proto(source).SerializeToString() == before


def test_twice_is_once(model: onnx.ModelProto) -> None:
    once = gn.lower(model, "tensorrt:fp16").model
    twice = gn.lower(once, "tensorrt:fp16").model
    assert [n.op_type for n in twice.graph] == [n.op_type for n in once.graph]


def test_bf16_is_written_in_bf16(model: onnx.ModelProto) -> None:
    lowered = gn.lower(model, "tensorrt:bf16").model
    onnx.checker.check_model(ir.to_proto(lowered), full_check=True)
    (norm,) = [n for n in lowered.graph if n.op_type == "GroupNormalization"]
    assert {v.dtype for v in norm.inputs if v is not None} == {ir.DataType.BFLOAT16}
    assert norm.attributes.get_int("stash_type", 1) == ir.DataType.FLOAT


def test_control_flow_is_refused_with_the_reason() -> None:
    text = """<ir_version: 10, opset_import: ["": 21]> agraph (float[4] x, bool c) => (float[4] y)
    { y = If (c) < then_branch = a () => (float[4] p) { p = Relu(x) },
                   else_branch = b () => (float[4] q) { q = Neg(x) } > }"""
    with pytest.raises(InputError, match="control flow"):
        gn.lower(onnx.parser.parse_model(text), "onnx:fp16")


def test_a_weight_that_can_be_overridden_still_can_be() -> None:
    text = """<ir_version: 10, opset_import: ["": 21]> agraph
        (float[N,4] x, float[4] w) => (float[N,4] y) <float[4] w = {1,2,3,4}> { y = Mul(x, w) }"""
    model = ir.from_proto(onnx.parser.parse_model(text))
    convert(model, "fp16")
    feeds = {"x": np.ones((1, 4)), "w": np.full(4, 7.0)}
    proto = ir.to_proto(model)
    (y,) = onnx.reference.ReferenceEvaluator(proto).run(None, {k: v.astype(np.float32) for k, v in feeds.items()})
    np.testing.assert_array_equal(y, np.full((1, 4), 7.0))
