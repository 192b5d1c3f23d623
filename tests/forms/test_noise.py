"""What exporters and editors leave around a GroupNorm: lowered to every form, nobody else is disturbed."""

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gn_deploy.graph.shapes import infer_shapes
from gn_deploy.graph.splice import Names
from gn_deploy.passes.lower import LowerGroupNorm
from gn_deploy.runtimes import RUNTIMES
from gn_deploy.sites import find
from tests.forms.test_mutations import WRITTEN, models

Pick = Callable[[int], int]


def _swap(model: ir.Model, pick: Pick) -> None:
    for node in model.graph:
        if node.op_type in ("Mul", "Add") and pick(2):
            a, b = node.inputs
            node.replace_input_with(0, b)
            node.replace_input_with(1, a)


def _watch(model: ir.Model, pick: Pick) -> None:
    """Somebody else reads an intermediate, or it is an output of the graph."""
    values = [v for n in model.graph for v in n.outputs if not v.is_graph_output()]
    if not values:
        return
    value = values[pick(len(values))]
    if pick(2):
        model.graph.outputs.append(value)
        return
    node = ir.node("Identity" if value.dtype == ir.DataType.INT64 else "Neg", [value])
    node.name, node.outputs[0].name = "watcher", Names(model).fresh(f"{value.name} watched")
    node.outputs[0].dtype = value.dtype
    model.graph.append(node)
    model.graph.outputs.append(node.outputs[0])


def _default(model: ir.Model, pick: Pick) -> None:
    """A weight is also an input, so that it is only a default."""
    held = [v for v in model.graph.initializers.values() if not v.is_graph_input()]
    if held:
        model.graph.inputs.append(held[pick(len(held))])


def _constant_nodes(model: ir.Model, pick: Pick) -> None:
    for name, value in list(model.graph.initializers.items()):
        if pick(2) or value.is_graph_input() or value.is_graph_output():
            continue
        node = ir.Node("", "Constant", [], [ir.AttrTensor("value", value.const_value)], name=f"{name} node")  # type: ignore[arg-type]
        node.outputs[0].type, node.outputs[0].shape = value.type, value.shape
        value.replace_all_uses_with(node.outputs[0])
        del model.graph.initializers[name]
        node.outputs[0].name = name
        model.graph.insert_before(model.graph[0], node)


def _odd_names(model: ir.Model, pick: Pick) -> None:
    for i, node in enumerate(model.graph):
        node.name = ("", "a b", "/x/y", "äß.0", "node::1", None)[pick(6)]
        for value in node.outputs:
            if not value.is_graph_output():
                value.name = f"{('v ', '/', 'ü:', '%', 'gn/scale_')[pick(5)]}{i}"


def _used_elsewhere(model: ir.Model, pick: Pick) -> None:
    """A weight that another node, or nobody but the outside, reads too."""
    held = [v for v in model.graph.initializers.values() if not v.is_graph_output()]
    if not held:
        return
    value = held[pick(len(held))]
    node = ir.node("Identity", [value])
    node.name, node.outputs[0].name = "reads weight", Names(model).fresh(f"{value.name} again")
    node.outputs[0].dtype = value.dtype
    model.graph.append(node)
    model.graph.outputs.append(node.outputs[0])


def _twice(model: ir.Model, pick: Pick) -> None:
    """A second norm on the first one's output, or on its input, that shares its constants and maybe its reshapes."""
    x, y = model.graph.inputs[0], model.graph.outputs[0]
    names = Names(model)
    copies: dict[ir.Value, ir.Value] = {x: y if pick(2) else x}
    keep = ("Reshape", "ReduceMean", "Shape") if pick(2) else ()  # shared, where they lead to both
    for node in list(model.graph):
        if node.op_type in keep and copies[x] is x and not any(v in copies and v is not x for v in node.inputs):
            continue
        inputs = [copies.get(v, v) if v is not None else None for v in node.inputs]
        copy = ir.Node("", node.op_type, inputs, list(node.attributes.values()), name=names.fresh(f"{node.name} 2"))
        for old, new in zip(node.outputs, copy.outputs, strict=True):
            new.name, new.dtype, new.shape = names.fresh(f"{old.name} 2"), old.dtype, old.shape
            copies[old] = new
        model.graph.append(copy)
    model.graph.outputs.append(copies[y])


def _floating(model: ir.Model) -> list[tuple[ir.Node, int, ir.Value]]:
    """Edges on which a tensor of floating-point numbers goes from one node to another."""
    floating = (ir.DataType.FLOAT, ir.DataType.DOUBLE)
    return [(n, i, v) for n in model.graph for i, v in enumerate(n.inputs) if v is not None and v.dtype in floating]


def _put_between(model: ir.Model, pick: Pick, chain: list[tuple[str, dict[str, object]]]) -> None:
    """A chain of one-input nodes on one edge."""
    edges = _floating(model)
    if not edges:
        return
    node, index, value = edges[pick(len(edges))]
    rank = None if value.shape is None else value.shape.rank()
    if chain[0][0] == "Transpose" and rank is None:
        return
    names = Names(model)
    for number, (op, attributes) in enumerate(chain):
        dtype = value.dtype
        if op == "Transpose" and rank is not None:
            turn = 1 if number == 0 else -1
            attributes = {"perm": [(axis + turn) % rank for axis in range(rank)]}
        if op == "Cast":
            dtype = ir.DataType.DOUBLE if number == 0 else edges[0][2].dtype
            attributes = {"to": int(dtype or 0)}
        new = ir.node(op, [value], attributes=attributes)  # type: ignore[arg-type]
        new.name, new.outputs[0].name, new.outputs[0].dtype = names.fresh(op), names.fresh(f"{op} output"), dtype
        model.graph.insert_before(node, new)
        value = new.outputs[0]
    node.replace_input_with(index, value)


