"""Where each thing around a normalization ends: what is not provably part of it stays outside and keeps its numbers."""

import re

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import gn_deploy as gn
from gn_deploy.forms.base import GroupNormSite
from gn_deploy.runtimes import RUNTIMES
from gn_deploy.runtimes.base import Array

CONSTANTS = {
    "w": np.arange(8.0).reshape(8)[::-1] / 4 + 1,
    "b": np.arange(8.0) - 2,
    "one": np.asarray(1.0),
    "two": np.asarray(2.0),
    "ones": np.ones((2, 8, 1, 1)),
    "almost": np.stack([np.ones(8), np.full(8, 1.5)]).reshape(2, 8, 1, 1),
    "map": np.linspace(0, 1, 2 * 8 * 4 * 4).reshape(2, 8, 4, 4),
    "row": np.linspace(0, 1, 8).reshape(8, 1, 1),
    "kernel": np.linspace(-1, 1, 64).reshape(8, 8, 1, 1),
}
INPUTS = {
    "x": (2, 8, 4, 4),
    "r": (2, 8, 4, 4),
    "n": (2, 8, 1, 1),
    "s": (2, 8, 1, 1),
    "t": (2, 8, 1, 1),
    "one_sample": (1, 8, 1, 1),
    "position": (1, 1, 4, 4),
    "full": (2, 8, 4, 4),
    "per_width": (2, 8, 1, 4),
    "channel": (8, 1, 1),
    "sample": (2, 1, 1, 1),
    "last": (2, 4, 4, 8),
}
FIRST, LAST = "2,8,4,4", "2,4,4,8"
NORM = "GroupNormalization<num_groups = 2>"


def model(body: str, outputs: str = "y", element: str = "float", inputs: str = "x") -> ir.Model:
    """``body`` in ONNX's text; every name in ``inputs`` is one, of the shape above."""
    arguments = ", ".join(f"{element}[{','.join(map(str, INPUTS[name]))}] {name}" for name in inputs.split())
    results = ", ".join(f"{element}[{LAST if name.startswith('last') else FIRST}] {name}" for name in outputs.split())
    head = '<ir_version: 10, opset_import: ["": 21, "com.microsoft": 1, "gn_deploy": 1]>'
    proto = onnx.parser.parse_model(f"{head} g ({arguments}) => ({results}) {{ {body} }}")
    dtype = {"float": np.float32, "float16": np.float16}[element]
    for name, array in CONSTANTS.items():
        if re.search(rf"[(,] ?{name}\b", body):
            proto.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(dtype), name))
    onnx.checker.check_model(proto)
    return ir.from_proto(proto)


def results(model: ir.Model) -> dict[str, Array]:
    rng = np.random.default_rng(0)
    feeds = {str(v.name): rng.normal(0.5, 2.0, v.shape.numpy()) for v in model.graph.inputs if v.shape is not None}
    return RUNTIMES.require("onnx-reference").open(model, precision="float64").run(feeds)


def only(model: ir.Model) -> GroupNormSite:
    (site,) = gn.find(model)
    return site


def keeps(model: ir.Model, *forms: str) -> None:
    """Lowered to each of ``forms`` every output is the same, every rewrite proved, and nothing is left to do."""
    before = results(model)
    for form in forms or ("contrib", "instance_norm"):
        lowered, decisions = gn.lower(model, f"onnx+{form}")
        assert not [d.decision.reason for d in decisions if "not proved" in d.decision.reason]
        onnx.checker.check_model(ir.to_proto(lowered))
        ir.from_proto(onnx.ModelProto.FromString(ir.to_proto(lowered).SerializeToString()))
        for name, value in results(lowered).items():
            np.testing.assert_allclose(value, before[name], rtol=1e-5, atol=1e-5)
        again = gn.lower(lowered, f"onnx+{form}")
        assert not [d for d in again.decisions if d.wrote]


