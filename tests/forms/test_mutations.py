"""What find says of a graph is what the graph computes, whatever one change made of it; lowering it changes nothing."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import numpy as np
import onnx_ir as ir
from hypothesis import given, note, settings
from hypothesis import strategies as st

from gn_deploy.errors import GnDeployError
from gn_deploy.forms import FORMS
from gn_deploy.forms.base import GroupNormSite, Parameter
from gn_deploy.graph.cut import tap
from gn_deploy.passes.lower import LowerGroupNorm
from gn_deploy.reference import group_norm
from gn_deploy.runtimes import RUNTIMES
from gn_deploy.sites import find
from gn_deploy.spec import GroupNormSpec
from tests.forms.writing import affine, write

Pick = Callable[[int], int]
"""A number below its argument."""
Values = dict[str, np.ndarray]
WRITTEN = ("native", "instance_norm", "layer_norm", "primitives", "statistics_affine")
OTHER_OP = {
    "Mul": ("Add", "Div", "Sub"),
    "Add": ("Mul", "Sub", "Max"),
    "Sub": ("Add", "Mul", "Div"),
    "Div": ("Mul", "Sub", "Add"),
    "Sqrt": ("Identity", "Reciprocal", "Exp"),
    "ReduceMean": ("ReduceSum", "ReduceMax", "ReduceL2"),
}


def run(model: ir.Model, x: np.ndarray) -> Values | None:
    """Every output in float64; None when the graph cannot run on this x."""
    try:
        return RUNTIMES.require("onnx-reference").open(model, precision="float64").run({"x": x})
    except GnDeployError:
        return None


def assert_told_truly(site: GroupNormSite, values: Values) -> None:
    """The oracle with the site's spec and parameters, on what the graph gave it, is what the graph made of it."""

    def array(held: Parameter | None) -> np.ndarray | None:
        if held is None or held.array is not None:
            return None if held is None else np.asarray(held.array, dtype=np.float64)
        assert held.value is not None
        value = values[str(held.value.name)].reshape(-1)
        return np.repeat(value, site.spec.channels_per_group) if held.per_group else value

    scale, bias = array(site.scale), array(site.bias)
    x, y = values[str(site.input.name)], values[str(site.output.name)]
    if x.size != y.size:  # onnx.reference broadcasts a scale that ONNX does not allow
        return
    wanted = group_norm(x, replace(site.spec, residual=False), scale, bias)
    # epsilon is stored in float32: 2^-25 of it matters at most half; folded parameters round to 2^-24
    np.testing.assert_allclose(y, wanted, rtol=1e-6, atol=1e-6 * max(1.0, float(np.abs(wanted).max(initial=0))))


def judge(model: ir.Model, shapes: list[tuple[int, ...]], form: str) -> int:
    """Asserts that what is found is true and that lowering changes no output; how many sites there were."""
    sites = find(model).sites
    names = {str(v.name) for s in sites for v in (s.input, s.output) if not v.is_graph_input()}
    params = [p.value for s in sites for p in (s.scale, s.bias) if p is not None and p.array is None]
    names |= {str(v.name) for v in params if v is not None and not v.is_graph_input()}
    known = {str(v.name): v.const_value.numpy() for v in model.graph.initializers.values() if v.const_value is not None}
    seen: list[tuple[np.ndarray, Values]] = []
    for shape in shapes:
        x = np.random.default_rng(1).normal(1.0, 2.0, shape)
        values = run(tap(model, sorted(names - known.keys())), x)
        if values is None or any(np.isnan(v).any() for v in values.values()):
            continue
        seen.append((x, values))
        for site in sites:
            assert_told_truly(site, known | values | {"x": x})
    outputs = [str(v.name) for v in model.graph.outputs]
    LowerGroupNorm(f"onnx+{form}")(model)
    assert [str(v.name) for v in model.graph.outputs] == outputs
    for x, before in seen:
        after = run(model, x)
        assert after is not None
        for name in outputs:
            np.testing.assert_allclose(after[name], before[name], rtol=1e-5, atol=1e-5)
    return len(sites)


def mutate(model: ir.Model, pick: Pick) -> str:
    """One change somewhere in the graph, most likely a meaningful one; says which."""
    nodes = list(model.graph)
    y = model.graph.outputs[0]
    y.shape = None  # what the file declares is believed, so it must not lie
    kind = (_number, _operands, _operator, _rewire, _insert, _floats, _attribute)[pick(7)]
    return kind(model, nodes, pick)