def _identity(model: ir.Model, pick: Pick) -> None:
    _put_between(model, pick, [("Identity", {})])


def _no_ops(model: ir.Model, pick: Pick) -> None:
    """Nodes that change nothing: Dropout, Casts to a wider type and back, Transposes there and back."""
    _put_between(model, pick, [[("Dropout", {})], [("Cast", {})] * 2, [("Transpose", {})] * 2][pick(3)])


def _cast_like(model: ir.Model, pick: Pick) -> None:
    """A parameter converted to the type of x, as converters write constants."""
    held = [v for v in model.graph.initializers.values() if v.dtype == model.graph.inputs[0].dtype and v.uses()]
    if not held or (model.opset_imports.get("") or 0) < 15:
        return
    value = held[pick(len(held))]
    node = ir.node("CastLike", [value, model.graph.inputs[0]])
    node.name, node.outputs[0].name = Names(model).fresh("CastLike"), Names(model).fresh(f"{value.name} alike")
    node.outputs[0].dtype, node.outputs[0].shape = value.dtype, value.shape
    value.replace_all_uses_with(node.outputs[0], replace_graph_outputs=False)
    node.replace_input_with(0, value)
    model.graph.insert_before(model.graph[0], node)


NOISE = (_swap, _watch, _watch, _default, _constant_nodes, _odd_names, _used_elsewhere, _twice)
NOISE = (*NOISE, _identity, _no_ops, _cast_like)


def results(model: ir.Model, x: np.ndarray) -> dict[str, np.ndarray]:
    return RUNTIMES.require("onnx-reference").open(model, precision="float64").run({"x": x})


def is_valid(model: ir.Model) -> bool:
    try:
        onnx.checker.check_model(ir.to_proto(model), full_check=True)
    except Exception:  # GroupNormalization-18 is deprecated; an output may have no shape
        return False
    return True


def check(model: ir.Model, shapes: list[tuple[int, ...]], form: str) -> None:
    inputs = [(v.name, v.dtype, v.shape) for v in model.graph.inputs]
    outputs = [(v.name, v.dtype, v.shape) for v in model.graph.outputs]
    xs = [np.random.default_rng(0).normal(1.0, 2.0, shape) for shape in shapes]
    before = [results(model, x) for x in xs]
    sites = find(model).sites
    # a bias per group known only at run time is not read back from the Expand that makes it one per channel
    repeated = any(p is not None and p.per_group and p.array is None for s in sites for p in (s.scale, s.bias))
    count = 0 if repeated else len(sites)
    valid = is_valid(model)
    result = LowerGroupNorm(f"onnx+{form}")(model)
    assert [(v.name, v.dtype, v.shape) for v in model.graph.inputs] == inputs
    assert [(v.name, v.dtype, v.shape) for v in model.graph.outputs] == outputs
    if valid:
        onnx.checker.check_model(ir.to_proto(model), full_check=True)
    for x, old in zip(xs, before, strict=True):
        new = results(model, x)
        for name, value in old.items():
            np.testing.assert_allclose(new[name], value, rtol=1e-5, atol=1e-5)  # epsilon in float32, parameters folded
    written = [d for d in result.decisions if d.wrote]  # type: ignore[attr-defined]
    assert len(find(model).sites) >= count
    if written:
        again = LowerGroupNorm(f"onnx+{form}")(model)
        assert not again.modified


@settings(max_examples=100, deadline=None)
@given(made=models(), form=st.sampled_from(WRITTEN), noise=st.lists(st.sampled_from(NOISE), max_size=4), data=st.data())
def test_noise_changes_nothing(made, form, noise, data):  # type: ignore[no-untyped-def]
    model, shapes = made
    for add in noise:
        add(model, lambda n: data.draw(st.integers(0, n - 1)))
    infer_shapes(model)
    check(model, shapes, form)


@settings(max_examples=60, deadline=None)
@given(made=models(), noise=st.lists(st.sampled_from([_identity, _cast_like]), min_size=1, max_size=2), data=st.data())
def test_copies_and_conversions_hide_nothing(made, noise, data):  # type: ignore[no-untyped-def]
    model, _ = made
    before = find(model).sites
    assume(all(site.form != "contrib" for site in before))  # its own nodes around it are told by what they are
    for add in noise:
        add(model, lambda n: data.draw(st.integers(0, n - 1)))
    infer_shapes(model)
    after = find(model).sites
    assert [site.spec for site in after] == [site.spec for site in before]
    for old, new in zip(before, after, strict=True):
        for one, other in ((old.scale, new.scale), (old.bias, new.bias)):
            assert (one is None) == (other is None)
            assert one is None or other is None or np.array_equal(one.array, other.array)  # type: ignore[arg-type]