MODULATION = {
    "s itself": (f"z = {NORM}(x, w, b) y = Mul(z, s)", "x s"),
    "s + 2": (f"z = {NORM}(x, w, b) g = Add(s, two) y = Mul(z, g)", "x s"),
    "1 - s": (f"z = {NORM}(x, w, b) g = Sub(one, s) y = Mul(z, g)", "x s"),
    "s + 1, not the same for all": (f"z = {NORM}(x, w, b) g = Add(s, almost) y = Mul(z, g)", "x s"),
    "s per position": (f"z = {NORM}(x, w, b) g = Add(position, one) y = Mul(z, g)", "x position"),
    "s as large as x": (f"z = {NORM}(x, w, b) g = Add(full, one) y = Mul(z, g)", "x full"),
    "s along width": (f"z = {NORM}(x, w, b) g = Add(per_width, one) y = Mul(z, g)", "x per_width"),
    "s per channel": (f"z = {NORM}(x, w, b) g = Add(channel, one) y = Mul(z, g)", "x channel"),
    "s per sample": (f"z = {NORM}(x, w, b) g = Add(sample, one) y = Mul(z, g)", "x sample"),
    "t as large as x": (f"z = {NORM}(x, w, b) y = Add(z, full)", "x full"),
    "t constant": (f"z = {NORM}(x, w, b) y = Add(z, map)", "x"),
    "t per sample": (f"z = {NORM}(x, w, b) y = Add(z, sample)", "x sample"),
    "t before s": (f"z = {NORM}(x, w, b) u = Add(z, full) g = Add(s, one) y = Mul(u, g)", "x full s"),
    "t after an activation": (f"z = {NORM}(x, w, b) r = Relu(z) y = Add(r, t)", "x t"),
    "by itself": (f"z = {NORM}(x, w, b) y = Add(z, z)", "x"),
}


@pytest.mark.parametrize("case", MODULATION)
def test_no_modulation(case: str) -> None:
    found = model(MODULATION[case][0], inputs=MODULATION[case][1])
    assert not only(found).spec.scale_shift
    keeps(found)


@pytest.mark.parametrize(
    ("body", "inputs", "told"),
    [
        (f"z = {NORM}(x, w, b) g = Add(s, one) u = Mul(z, g) y = Add(t, u)", "x s t", {"scale": "s", "shift": "t"}),
        (f"z = {NORM}(x, w, b) g = Add(one, s) y = Mul(g, z)", "x s", {"scale": "s"}),
        (f"z = {NORM}(x, w, b) g = Add(s, ones) y = Mul(g, z)", "x s", {"scale": "s"}),
        (f"z = {NORM}(x, w, b) y = Add(t, z)", "x t", {"shift": "t"}),
        (f"z = {NORM}(x, w, b) g = Add(one_sample, one) y = Mul(z, g)", "x one_sample", {"scale": "one_sample"}),
        (f"z = {NORM}(x, w, b) g = Add(s, one) u = Mul(z, g) y = Add(u, map)", "x s", {"scale": "s"}),
        (f"z = {NORM}(x, w, b) u = Add(z, t) g = Add(s, one) y = Mul(u, g)", "x t s", {"shift": "t"}),
    ],
)
def test_modulation(body: str, inputs: str, told: dict[str, str]) -> None:
    found = model(body, inputs=inputs)
    site = only(found)
    assert {name.removeprefix("modulation_"): v.name for name, v in site.operands.items()} == told
    keeps(found)


def test_one_plus_s_that_others_read_stays() -> None:
    found = model(f"g = Add(s, one) z = {NORM}(x, w, b) y = Mul(z, g) v = Mul(r, g)", "y v", inputs="x r s")
    site = only(found)
    assert site.spec.scale_shift
    assert "g" not in {n.outputs[0].name for n in site.nodes}
    keeps(found)


def test_a_value_read_before_the_modulation_ends_the_site() -> None:
    found = model(f"g = Add(s, one) z = {NORM}(x, w, b) y = Mul(z, g) v = Neg(z)", "y v", inputs="x s")
    assert not only(found).spec.scale_shift
    keeps(found)


RESIDUAL = {
    "a constant": (f"a = Add(x, map) y = {NORM}(a, w, b)", "x"),
    "a constant and nothing": (f"a = Add(map, map) y = {NORM}(a, w, b)", ""),
    "a bias of a convolution": (f"a = Add(x, row) y = {NORM}(a, w, b)", "x"),
    "per channel at run time": (f"a = Add(x, channel) y = {NORM}(a, w, b)", "x channel"),
    "per position": (f"a = Add(x, position) y = {NORM}(a, w, b)", "x position"),
    "per sample": (f"a = Add(x, sample) y = {NORM}(a, w, b)", "x sample"),
    "of one sample": (f"a = Add(x, one_sample) y = {NORM}(a, w, b)", "x one_sample"),
    "x itself": (f"a = Add(x, x) y = {NORM}(a, w, b)", "x"),
    "both smaller": (f"a = Add(n, position) y = {NORM}(a, w, b)", "n position"),
    "a difference": (f"a = Sub(x, r) y = {NORM}(a, w, b)", "x r"),
}


