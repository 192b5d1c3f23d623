"""Small networks of norms, residuals, activations, branches and functions keep their numbers in every form."""

import numpy as np
import onnx
import onnx_ir as ir
from hypothesis import given, settings
from hypothesis import strategies as st

import gn_deploy as gn
from gn_deploy.passes.lower import LowerGroupNorm
from gn_deploy.runtimes import RUNTIMES

C, OPSETS = 8, (13, 17, 18, 21)
CONSTANTS = f"""int64[3] s2 = {{0, 2, -1}},
 int64[3] s4 = {{0, 4, -1}}, int64[3] s1 = {{0, 1, -1}}, int64[1] last = {{2}},
 float[1] o1 = {{1}}, float[1] z1 = {{0}}, float[2] o2 = {{1, 1}}, float[2] z2 = {{0, 0}},
 float[4] o4 = {{1, 2, 1, 3}}, float[4] z4 = {{0, 1, 0, 2}}, float[{C},1,1] w = {{1, 2, 3, 4, 5, 6, 7, 8}},
 float[1,{C},1,1] b = {{8, 7, 6, 5, 4, 3, 2, 1}}, float[{C}] v = {{1, 3, 2, 4, 1, 2, 1, 5}},
 float eps = {{0.001}}, float two = {{2}}"""


def norm(kind: int, groups: int, x: str, y: str, opset: int, p: str) -> str:
    """Nodes that write ``y``, a GroupNorm of ``x``, in one of the spellings; ``p`` keeps the names apart."""
    back = f"{p}f = Shape({x}) {p}r = Reshape({p}n, {p}f) {p}m = Mul({p}r, w) {y} = Add(b, {p}m)"
    view = f"{p}v = Reshape({x}, s{groups})"
    if kind == 0 and opset >= 21:
        return f"{y} = GroupNormalization<num_groups = {groups}, epsilon = 0.01>({x}, v, v)"
    if kind == 1:
        return f"{view} {p}n = InstanceNormalization<epsilon = 0.0001>({p}v, o{groups}, z{groups}) {back}"
    if kind == 2 and opset >= 17:
        return f"{view} {p}n = LayerNormalization<axis = -1>({p}v, o1, z1) {back}"
    mean = "ReduceMean({}, last)" if opset >= 18 else "ReduceMean<axes = [2]>({})"
    square = f"{p}q = Pow({p}c, two)" if kind % 2 else f"{p}q = Mul({p}c, {p}c)"
    return (
        f"{view} {p}u = {mean.format(p + 'v')} {p}c = Sub({p}v, {p}u) {square} {p}a = {mean.format(p + 'q')} "
        f"{p}e = Add({p}a, eps) {p}d = Sqrt({p}e) {p}n = Div({p}c, {p}d) {back}"
    )


