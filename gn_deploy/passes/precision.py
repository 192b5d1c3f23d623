"""Writes a whole model in another floating-point type, inputs and outputs kept: engines are strongly typed."""

from collections.abc import Iterable

import numpy as np
import onnx.defs
import onnx_ir as ir

from gn_deploy.errors import InputError
from gn_deploy.forms.base import DTYPES
from gn_deploy.graph.facts import Facts
from gn_deploy.graph.splice import Names
from gn_deploy.graph.subgraphs import subgraphs
from gn_deploy.sites import find, opset_of
from gn_deploy.targets import DTYPES as SUFFIXES

_WIDE = ir.DataType.FLOAT
_FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16})
_WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum"})
_ALWAYS_WIDE = frozenset({"Range", "CumSum", "RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike"})


def convert(model: ir.Model, suffix: str) -> str:
    """Changes the model in place to ``fp16``, ``bf16`` or ``fp32``; returns one line about what was done.

    1. Inputs and outputs of the model keep their types; Casts stand between.
    2. A node stays in float32 when ONNX does not give it the type, when a constant it reads would overflow or vanish,
       when it computes from integers before the first weights (time steps, positions), and when it is part of a
       GroupNorm in primitives, whose squares overflow half precision.
    3. A model that computes in that type already is left as it is: its islands of float32 are there on purpose.
    """
    goal = DTYPES[SUFFIXES[suffix]]
    graph = model.graph
    for node in graph:
        if subgraphs(node):
            raise InputError(
                f"{node.op_type} '{node.name}' has a body: a model with control flow cannot be written in {suffix} yet",
                "export it in that type, or leave the suffix away",
            )
    facts = Facts(opset_of(model))
    for node in graph:
        for value in node.outputs:
            if value.dtype is None and (known := facts.dtype(value)) is not None:
                value.dtype = known
    if goal != _WIDE and any(value.dtype == goal for node in graph for value in node.outputs):
        return f"the model computes in {SUFFIXES[suffix]} already"
    wide = _kept_wide(model, goal)
    writer = _Writer(model, goal)
    for node in list(graph):
        writer.node(node, keep=node in wide)
    writer.outputs()
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[name]
    kept = f", {len(wide)} of {len(graph)} nodes kept in float32" if wide and goal != _WIDE else ""
    return f"written in {SUFFIXES[suffix]}{kept}"


def _kept_wide(model: ir.Model, goal: ir.DataType) -> set[ir.Node]:
    opset = opset_of(model)
    kept = {n for s in find(model).sites if s.form == "primitives" for n in s.bare.nodes}
    from_integers: set[ir.Value] = set()
    for node in model.graph:
        inputs = [v for v in node.inputs if v is not None and v.dtype in _FLOATS and v.const_value is None]
        exact = node.op_type == "Cast" and node.inputs[0] is not None and node.inputs[0].dtype not in _FLOATS
        derived = bool(inputs) and node.op_type not in _WEIGHTED and from_integers.issuperset(inputs)
        if exact or derived:
            from_integers.update(node.outputs)
        if exact or derived or node.op_type in _ALWAYS_WIDE or not _takes(node, goal, opset) or _loses(node, goal):
            kept.add(node)
    return kept


def _takes(node: ir.Node, goal: ir.DataType, opset: int) -> bool:
    """Whether ONNX gives the op's data inputs and outputs the type; inputs fixed to float32 are seen to one by one."""
    if node.domain not in ("", "ai.onnx"):
        return False
    schema = onnx.defs.get_schema(node.op_type, opset)
    written = [p.types for p, value in zip(schema.outputs, node.outputs, strict=False) if value.dtype in _FLOATS]
    return all(_TYPE_NAMES[goal] in types for types in written)


_TYPE_NAMES = {
    ir.DataType.FLOAT: "tensor(float)",
    ir.DataType.FLOAT16: "tensor(float16)",
    ir.DataType.BFLOAT16: "tensor(bfloat16)",
}