@pytest.mark.parametrize("case", RESIDUAL)
def test_no_residual(case: str) -> None:
    found = model(RESIDUAL[case][0], inputs=RESIDUAL[case][1] or "x")
    assert not only(found).spec.residual
    keeps(found)


UNTOLD = "x n", ("n", None)


@pytest.mark.parametrize(
    ("body", "outputs", "inputs", "told"),
    [
        (f"a = Add(x, r) y = {NORM}(a, w, b)", "y", "x r", ("r", None)),
        (f"a = Add(x, n) y = {NORM}(a, w, b)", "y", "x n", ("n", None)),
        (f"a = Add(n, x) y = {NORM}(a, w, b)", "y", "x n", ("n", None)),
        (f"a = Add(x, r) y = {NORM}(a, w, b)", "y a", "x r", ("r", "a")),
        (f"a = Add(x, r) v = Conv(a, kernel) y = {NORM}(a, w, b)", "y v", "x r", ("r", "a")),
        (f"a = Add(x, r) y = {NORM}(a, w, b) v = Conv(a, kernel)", "y v", "x r", ("r", "a")),
        (f"a = Add(x, r) z = {NORM}(a, w, b) g = Sigmoid(z) u = Mul(z, g) y = Add(u, a)", "y", "x r", ("r", "a")),
        # the modulation is computed from the sum: one node could not give both
        (f"a = Add(x, n) p = GlobalAveragePool(a) z = {NORM}(a, w, b) g = Add(p, one) y = Mul(z, g)", "y", *UNTOLD),
    ],
)
def test_residual(body: str, outputs: str, inputs: str, told: tuple[str, str | None]) -> None:
    found = model(body, outputs, inputs=inputs)
    site = only(found)
    assert site.operands["residual"].name == told[0]
    assert (site.sum.name if site.sum is not None else None) == told[1]
    keeps(found)
    names = [v.name for v in found.graph.outputs]
    lowered = gn.lower(found, "onnx+contrib").model
    assert [v.name for v in lowered.graph.outputs] == names
    if not site.spec.scale_shift:
        (node,) = (n for n in lowered.graph if n.domain)
        assert (node.op_type, len(node.outputs)) == ("SkipGroupNorm", 1 + (told[1] is not None))
        if told[1] is not None:
            assert told[1] in {v.name for n in lowered.graph for v in n.outputs}


@pytest.mark.parametrize("outputs", ["", " a"])
@pytest.mark.parametrize("tails", [("", ""), ("", "", ""), ("Gelu", "", ""), ("", "Gelu", ""), ("", "", "Gelu")])
def test_one_sum_of_several_normalizations(tails: tuple[str, ...], outputs: str) -> None:
    norms = [f"z{i} = {NORM}(a, w, b) y{i} = {tail or 'Identity'}(z{i})" for i, tail in enumerate(tails)]
    names = " ".join(f"y{i}" for i in range(len(tails)))
    found = model(f"a = Add(x, r) {' '.join(norms)}", names + outputs, inputs="x r")
    assert [s.spec.residual for s in gn.find(found)] == [True] * len(tails)
    keeps(found)
    nodes = [n for n in gn.lower(found, "onnx+contrib").model.graph if n.domain]
    assert sum(len(n.outputs) == 2 for n in nodes) == 1  # one gives it for all


def test_no_node_belongs_to_two_sites() -> None:
    """The Add is the shift of the first, and would be the residual of the second."""
    found = model(f"z = {NORM}(x, w, b) a = Add(z, n) y = {NORM}(a, w, b)", inputs="x n")
    first, second = gn.find(found)
    assert first.spec.scale_shift
    assert not second.spec.residual
    keeps(found)


def branch(taken: str, other: str, kind: str = "float") -> str:
    """An If on c, whose branches end with p and q."""
    sizes = f"{kind}[{FIRST}]"
    return f"If(c) <then_branch = a1 () => ({sizes} p) {{ {taken} }}, else_branch = a2 () => ({sizes} q) {{ {other} }}>"


def test_a_sum_inside_and_outside_of_a_branch() -> None:
    condition = "m = ReduceMax<keepdims = 0>(x) c = Greater(m, one)"
    inside = branch(f"p = {NORM}(a, w, b)", "q = Neg(a)")
    found = model(f"a = Add(x, r) {condition} y = {inside} v = Conv(a, kernel)", "y v", inputs="x r")
    site = only(found)
    assert site.spec.residual
    assert site.sum is None
    keeps(found)