def _number(model: ir.Model, nodes: list[ir.Node], pick: Pick) -> str:
    """An integer in a shape or in axes, or their order."""
    held = [v for v in model.graph.initializers.values() if v.dtype == ir.DataType.INT64]
    if not held:
        return "nothing"
    value = held[pick(len(held))]
    assert value.const_value is not None
    array = value.const_value.numpy().copy()
    i = pick(array.size)
    if array.size > 1 and pick(2):
        j = pick(array.size)
        array[[i, j]] = array[[j, i]]
    else:
        array[i] = (1, 2, 3, 4, 8, -1, 0, array[i] * 2, array[i] // 2, -2)[pick(10)]
    value.const_value = ir.tensor(array, name=value.name)
    return f"{value.name} = {array}"


def _operands(model: ir.Model, nodes: list[ir.Node], pick: Pick) -> str:
    binary = [n for n in nodes if n.op_type in ("Sub", "Div", "Mul", "Add")]
    if not binary:
        return "nothing"
    node = binary[pick(len(binary))]
    a, b = node.inputs
    node.replace_input_with(0, b)
    node.replace_input_with(1, a)
    return f"operands of {node.op_type} swapped"


def _operator(model: ir.Model, nodes: list[ir.Node], pick: Pick) -> str:
    known = [n for n in nodes if n.op_type in OTHER_OP]
    if not known:
        return "nothing"
    node = known[pick(len(known))]
    was, node.op_type = node.op_type, OTHER_OP[node.op_type][pick(3)]
    return f"{was} became {node.op_type}"


def _rewire(model: ir.Model, nodes: list[ir.Node], pick: Pick) -> str:
    """An input reads something else that stands before it."""
    i = pick(len(nodes))
    node = nodes[i]
    earlier = [*model.graph.inputs, *model.graph.initializers.values(), *(v for n in nodes[:i] for v in n.outputs)]
    j = pick(len(node.inputs))
    old = node.inputs[j]
    alike = [v for v in earlier if old is not None and v.dtype == old.dtype]
    if not alike:
        return "nothing"
    new = alike[pick(len(alike))]
    node.replace_input_with(j, new)
    return f"{node.op_type} reads {new.name}"


def _insert(model: ir.Model, nodes: list[ir.Node], pick: Pick) -> str:
    """One more operation on one edge, or on a value and all its readers."""
    i = pick(len(nodes))
    node = nodes[i]
    j = pick(len(node.inputs))
    value = node.inputs[j]
    if value is None or value.dtype not in (ir.DataType.FLOAT, ir.DataType.DOUBLE):
        return "nothing"
    op = ("Relu", "Neg", "Transpose", "Identity", "Mul", "Add", "Reshape", "Cast", "Unsqueeze", "Flatten")[pick(10)]
    inputs: list[ir.Value | None] = [value]
    attributes: dict[str, object] = {}
    constant = None
    if op in ("Mul", "Add"):
        constant = ir.tensor(np.asarray([1.25, 0.5][pick(2)], value.dtype.numpy()))
    elif op == "Reshape":
        sizes = [(0, 4, 2, -1), (0, 2, -1), (-1, 8), (0, 8, -1), (0, -1, 4, 4), (2, -1), (4, 2, -1), (0, 4, 4, -1)]
        constant = ir.tensor(np.asarray(sizes[pick(8)], np.int64))
    elif op == "Unsqueeze":
        constant = ir.tensor(np.asarray([pick(3)], np.int64))
    elif op == "Transpose":
        rank = 2 + pick(4)
        attributes["perm"] = sorted(range(rank), key=lambda _: pick(100))
    elif op == "Cast":
        attributes["to"] = int((ir.DataType.FLOAT16, ir.DataType.INT32)[pick(2)])
    if constant is not None:
        held = ir.Value(name="k", shape=ir.Shape(constant.shape), type=ir.TensorType(constant.dtype))
        held.const_value = constant
        model.graph.register_initializer(held)
        inputs.append(held)
    new = ir.node(op, inputs, attributes=attributes)  # type: ignore[arg-type]
    new.name, new.outputs[0].name = "inserted", "inserted_output"
    model.graph.insert_before(node, new)
    result = new.outputs[0]
    if op == "Cast":
        back = ir.node("Cast", [result], attributes={"to": int(value.dtype)})
        back.name, back.outputs[0].name = "back", "back_output"
        model.graph.insert_before(node, back)
        result = back.outputs[0]
    node.replace_input_with(j, result)
    return f"{op} {attributes} between {value.name} and {node.op_type}"


def _floats(model: ir.Model, nodes: list[ir.Node], pick: Pick) -> str:
    """Parameters rolled, scaled or laid out otherwise."""
    held = [v for v in model.graph.initializers.values() if v.dtype not in (None, ir.DataType.INT64)]
    if not held:
        return "nothing"
    value = held[pick(len(held))]
    assert value.const_value is not None
    array = value.const_value.numpy()
    changed = (
        np.roll(array, 1),
        array * 10,
        array.reshape(array.shape[::-1]),
        array.reshape((1, *array.shape)),
        array.reshape((*array.shape, 1)),
        array.reshape(-1),
        array + np.arange(array.size, dtype=array.dtype).reshape(array.shape),
    )[pick(7)].astype(array.dtype)
    value.const_value = ir.tensor(changed, dtype=value.dtype, name=value.name)
    value.shape = ir.Shape(changed.shape)
    return f"{value.name} became {changed.shape}"


def _attribute(model: ir.Model, nodes: list[ir.Node], pick: Pick) -> str:
    held = [(n, name) for n in nodes for name in n.attributes]
    if not held:
        return "nothing"
    node, name = held[pick(len(held))]
    old = node.attributes[name]
    if old.type == ir.AttributeType.FLOAT:
        node.attributes[name] = ir.AttrFloat32(name, old.as_float() * 10)
    elif old.type == ir.AttributeType.INT and name != "to":
        node.attributes[name] = ir.AttrInt64(name, (0, 1, 2, 4, 8, -1)[pick(6)] if name != "stash_type" else 11)
    elif old.type == ir.AttributeType.INTS:
        numbers = list(old.as_ints())
        numbers[pick(len(numbers))] = (0, 1, 2, 3, -1, -2)[pick(6)]
        node.attributes[name] = ir.AttrInt64s(name, numbers)
    return f"{node.op_type}.{name}"


@st.composite
def models(draw: st.DrawFn) -> tuple[ir.Model, list[tuple[int, ...]]]:
    """A GroupNorm in some form; few different sizes, so that wrong readings have the chance to look right."""
    rank = draw(st.integers(2, 5))
    groups = draw(st.sampled_from([1, 2, 4]))
    spec = GroupNormSpec(
        groups,
        draw(st.sampled_from([4, 8])),
        rank=rank,
        dtype=draw(st.sampled_from(["float32", "float64"])),
        channel_axis=draw(st.sampled_from([1, 1, -1])) if rank > 2 else 1,
    )
    spec = replace(spec, stash_dtype=spec.dtype if spec.dtype == "float64" else "float32")
    opset = draw(st.sampled_from([13, 17, 18, 21]))
    forms = [f for f in FORMS.names() if FORMS.require(f).legal(spec, opset)]
    form = draw(st.sampled_from(forms))
    shapes = []
    names = []
    for sizes in ((draw(st.sampled_from([2, 4])), *draw(st.permutations([4, 4, 2]))), (3, 5, 2, 3)):
        inner = list(sizes[1 : rank - 1])
        at = 1 if spec.channel_axis == 1 else rank - 1
        whole: list[int] = [sizes[0], *inner]
        whole.insert(at, spec.num_channels)
        shapes.append(tuple(whole))
        names = ["N", *"HWD"[: rank - 2]]
        names.insert(at, "C")
    dynamic = draw(st.booleans())
    declared = [spec.num_channels if n == "C" else n for n in names] if dynamic else shapes[0]
    scale, bias = affine(spec, draw(st.sampled_from(["none", "scale", "bias", "both"])))
    return write(form, spec, scale, bias, declared, opset), shapes if dynamic else shapes[:1]


@settings(max_examples=300, deadline=None)
@given(made=models(), form=st.sampled_from(WRITTEN), data=st.data())
def test_one_change_is_seen_or_described(made, form, data):  # type: ignore[no-untyped-def]
    model, shapes = made
    note(mutate(model, lambda n: data.draw(st.integers(0, n - 1))))
    with suppress(GnDeployError):  # a GroupNormalization that ONNX does not allow
        judge(model, shapes, form)