def _loses(node: ir.Node, goal: ir.DataType) -> bool:
    """Whether a small constant (an epsilon, a mask value) would overflow or vanish."""
    for value in node.inputs:
        tensor = value.const_value if value is not None else None
        if tensor is None or tensor.dtype != _WIDE or tensor.size > 1:
            continue
        number = tensor.numpy().reshape(-1)
        with np.errstate(over="ignore"):
            stored = number.astype(goal.numpy()).astype(np.float32)
        if bool(np.any(np.isinf(stored) & np.isfinite(number))) or bool(np.any((stored == 0) & (number != 0))):
            return True
    return False


class _Writer:
    """Gives every node its inputs in the type it wants, by Casts that are shared."""

    def __init__(self, model: ir.Model, goal: ir.DataType) -> None:
        self.graph = model.graph
        self.goal = goal
        self.opset = opset_of(model)
        self.names = Names(model)
        self.casts: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}
        self.fixed = {v: v.dtype for v in self.graph.outputs}

    def node(self, node: ir.Node, *, keep: bool) -> None:
        if node.op_type == "Cast" and node.outputs[0] in self.fixed:
            return  # it gives the model's output its type already
        own = _WIDE if keep else self.goal
        for i, wanted in self._wanted(node, own):
            value = node.inputs[i]
            if value is not None and value.dtype in _FLOATS and value.dtype != wanted:
                node.replace_input_with(i, self._as(value, wanted))
        if node.op_type == "Cast" and ir.DataType(node.attributes["to"].as_int()) in _FLOATS:
            node.attributes["to"] = ir.AttrInt64("to", int(own))
        for output in node.outputs:
            if output.dtype in _FLOATS:
                output.type = ir.TensorType(own)  # a clone shares its types with the model it came from

    def outputs(self) -> None:
        for i, (value, dtype) in enumerate(self.fixed.items()):
            if dtype not in _FLOATS or value.dtype == dtype or dtype is None:
                continue
            name = value.name
            cast = ir.node("Cast", [value], attributes={"to": int(dtype)})
            cast.name = self.names.fresh(f"{name}/Cast")
            value.name = self.names.fresh(f"{name}_{self.goal.name.lower()}")
            (final,) = cast.outputs
            final.name, final.dtype, final.shape = name, dtype, value.shape
            self.graph.append(cast)
            self.graph.outputs[i] = final

    def _wanted(self, node: ir.Node, own: ir.DataType) -> Iterable[tuple[int, ir.DataType]]:
        """The type each input should have: the node's own, or float32 where ONNX allows no other."""
        formal = onnx.defs.get_schema(node.op_type, self.opset).inputs if node.domain in ("", "ai.onnx") else []
        for i in range(len(node.inputs)):
            if node.op_type == "Cast":
                continue
            parameter = formal[min(i, len(formal) - 1)] if formal else None
            fits = parameter is None or _TYPE_NAMES[own] in parameter.types
            yield i, own if fits else _WIDE

    def _as(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        key = (value, dtype)
        if key not in self.casts:
            fixed = value.is_initializer() and not value.is_graph_input()  # an input's initializer is only a default
            self.casts[key] = self._constant(value, dtype) if fixed else self._cast(value, dtype)
        return self.casts[key]

    def _constant(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        tensor = value.const_value
        assert tensor is not None
        name = self.names.fresh(f"{value.name}_{dtype.name.lower()}")
        converted = ir.LazyTensor(
            lambda: ir.tensor(tensor.numpy().astype(dtype.numpy()), dtype=dtype),
            dtype=dtype,
            shape=ir.Shape(tensor.shape.numpy()),
            name=name,
        )
        new = ir.Value(name=name, shape=value.shape, type=ir.TensorType(dtype), const_value=converted)
        self.graph.register_initializer(new)
        return new

    def _cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        name = self.names.fresh(f"{value.name}_{dtype.name.lower()}")
        node = ir.node("Cast", [value], attributes={"to": int(dtype)})
        node.name = self.names.fresh(f"{name}/Cast")
        (cast,) = node.outputs
        cast.name, cast.dtype, cast.shape = name, dtype, value.shape
        producer = value.producer()
        if producer is None:
            self.graph.insert_before(self.graph[0], node)
        else:
            self.graph.insert_after(producer, node)
        return cast