def half(body: str, outputs: str = "y") -> ir.Model:
    """float16 x to ``outputs``; wf, bf are float32."""
    results = ", ".join(outputs.split(";"))
    head = '<ir_version: 10, opset_import: ["": 21, "com.microsoft": 1]>'
    weights = "<float[8] wf = {1,2,3,4,5,6,7,8}, float[8] bf = {1,0,1,0,2,0,3,0}>"
    proto = onnx.parser.parse_model(f"{head} g (float16[2,8,4,4] x) => ({results}) {weights} {{ {body} }}")
    onnx.checker.check_model(proto, full_check=True)
    return ir.from_proto(proto)


F16, F32 = "float16[2,8,4,4] y", ";float[2,8,4,4] {}"


@pytest.mark.parametrize(
    ("body", "outputs", "wide"),
    [
        (f"c = Cast<to = 1>(x) z = {NORM}(c, wf, bf) y = Cast<to = 10>(z)", F16, True),
        (f"c = Cast<to = 1>(x) z = {NORM}(c, wf, bf) y = Cast<to = 16>(z)", "bfloat16[2,8,4,4] y", False),
        (f"c = Cast<to = 1>(x) z = {NORM}(c, wf, bf) y = Cast<to = 11>(z)", "double[2,8,4,4] y", False),
        (f"c = Cast<to = 1>(x) z = {NORM}(c, wf, bf) y = Cast<to = 6>(z)", "int32[2,8,4,4] y", False),
        (f"c = Cast<to = 1>(x) z = {NORM}(c, wf, bf) y = Cast<to = 10>(z) v = Neg(z)", F16 + F32.format("v"), False),
        (f"c = Cast<to = 1>(x) z = {NORM}(c, wf, bf) y = Cast<to = 10>(z)", F16 + F32.format("z"), False),
        (f"c = Cast<to = 1>(x) z = {NORM}(c, wf, bf) y = Cast<to = 10>(z) v = Neg(c)", F16 + F32.format("v"), True),
        (f"c = Cast<to = 1>(x) z = {NORM}(c, wf, bf) r = Relu(z) y = Cast<to = 10>(r)", F16, False),
        (f"i = Cast<to = 6>(x) c = Cast<to = 1>(i) z = {NORM}(c, wf, bf) y = Cast<to = 10>(z)", F16, False),
    ],
)
def test_casts(body: str, outputs: str, wide: bool) -> None:
    found = half(body, outputs)
    site = only(found)
    assert site.spec.wide_affine == wide
    assert site.spec.dtype == ("float16" if wide else "float32")
    keeps(found)


def test_a_cast_inside_a_branch_is_not_the_sites() -> None:
    condition = "m = ReduceMax<keepdims = 0>(x) c = Cast<to = 9>(m)"
    inside = branch("p = Cast<to = 10>(z)", "q = Neg(x)", "float16")
    found = half(f"k = Cast<to = 1>(x) z = {NORM}(k, wf, bf) {condition} y = {inside}", F16)
    assert not only(found).spec.wide_affine
    keeps(found)


IN, OUT = "a = Transpose<perm = [0,3,1,2]>(last)", "last_y = Transpose<perm = [0,2,3,1]>"
OTHER = "Transpose<perm = [0,3,2,1]>"


@pytest.mark.parametrize(
    ("body", "outputs", "inputs", "axis"),
    [
        (f"{IN} z = {NORM}(a, w, b) {OUT}(z)", "last_y", "last", -1),
        (f"{IN} y = {NORM}(a, w, b)", "y", "last", 1),
        (f"a = {OTHER}(last) z = {NORM}(a, w, b) last_y = {OTHER}(z)", "last_y", "last", 1),
        (f"{IN} z = {NORM}(a, w, b) last_y = {OTHER}(z)", "last_y", "last", 1),
        (
            f"p = Identity(last) {IN.replace('last', 'p')} q = Identity(a) z = {NORM}(q, w, b) "
            f"r = Identity(z) {OUT}(r)",
            "last_y",
            "last",
            -1,
        ),
        (f"a = Transpose<perm = [0,1,3,2]>(x) z = {NORM}(a, w, b) y = Transpose<perm = [0,1,3,2]>(z)", "y", "x", 1),
        (f"{IN} z = {NORM}(a, w, b) {OUT}(z) y = Neg(z)", "last_y y", "last", 1),
        (f"{IN} z = {NORM}(a, w, b) r = Relu(z) {OUT}(r)", "last_y", "last", -1),
    ],
)
def test_transposes(body: str, outputs: str, inputs: str, axis: int) -> None:
    found = model(body, outputs, inputs=inputs)
    assert only(found).spec.channel_axis == axis
    keeps(found)
