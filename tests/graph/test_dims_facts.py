"""Sizes and contents of shape tensors are proved, not guessed."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gn_deploy.graph.dims import Dim, parse, product, spelled
from gn_deploy.graph.facts import Facts

DIMS = st.builds(Dim, st.integers(1, 64), st.lists(st.sampled_from("abc"), max_size=3).map(lambda s: tuple(sorted(s))))


@given(DIMS, DIMS)
def test_division_undoes_multiplication(a: Dim, b: Dim) -> None:
    assert (a * b).divided_by(b) == a


@given(DIMS, DIMS, st.dictionaries(st.sampled_from("abc"), st.integers(1, 9), min_size=3))
def test_a_quotient_is_right_for_every_size(a: Dim, b: Dim, sizes: dict[str, int]) -> None:
    def value(d: Dim) -> int:
        return d.coefficient * int(np.prod([sizes[s] for s in d.symbols], dtype=int))

    quotient = a.divided_by(b)
    if quotient is not None:
        assert value(quotient) * value(b) == value(a)


def test_dims_read_what_torch_writes() -> None:
    assert parse("4*s0*s53") == Dim(4, ("s0", "s53"))
    assert parse("s0 + 1") == Dim(1, ("s0 + 1",))
    assert spelled([Dim(2), Dim(1, ("N",)), Dim(4, ("H", "W"))]) == "[2, N, 4*H*W]"
    assert product([]) == Dim(1)


def values(text: str) -> tuple[Facts, dict[str | None, ir.Value]]:
    model = ir.from_proto(onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 21]> agraph {text}'))
    found = {v.name: v for v in (*model.graph.inputs, *model.graph.initializers.values())}
    return Facts(21), found | {v.name: v for node in model.graph for v in node.outputs}


N, H, W = (Dim(1, (s,)) for s in "NHW")


@pytest.mark.parametrize(
    ("literal", "expected"),
    [
        ("0, 8, -1", (N, Dim(8), Dim(4, ("H", "W")))),
        ("0, 8, 4, -1, 1", (N, Dim(8), Dim(4), Dim(1, ("H", "W")), Dim(1))),
        ("-1, 8, 4", (Dim(1, ("H", "N", "W")), Dim(8), Dim(4))),
    ],
)
def test_reshape_by_a_constant(literal: str, expected: tuple[Dim, ...]) -> None:
    rank = literal.count(",") + 1
    facts, v = values(f"(float[N,32,H,W] x) => (float[a] y) <int64[{rank}] s = {{{literal}}}> {{ y = Reshape(x, s) }}")
    assert facts._derived_shape(v["y"]) == expected


def test_reshape_by_shape_arithmetic() -> None:
    facts, v = values(
        """(float[N,32,H,W] x) => (float[a,b,c,d] y)
        <int64[1] g = {8}, int64[1] minus = {-1}, int64 zero = {0}, int64[1] axis = {0}>
        { s = Shape(x)
          n = Gather(s, zero)
          n1 = Unsqueeze(n, axis)
          back = Shape<start = 1>(x)
          r = Concat<axis = 0>(n1, g, minus)
          v = Reshape(x, r)
          full = Concat<axis = 0>(n1, back)
          y = Reshape(v, full) }"""
    )
    assert facts.shape(v["v"]) == (N, Dim(8), Dim(4, ("H", "W")))
    assert facts.shape(v["y"]) == facts.shape(v["x"])


def test_slices_products_and_quotients_of_shapes() -> None:
    facts, v = values(
        """(float[N,32,H,W] x) => (int64[2] y)
        <int64[1] one = {1}, int64[1] two = {2}, int64[1] four = {4}, int64[1] g = {8}>
        { s = Shape(x)
          c = Slice(s, one, two)
          q = Div(c, g)
          hw = Slice(s, two, four)
          m = Mul(q, g)
          y = Concat<axis = 0>(q, m, hw) }"""
    )
    assert facts.contents(v["y"]) == (Dim(4), Dim(32), H, W)


def test_unknown_stays_unknown() -> None:
    facts, v = values("(float[N,32] x, int64[k] s) => (float[a] y) { y = Reshape(x, s) }")
    assert facts.contents(v["s"]) is None
    assert facts._derived_shape(v["y"]) is None
    assert facts.constant(v["x"]) is None


def test_constants_through_casts_and_reshapes() -> None:
    facts, v = values(
        """() => (double[2,1] y) <float[2] w = {1.5, 2.5}, int64[2] s = {2, 1}>
        { r = Reshape(w, s)
          y = Cast<to = 11>(r) }"""
    )
    found = facts.constant(v["y"])
    assert found is not None
    np.testing.assert_array_equal(found, np.array([[1.5], [2.5]]))
    assert found.dtype == np.float64


def test_equal_reductions_are_the_same_however_their_axes_are_spelled() -> None:
    facts, v = values(
        """(float[2,8,60] x) => (float[2,8,1] a, float[2,8,1] b, float[2,1,60] c)
        <int64[1] last = {-1}, int64[1] two = {2}, int64[1] one = {1}>
        { a = ReduceMean(x, last)
          b = ReduceMean(x, two)
          c = ReduceMean(x, one) }"""
    )
    assert facts.same(v["a"], v["b"])
    assert not facts.same(v["a"], v["c"])
