"""Small networks full of residuals, modulations, activations, casts and transposes keep their numbers in every form."""

import numpy as np
import onnx
import onnx_ir as ir
from hypothesis import given, settings
from hypothesis import strategies as st

import gn_deploy as gn
from gn_deploy.forms.base import GroupNormSite
from gn_deploy.passes.lower import Lowered, LowerGroupNorm
from gn_deploy.runtimes import RUNTIMES
from gn_deploy.runtimes.base import Array
from tests.passes.test_fuzz import CONSTANTS, C, norm

FORMS = ("contrib", "native", "instance_norm", "layer_norm", "primitives")
TAILS = (
    "",
    "{p}a = Relu({v})",
    "{p}g = Sigmoid({v}) {p}a = Mul({v}, {p}g)",
    "{p}g = Sigmoid({o}) {p}a = Mul({v}, {p}g)",
    "{p}g = HardSigmoid<alpha = 0.16666667>({v}) {p}a = Mul({p}g, {v})",
    "{p}h = Softplus({v}) {p}g = Tanh({p}h) {p}a = Mul({v}, {p}g)",
)
GAINS = ("Add({s}, one)", "Add(one, {s})", "Add({s}, two)", "Sub(one, {s})", "Neg({s})")
SHAPES = {f"N,{C},H,W": [(2, C, 3, 5), (3, C, 4, 2)], f"2,{C},4,4": [(2, C, 4, 4)], f"{C},{C},{C},{C}": [(C, C, C, C)]}
IN, OUT = "Transpose<perm = [0, 3, 1, 2]>", "Transpose<perm = [0, 2, 3, 1]>"


@st.composite
def networks(draw: st.DrawFn) -> tuple[str, list[tuple[int, ...]]]:
    """ONNX text: x and m (one number per sample and channel) in, several values of x's shape out."""
    opset = draw(st.sampled_from((17, 18, 21)))
    dims = draw(st.sampled_from(list(SHAPES)))
    batch = dims.split(",", 1)[0]
    nodes: list[str] = []
    live = ["x"]
    narrow = ["m"]
    for i in range(draw(st.integers(1, 4))):
        p = f"k{i}_"

        def pick(names: list[str]) -> str:
            return draw(st.sampled_from(names))

        x, kinds = pick(live), draw(st.lists(st.integers(0, 9), max_size=6))
        if 0 in kinds:
            nodes.append(f"{p}x = Add({x}, {pick([*live, *narrow, 'fixed', 'row'])})")
            x = f"{p}x"
            if draw(st.booleans()):
                live.append(x)
        if 1 in kinds:
            nodes.append(f"{p}w = {OUT}({x}) {p}y = {IN}({p}w)")
            x = f"{p}y"
        if 2 in kinds:
            nodes.append(f"{p}b = Cast<to = 10>({x}) {p}c = Cast<to = 1>({p}b)")
            x = f"{p}c"
        v = f"{p}n0"
        groups = draw(st.sampled_from([1, 2, 4]))
        if 3 in kinds:
            last = draw(st.booleans())
            skip = pick([*live, *narrow]) if draw(st.booleans()) else ""
            node = f"com.microsoft.{'Skip' if skip else ''}GroupNorm<groups = {groups}, "
            node += f"activation = {draw(st.integers(0, 1))}, channels_last = {int(last)}>"
            outputs = f"{{}}, {p}total" if skip and draw(st.booleans()) else "{}"
            if last:
                inputs = f"{p}l, v, o8" + f", {p}r" * bool(skip)
                nodes.append(f"{p}l = {OUT}({x})")
                nodes += [f"{p}r = {OUT}({skip})"] * bool(skip)
                nodes.append(f"{outputs.format(p + 'z')} = {node}({inputs}) {v} = {IN}({p}z)")
                if f"{p}total" in outputs:
                    nodes.append(f"{p}sum = {IN}({p}total)")
                    live.append(f"{p}sum")
            else:
                nodes.append(f"{outputs.format(v)} = {node}({x}, v, o8{', ' + skip if skip else ''})")
                live += [f"{p}total"] * (f"{p}total" in outputs)
        else:
            nodes.append(norm(draw(st.integers(0, 4)), groups, x, v, opset, f"t{i}_"))
        if 2 in kinds:
            nodes.append(f"{p}d = Cast<to = 10>({v}) {p}n1 = Cast<to = 1>({p}d)")
            v = f"{p}n1"
        if 4 in kinds:
            if draw(st.booleans()):
                nodes.append(f"{p}s = GlobalAveragePool({pick(live)})")
                narrow.append(f"{p}s")
            gain = draw(st.sampled_from(GAINS)).format(s=pick([*narrow, *live]))
            nodes.append(f"{p}k = {gain} {p}u = Mul({v}, {p}k)")
            v = f"{p}u"
        if 5 in kinds:
            nodes.append(f"{p}v = Add({pick([*narrow, *live, 'row', 'fixed'])}, {v})")
            v = f"{p}v"
        if 6 in kinds and draw(st.booleans()):
            live.append(v)
        tail = draw(st.sampled_from(TAILS))
        if tail:
            nodes.append(tail.format(p=p, v=v, o=pick(live)))
            v = f"{p}a"
        if 7 in kinds:
            nodes.append(f"{p}e = Add({v}, {pick(live)})")
            v = f"{p}e"
        live.append(v)
    outputs = dict.fromkeys([live[-1], *draw(st.lists(st.sampled_from(live[1:]), max_size=2))])
    results = ", ".join(f"float[{dims}] {o}" for o in outputs)
    constants = f"{CONSTANTS}, float one = {{1}}, float[{C}] o8 = {{0, 1, 0, 2, 0, 3, 0, 1}}, "
    constants += f"float[{C},1,1] row = {{1, 2, 1, 2, 1, 2, 1, 3}}, float[1] fixed = {{0.5}}"
    head = f'<ir_version: 10, opset_import: ["": {opset}, "com.microsoft": 1]>'
    text = f"{head} g (float[{dims}] x, float[{batch},{C},1,1] m) => ({results}) <{constants}> {{ {' '.join(nodes)} }}"
    return text, SHAPES[dims]


