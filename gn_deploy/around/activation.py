"""Sees the activation that is applied to a value, however it is spelled, and writes one."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from gn_deploy.around.expression import Expression, X, close, gelu, gelu_tanh, hard_swish, mish, number, relu, silu
from gn_deploy.around.operators import POINTWISE, exact, read
from gn_deploy.graph.facts import Facts
from gn_deploy.graph.splice import Builder
from gn_deploy.spec import Activation

_MEANING = {
    Activation.RELU: relu(X),
    Activation.SILU: silu(X),
    Activation.HARDSWISH: hard_swish(X),
    Activation.GELU: gelu(X),
    Activation.GELU_TANH: gelu_tanh(X),
    Activation.MISH: mish(X),
}
_MOST = 8  # readers; tanh GELU with its cube as products has 5
_LONGEST = 24  # nodes; tanh GELU with its cube as products is 9, and Casts may stand between
_TOLERANCE = 1e-12  # of a coefficient: a product of at most a dozen numbers, in float64
_ROUNDOFF = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8, "int64": 0.0}
_BF16_SINCE = 22  # opset from which HardSwish, Softplus and Mish take bfloat16


def activation_after(value: ir.Value, facts: Facts) -> tuple[Activation, tuple[ir.Node, ...]] | None:
    """The activation that is applied to ``value`` and the nodes that compute it, the last one giving the result.

    1. The nodes are read as one function of ``value`` and compared with each activation as expressions: orders of
       operands and of factors do not matter, and a gate computed from anything but ``value`` is no function of it.
    2. Closed: nobody else reads ``value`` or what is computed on the way, neither is a graph output, and all nodes
       stand in the graph of the producer of ``value`` (of its reader, where it has none).
    3. The result has the type of ``value``, and nothing on the way is less precise.
    """
    own = facts.dtype(value)
    readers = [use.node for use in value.uses()]
    if not 0 < len(readers) <= _MOST or any(node.op_type not in POINTWISE for node in readers):
        return None
    graph = (value.producer() or readers[0]).graph
    known = {value: X}
    types = {value: own}
    nodes: list[ir.Node] = []
    while len(nodes) < _LONGEST and (ready := _next(value, known, nodes, facts)) is not None:
        node, operands = ready
        result = node.outputs[0]
        expression = read(node, operands)
        if expression is None or len(node.outputs) > 1 or node.graph is not graph:
            return None
        dtype = next(types[v] for v in node.inputs if v in types)
        if node.op_type == "Cast":
            dtype = ir.DataType(node.attributes["to"].as_int())
            if not _holds(dtype, own):
                return None
        nodes.append(node)
        if dtype is own and _all_read_by(nodes, known):
            for activation, meaning in _MEANING.items():
                if close(expression, meaning, _TOLERANCE):
                    return activation, tuple(nodes)
        known[result], types[result] = expression, dtype
    return None


def _next(
    value: ir.Value, known: Mapping[ir.Value, Expression], nodes: Sequence[ir.Node], facts: Facts
) -> tuple[ir.Node, list[Expression | None]] | None:
    """A reader of what is known that reads nothing else but constants, with its operands."""
    for source in known:
        for node in dict.fromkeys(use.node for use in source.uses()):
            if node in nodes:
                continue
            operands = [None if v is None else known.get(v) or _constant(v, value, facts) for v in node.inputs]
            if all(v is None or operand is not None for v, operand in zip(node.inputs, operands, strict=True)):
                return node, operands
    return None


def _all_read_by(nodes: Sequence[ir.Node], values: Mapping[ir.Value, Expression]) -> bool:
    return not any(v.is_graph_output() or any(use.node not in nodes for use in v.uses()) for v in values)


def _constant(operand: ir.Value, value: ir.Value, facts: Facts) -> Expression | None:
    """The one number in a constant that is broadcast against ``value`` without making it larger."""
    array, shape = facts.constant(operand), facts.shape(value)
    u = None if array is None else _ROUNDOFF.get(str(array.dtype))
    if array is None or u is None or array.size == 0 or np.any(array != array.flat[0]):
        return None
    sizes = (1,) if shape is None else tuple(dim.known for dim in shape)  # a normalized value has at least one axis
    fits = zip(reversed(array.shape), reversed(sizes), strict=False)
    if array.ndim > len(sizes) or any(size not in (1, there) for size, there in fits):
        return None
    return number(exact(float(array.flat[0]), u))


def _holds(dtype: ir.DataType, own: ir.DataType | None) -> bool:
    """Whether every number of the type ``own`` is also one of ``dtype``."""
    wide = (ir.DataType.FLOAT, ir.DataType.DOUBLE)
    return own is not None and (dtype is own or (dtype in wide and dtype.itemsize > own.itemsize))


def write_activation(value: ir.Value, activation: Activation, builder: Builder) -> ir.Value:
    """Nodes that apply ``activation`` to ``value``: the operator where the opset has it, else what it is made of."""
    dtype = value.dtype
    assert dtype is not None, "an activation is written in the type of its input"

    def op(op_type: str, *inputs: ir.Value, **attributes: float | str) -> ir.Value:
        return builder.op(op_type, inputs, attributes, dtype=dtype, shape=value.shape)

    def constant(n: float, role: str) -> ir.Value:
        return builder.constant(np.asarray(n, dtype.numpy()), role)

    def halved(gate: ir.Value) -> ir.Value:
        """x (1 + gate) / 2, in torch's order."""
        return op("Mul", op("Mul", value, op("Add", gate, constant(1.0, "one"))), constant(0.5, "half"))

    opset = builder.opset
    narrow = dtype is ir.DataType.BFLOAT16 and opset < _BF16_SINCE
    if activation is Activation.MISH and narrow:
        wide = builder.op("Cast", [value], {"to": ir.DataType.FLOAT}, dtype=ir.DataType.FLOAT, shape=value.shape)
        return op("Cast", write_activation(wide, activation, builder), to=dtype)
    match activation:
        case Activation.RELU:
            return op("Relu", value)
        case Activation.SILU:
            return op("Mul", value, op("Sigmoid", value))
        case Activation.HARDSWISH if opset >= 14 and not narrow and dtype is not ir.DataType.DOUBLE:
            return op("HardSwish", value)
        case Activation.HARDSWISH:  # a HardSigmoid would hold 1/6 in float32
            ramp = op("Clip", op("Add", value, constant(3.0, "three")), constant(0.0, "zero"), constant(6.0, "six"))
            return op("Div", op("Mul", value, ramp), constant(6.0, "six"))
        case Activation.MISH:
            return op("Mish", value) if opset >= 18 else op("Mul", value, op("Tanh", op("Softplus", value)))
        case Activation.GELU if opset >= 20:
            return op("Gelu", value)
        case Activation.GELU:
            return halved(op("Erf", op("Div", value, constant(math.sqrt(2), "sqrt2"))))
        case Activation.GELU_TANH if opset >= 20:
            return op("Gelu", value, approximate="tanh")
        case Activation.GELU_TANH:
            cube = op("Mul", value, op("Mul", value, value))
            inner = op("Add", value, op("Mul", cube, constant(0.044715, "cubic")))
            return halved(op("Tanh", op("Mul", inner, constant(math.sqrt(2 / math.pi), "slope"))))
    return value