@st.composite
def networks(draw: st.DrawFn) -> str:
    opset = draw(st.sampled_from(OPSETS))
    dims = draw(st.sampled_from([f"N,{C},H,W", f"2,{C},3,5", f"N,{C},4,4", f"4,{C},2,4"]))
    nodes: list[str] = []
    live = ["x"]
    functions: list[str] = []
    outputs: list[str] = []

    def one(x: str, y: str, p: str) -> str:
        return norm(draw(st.integers(0, 4)), draw(st.sampled_from([1, 2, 4])), x, y, opset, p)

    for i in range(draw(st.integers(1, 4))):
        x, y, p = draw(st.sampled_from(live)), f"y{i}", f"t{i}_"
        kind = draw(st.integers(0, 6))
        if kind <= 2:
            nodes.append(one(x, y, p))
        elif kind == 3:
            nodes.append(f"{one(x, p + 'g', p)} {p}s = Sigmoid({p}g) {y} = Mul({p}s, {p}g)")
        elif kind == 4:
            nodes.append(f"{one(x, p + 'g', p)} {p}s = Relu({p}g) {y} = Add({p}s, {draw(st.sampled_from(live))})")
        elif kind == 5:
            nodes.append(
                f"{y} = If (cond) <then_branch = a{i} () => (float[{dims}] {p}o) {{ {one(x, p + 'o', p)} }},"
                f" else_branch = b{i} () => (float[{dims}] {p}k) {{ {one(x, p + 'h', p + 'E')} {p}k = Neg({p}h) }}>"
            )
        else:
            shape = "{2,8,3,5}" if dims.startswith("2,") else "{-1,8,4,4}"
            body = norm(draw(st.integers(0, 4)), draw(st.sampled_from([1, 2])), "i", "o", opset, "p")
            constants = (
                "s2 = Constant<value = int64[3] {0,2,-1}>() s1 = Constant<value = int64[3] {0,1,-1}>() "
                "last = Constant<value = int64[1] {2}>() o1 = Constant<value = float[1] {1}>() "
                "z1 = Constant<value = float[1] {0}>() o2 = Constant<value = float[2] {1,1}>() "
                "z2 = Constant<value = float[2] {0,0}>() eps = Constant<value = float {0.001}>() "
                f"two = Constant<value = float {{2}}>() k = Constant<value = int64[4] {shape}>()"
            )
            nodes.append(f"{y} = my.norm{i}({x}, w, b, v)")
            entry = "i = Reshape(i0, k)" if dims.startswith(("2,", "N,8,4")) else "i = Identity(i0)"
            functions.append(
                f'<domain: "my", opset_import: ["": {opset}]> norm{i} (i0, w, b, v) => (o)'
                f" {{ {constants} {entry} {body} }}"
            )
        live.append(y)
        if draw(st.booleans()):
            outputs.append(y)
    if live[-1] not in outputs:
        outputs.append(live[-1])
    results = ", ".join(f"float[{dims}] {o}" for o in outputs)
    imports = f'"": {opset}, "my": 1'
    graph = f"agraph (float[{dims}] x, bool cond) => ({results}) <{CONSTANTS}> {{ {' '.join(nodes)} }}"
    return "\n".join([f"<ir_version: 10, opset_import: [{imports}]>", graph, *functions])


def results(model: ir.Model, cond: bool, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    x = np.random.default_rng(0).normal(1.0, 2.0, shape)
    return RUNTIMES.require("onnx-reference").open(model, precision="float64").run({"x": x, "cond": np.asarray(cond)})


def check(text: str, form: str, plain: bool) -> int:
    """Lowers as gn.lower does, or (``plain``) as a pass on the model as it came; how many sites were written."""
    proto = onnx.parser.parse_model(text)
    declared = [d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim]
    shapes = [tuple(d or n for d, n in zip(declared, sizes, strict=True)) for sizes in ((2, C, 3, 5), (3, C, 4, 2))]
    before = {(c, s): results(ir.from_proto(proto), c, s) for c in (False, True) for s in dict.fromkeys(shapes)}
    if plain:
        model = ir.from_proto(proto)
        decisions = LowerGroupNorm(f"onnx+{form}")(model).decisions  # type: ignore[attr-defined]
    else:
        model, decisions = gn.lower(proto, f"onnx+{form}")
        assert not any("not proved" in d.decision.reason for d in decisions), decisions
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    for (cond, shape), old in before.items():
        new = results(model, cond, shape)
        assert list(new) == list(old)
        for name in old:
            # epsilon in float32, up to four norms deep with scales up to 8
            np.testing.assert_allclose(new[name], old[name], rtol=1e-4, atol=1e-4)
    again = LowerGroupNorm(f"onnx+{form}")(ir.from_proto(ir.to_proto(model)))
    assert not again.modified
    return sum(d.wrote is not None for d in decisions)


@settings(max_examples=40, deadline=None)
@given(
    text=networks(),
    form=st.sampled_from(["native", "instance_norm", "layer_norm", "primitives", "statistics_affine"]),
    plain=st.booleans(),
)
def test_networks_keep_their_numbers(text: str, form: str, plain: bool) -> None:
    check(text, form, plain)
