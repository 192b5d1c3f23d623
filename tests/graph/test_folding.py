"""Constants are folded as ONNX computes them; shapes and their contents are right at every size."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from gn_deploy.graph.facts import Facts

HELD = """float[2,3] a = {1,2,3,4,5,6}, float[3] b = {0.5,-2,4}, float one = {1}, int64[2] i = {2,0},
  int64[3] k = {7,-7,9},
  int64[3] m = {2,2,-4}, int64[2] r = {2,1}, int64[3] e = {2,2,3}, int64 from = {3}, int64 to = {11}, int64 step = {2},
  int64[1] lo = {-1}, int64[1] hi = {-9223372036854775807}, int64[1] ax = {1}, int64[1] back = {-1}, bool[3] t = {1,0,1}
"""
CONSTANTS = [
    "y = Mul(a, b)",
    "y = Add(a, b)",
    "y = Sub(b, a)",
    "y = Div(a, b)",
    "y = Div(k, m)",
    "y = Mod(k, m)",
    "y = Neg(b)",
    "y = Abs(b)",
    "y = Sqrt(a)",
    "y = Reciprocal(b)",
    "y = Where(t, b, a)",
    "p = Equal(k, k) y = Where(p, b, a)",
    "y = Max(a, b, one)",
    "y = Min(a, b)",
    "y = Concat<axis = -1>(a, a)",
    "y = Gather<axis = 1>(a, i)",
    "y = Slice(a, lo, hi, ax, back)",
    "y = Transpose(a)",
    "y = Transpose<perm = [1, 0]>(a)",
    "y = Tile(a, r)",
    "y = Expand(a, e)",
    "y = ConstantOfShape(e)",
    "y = ConstantOfShape<value = float[1] {2.5}>(r)",
    "y = Range(from, to, step)",
    "y = Cast<to = 10>(b)",
    "y = CastLike(k, a)",
    "p, y = Split<axis = 1, num_outputs = 2>(a)",
    "s = Shape<start = 1>(a) y = ConstantOfShape(s)",
    "s = Size(a) y = Range(from, s, step)",
    "n = Unsqueeze(b, ax) y = Squeeze(n)",
]


def model(text: str, opset: int = 21) -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": {opset}]> agraph {text}')


def last(proto: onnx.ModelProto) -> tuple[Facts, ir.Value]:
    made = ir.from_proto(proto)
    made.graph.outputs[0].shape = made.graph.outputs[0].type = None  # what it declares here is not meant
    return Facts(proto.opset_import[0].version, made.graph.inputs), made.graph.outputs[0]


@pytest.mark.parametrize("text", CONSTANTS)
def test_a_constant_is_folded_as_onnx_computes_it(text: str) -> None:
    proto = model(f"() => (float[q] y) <{HELD}> {{ {text} }}")
    facts, y = last(proto)
    (wanted,) = ReferenceEvaluator(proto).run(None, {})
    folded = facts.constant(y)
    assert folded is not None
    assert (folded.dtype, folded.shape) == (wanted.dtype, wanted.shape)
    np.testing.assert_array_equal(folded, wanted)
    assert [d.known for d in facts.shape(y) or ()] == list(wanted.shape)


@pytest.mark.parametrize(
    "text",
    [
        "y = Gather(a, k)",
        "y = Reshape(a, k)",
        "y = Add(a, e)",
        "z = Sub(k, k) y = Div(k, z)",
        "y = Range(from, to, zero)",
        "y = ConstantOfShape(huge)",
        "y = Expand(one, huge)",
        "y = Tile(a, e)",
    ],
)
def test_nonsense_and_the_huge_have_no_value(text: str) -> None:
    proto = model(f"() => (float[n] y) <{HELD}, int64[2] huge = {{1000000, 1000000}}, int64 zero = {{0}}> {{ {text} }}")
    facts, y = last(proto)
    assert facts.constant(y) is None


SHAPES = """int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2}, int64[1] four = {4}, int64[1] minus = {-1},
  int64[2] many = {1,2}, int64[3] groups = {0,4,-1}, int64[1] last = {9223372036854775807}, int64[2] first = {0,1},
  int64 scalar = {1}, int64[1] low = {-9223372036854775808}"""
ARITHMETIC = [
    "s = Shape(x) y = Slice(s, last, low, zero, minus)",  # reversed
    "s = Shape(x) n = Size(s) y = Shape<start = -2, end = -1>(x)",
    "s = Shape(x) c = Slice(s, one, two) d = Div(c, four) m = Mul(d, four) y = Sub(m, zero)",
    "s = Shape(x) p = Slice(s, two, last) y = ReduceProd<keepdims = 1>(p)",
    "y = Size(x)",
    "s = Shape(x) h = Slice(s, two, last) d = Add(h, h) y = Sub(d, h)",
    "s = Shape(x) k = Shape(s) o = ConstantOfShape<value = int64[1] {1}>(k) n = Mul(o, minus) q = Equal(s, n)"
    " y = Where(q, o, s)",  # as torch exports expand
    "s = Shape(x) b = CastLike(s, s) y = Gather(b, first)",
    "r = Reshape(x, groups) y = Shape(r)",
    "t = Transpose(x) y = Shape(t)",
    "p, q = Split<axis = 1, num_outputs = 2>(x) y = Shape(q)",
    "p = Slice(x, one, last, one) y = Shape(p)",
    "u = Tile(x, four4) y = Shape(u)",
    "g = Gather<axis = 1>(x, many) y = Shape(g)",
    "g = Gather<axis = 1>(x, scalar) y = Shape(g)",
    "e = Expand(eight, s4) y = Shape(e)",
    "s = Shape(x) f = Cast<to = 1>(s) d = Div(f, onef) c = Floor(d) y = Cast<to = 7>(c)",
]


@pytest.mark.parametrize("text", ARITHMETIC)
@pytest.mark.parametrize("opset", [18, 21])
def test_the_contents_of_a_shape_are_right_at_every_size(text: str, opset: int) -> None:
    held = f"{SHAPES}, int64[4] four4 = {{1,2,1,1}}, float[8,1,1] eight = {{1,2,3,4,5,6,7,8}}, float onef = {{1}}"
    text = text.replace("e = Expand(eight, s4)", "s4 = Shape(x) e = Expand(eight, s4)")
    proto = model(f"(float[N,8,H,W] x) => (int64[r] y) <{held}> {{ {text} }}", opset)
    facts, y = last(proto)
    contents = facts.contents(y)
    assert contents is not None
    for n, h, w in ((2, 3, 5), (1, 4, 4), (3, 1, 7)):
        sizes = {"N": n, "H": h, "W": w}
        (wanted,) = ReferenceEvaluator(proto).run(None, {"x": np.zeros((n, 8, h, w), np.float32)})
        told = [d.coefficient * int(np.prod([sizes[s] for s in d.symbols], dtype=int)) for d in contents]
        assert told == list(wanted.reshape(-1))


def test_slices_by_attributes_as_before_opset_10() -> None:
    proto = model("(float[N,8,H,W] x) => (int64[2] y) { s = Shape(x) y = Slice<starts = [2], ends = [4]>(s) }", 9)
    facts, y = last(proto)
    assert [str(d) for d in facts.contents(y) or ()] == ["H", "W"]


def test_a_number_repeated_to_a_size_known_at_run_time_is_known() -> None:
    text = """(float[N,8,H,W] x) => (float[n] y) <float[1] tenth = {0.1}, int64[1] last = {-1}>
        { one = Cast<to = 10>(tenth) s = Shape<start = 0, end = 1>(x)
          e = Expand(one, s) c = Cast<to = 1>(e) y = Unsqueeze(c, last) }"""
    facts, y = last(model(text))
    assert facts.constant(y) is None
    assert facts.uniform(y) == float(np.float16(0.1))


def test_a_condition_on_a_size_is_not_guessed() -> None:
    text = """(float[N,8,H,W] x) => (int64[4] y) <int64[4] k = {1,1,1,1}>
        { s = Shape(x) q = Equal(s, k) y = Where(q, k, s) }"""
    facts, y = last(model(text))
    contents = facts.contents(y)
    assert contents is None or [str(d) for d in contents] == ["N", "8", "H", "W"]  # 1 or N is N either way
    text = text.replace("Where(q, k, s)", "Where(q, s, k)")
    facts, y = last(model(text))
    assert facts.contents(y) is None