def results(model: ir.Model, shape: tuple[int, ...]) -> dict[str, Array]:
    rng = np.random.default_rng(0)
    feeds = {"x": rng.normal(1.0, 2.0, shape), "m": rng.normal(0.0, 1.0, (*shape[:2], 1, 1))}
    return RUNTIMES.require("onnx-reference").open(model, precision="float64").run(feeds)


def _sums(site: GroupNormSite) -> list[ir.Value]:
    return [inner.input for inner in site.layers]


def check(text: str, shapes: list[tuple[int, ...]], form: str, plain: bool) -> int:
    """Lowers as gn.lower does, or as a pass that proves nothing; how many sites had something around them."""
    proto = onnx.parser.parse_model(text)
    before = {shape: results(ir.from_proto(proto), shape) for shape in shapes}
    sites = gn.find(proto)
    claimed = [n for s in sites for n in set(s.nodes).difference(s.bare.nodes) if n.outputs[0] not in _sums(s)]
    assert len(claimed) == len(set(claimed))
    if plain:
        model = ir.from_proto(proto)
        result = LowerGroupNorm(f"onnx+{form}")(model)
        assert isinstance(result, Lowered)
        decisions = result.decisions
    else:
        model, decisions = gn.lower(proto, f"onnx+{form}")
        assert not any("not proved" in d.decision.reason for d in decisions), decisions
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    model = ir.from_proto(ir.to_proto(model))
    for shape, old in before.items():
        new = results(model, shape)
        assert list(new) == list(old)
        for name, value in old.items():
            # epsilon in float32, up to four norms deep with scales up to 8, which gates and modulations square
            np.testing.assert_allclose(new[name], value, rtol=1e-3, atol=1e-3 * max(1.0, float(np.abs(value).max())))
    again = LowerGroupNorm(f"onnx+{form}")(ir.from_proto(ir.to_proto(model)))
    assert not again.modified
    return sum(s.inner is not None for s in sites)


@settings(max_examples=60, deadline=None)
@given(made=networks(), form=st.sampled_from(FORMS), plain=st.booleans())
def test_networks_keep_their_numbers(made: tuple[str, list[tuple[int, ...]]], form: str, plain: bool) -> None:
    check(*made, form, plain)
