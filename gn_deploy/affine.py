"""Scale and bias: what a Mul or an Add after a normalization means per channel, and how far it belongs to it."""

from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from gn_deploy.graph.dims import ONE, Dim, Shape, known, product
from gn_deploy.graph.facts import Facts
from gn_deploy.graph.nodes import is_plain, sole_consumer
from gn_deploy.graph.passing import CASTS, NO_OPS, VIEW_OPS, handed_on, holds, undoes
from gn_deploy.views import GroupView, returns_to

_SHAPE_NODES = 64  # between a Shape and the Reshape it serves; exporters need a dozen


@dataclass(frozen=True, slots=True)
class Parameter:
    """A scale or a bias as the graph holds it: a known array, a value of the graph, or both.

    ``array`` is (C,) in the graph's dtype, already folded, None when only known at run time.
    ``value`` is the graph's own tensor holding it, None when it had to be computed.
    ``per_group`` is True when ``value`` has one number per group (ONNX GroupNormalization-18).
    """

    array: NDArray[np.generic] | None = None
    value: ir.Value | None = None
    per_group: bool = False


@dataclass(frozen=True, slots=True)
class Affine:
    """Where a normalized value is back in the input's shape, with what was applied to it on the way."""

    output: ir.Value
    nodes: tuple[ir.Node, ...]
    scale: Parameter | None = None
    bias: Parameter | None = None
    scaled: bool = False
    """A Mul has been passed (or an Add, after which a Mul is somebody else's)."""
    shifted: bool = False
    """An Add has been passed."""
    wide: bool = False
    """One of them in another type than the source's, which the result is rounded to."""

    @property
    def completeness(self) -> tuple[int, bool]:
        """How much was applied; what was applied in another type belongs to what stands between the Casts."""
        return (self.scale is not None) + (self.bias is not None), not self.wide


def _next(value: ir.Value) -> ir.Node | None:
    """The only reader of a value, apart from those that want its shape for what that reader does with it."""
    uses = value.uses()
    if len(uses) <= 1 or value.is_graph_output():
        return sole_consumer(value)
    others = [use.node for use in uses if use.node.op_type != "Shape"]
    if len(others) != 1:
        return None
    return others[0] if all(_serves(use.node, others[0]) for use in uses) else None


def _serves(node: ir.Node, reader: ir.Node) -> bool:
    """Whether all that comes of ``node``, a Shape, is read by ``reader`` alone."""
    stack = [] if node is reader else [node]
    for _ in range(_SHAPE_NODES):
        if not stack:
            return True
        for value in stack.pop().outputs:
            if value.is_graph_output():
                return False
            stack.extend(use.node for use in value.uses() if use.node is not reader)
    return False


def source_dtype(view: GroupView, normalized: ir.Value, facts: Facts) -> ir.DataType | None:
    """The type of the view's source, told by the normalized value where no Cast stands between."""
    recast = any(node.op_type in CASTS for node in view.nodes)
    return facts.dtype(view.source) or (None if recast else facts.dtype(normalized))


def follow(
    normalized: ir.Value,
    view: GroupView,
    facts: Facts,
    scale: Parameter | None = None,
    bias: Parameter | None = None,
) -> Affine | None:
    """The furthest value after ``normalized`` that has the shape and type of ``view.source`` again.

    1. On the way: reshapes, casts, at most one Mul and one Add by one number per channel, in this order.
    2. ``scale`` and ``bias`` are what the normalization itself applied; constants are folded into one.
    3. A value with a second reader ends the way: whoever reads it must still find it.
    """
    graph = None if (producer := normalized.producer()) is None else producer.graph
    wanted = source_dtype(view, normalized, facts)
    state: Affine | None = Affine(normalized, (), unless_neutral(scale, 1.0), unless_neutral(bias, 0.0))
    best: Affine | None = None
    while state is not None:
        if returns_to(view, facts.shape(state.output)) and facts.dtype(state.output) in (None, wanted):
            best = state
        node = _next(state.output)
        inside = node is not None and is_plain(node) and node.graph is graph
        state = _step(state, node, view, facts) if inside and node is not None else None
    if best is None:
        return None
    return replace(best, scale=unless_neutral(best.scale, 1.0), bias=unless_neutral(best.bias, 0.0))


def _step(state: Affine, node: ir.Node, view: GroupView, facts: Facts) -> Affine | None:
    """The state after one more node; None when the node does not belong to the normalization."""
    output, nodes, shape = node.outputs[0], (*state.nodes, node), facts.shape(state.output)
    back = _next(output) if node.op_type in CASTS | {"Transpose"} else None
    if back is not None and (undoes(node, back, facts) or _recasts(node, back, facts)):
        return replace(state, output=back.outputs[0], nodes=(*nodes, back))
    if node.op_type in VIEW_OPS | NO_OPS and handed_on(node, facts) is state.output:
        foreign = node.op_type in CASTS and facts.dtype(output) != facts.dtype(view.source)
        return None if foreign else replace(state, output=output, nodes=nodes)
    kind = {"Mul": "Mul", "Div": "Mul", "Add": "Add", "Sub": "Add"}.get(node.op_type)
    if kind is None or len(node.inputs) != 2 or shape is None:
        return None
    operand = node.inputs[1] if node.inputs[0] is state.output else node.inputs[0]
    parameter = None if operand is None else per_channel(operand, shape, view, facts)
    if parameter is not None and node.op_type in ("Div", "Sub"):
        parameter = _opposite(parameter, node.op_type) if operand is node.inputs[1] else None
    if parameter is not None and unless_neutral(parameter, 1.0 if kind == "Mul" else 0.0) is None:
        return replace(state, output=output, nodes=nodes)  # it changes nothing
    if state.shifted or (state.scaled and kind == "Mul"):
        return None
    folded = None if parameter is None else _fold(state, parameter, kind)
    if folded is None:
        return None
    wide = state.wide or facts.dtype(state.output) not in (None, source_dtype(view, output, facts))
    return Affine(output, nodes, *folded, scaled=True, shifted=kind == "Add", wide=wide)


def _recasts(first: ir.Node, second: ir.Node, facts: Facts) -> bool:
    """Whether two Casts in a row go to a wider type and back."""
    if not {first.op_type, second.op_type} <= CASTS or first.inputs[0] is None or not is_plain(second):
        return False
    before, wide, after = (facts.dtype(v) for v in (first.inputs[0], first.outputs[0], second.outputs[0]))
    return before == after and holds(wide, before)


def _opposite(parameter: Parameter, op: str) -> Parameter | None:
    """What to multiply or add by instead of dividing by or subtracting a constant; None when that is not known."""
    array = parameter.array
    if array is None or (op == "Div" and not np.all(array)):
        return None
    wide = array.astype(np.float64)
    return Parameter(array=(1 / wide if op == "Div" else -wide).astype(array.dtype))


def per_channel(operand: ir.Value, shape: Shape, view: GroupView, facts: Facts) -> Parameter | None:
    """``operand`` as one number per channel when it is broadcast against a value of ``shape``; None when it is not."""
    axes = view.axes_of(view.num_channels, shape)
    count = view.num_channels
    if axes is None and view.channel_axis == 1:  # (N, G, elements of a group): one number per group can still be told
        axes, count = view.axes_of(view.num_groups, shape), view.num_groups
    own = facts.shape(operand)
    if axes is None or own is None or len(own) > len(shape):
        return None
    aligned = (ONE,) * (len(shape) - len(own)) + own
    array = facts.constant(operand)
    if array is not None and array.size > view.num_channels:
        array = _without_repeats(array.reshape([d.known or 1 for d in aligned]), axes, shape)
        aligned = tuple(map(known, array.shape))
    if any(d != ONE and (i not in axes or d != shape[i]) for i, d in enumerate(aligned)):
        return None  # it varies along another axis, or makes the value larger
    if array is not None:
        sizes = [shape[i].known or 1 for i in axes]
        inner = array.reshape([aligned[i].known or 1 for i in axes])
        whole = np.repeat(np.broadcast_to(inner, sizes).reshape(-1), view.num_channels // count)
        vector = _vector_behind(operand, view.num_channels, facts)  # the module's own weight, where it was unsqueezed
        return Parameter(array=whole, value=vector or (operand if product(own) == known(view.num_channels) else None))
    vector = _vector_behind(operand, count, facts)
    return None if vector is None else Parameter(value=vector, per_group=count != view.num_channels)


def _without_repeats(array: NDArray[np.generic], axes: range, shape: Shape) -> NDArray[np.generic]:
    """The array without the axes along which it only repeats what the channels have."""
    for axis, size in enumerate(array.shape):
        if axis not in axes and size != 1 and known(size) == shape[axis]:
            first = array.take([0], axis)
            array = first if bool(np.all(array == first)) else array
    return array


def _vector_behind(operand: ir.Value, channels: int, facts: Facts) -> ir.Value | None:
    """The (C,) tensor of which a run-time operand is a reshape; anything else may differ from sample to sample."""
    value: ir.Value | None = operand
    while value is not None:
        if facts.shape(value) == (Dim(channels),):
            return value
        node = value.producer()
        value = handed_on(node, facts) if node is not None and node.op_type not in CASTS else None
    return None


def unless_neutral(held: Parameter | None, neutral: float) -> Parameter | None:
    """None for a parameter known to change nothing, all ``neutral``."""
    return None if held is None or (held.array is not None and bool(np.all(held.array == neutral))) else held


def _fold(state: Affine, parameter: Parameter, op: str) -> tuple[Parameter | None, Parameter | None] | None:
    """Scale and bias after one more Mul or Add; None when a run-time value would have to be folded."""
    scale, bias = state.scale, state.bias
    if op == "Add":
        summed = parameter if bias is None else _combine(bias, parameter, np.add)
        return None if summed is None else (scale, summed)
    scaled = parameter if scale is None else _combine(scale, parameter, np.multiply)
    shifted = None if bias is None else _combine(bias, parameter, np.multiply)
    return None if scaled is None or (bias is not None and shifted is None) else (scaled, shifted)


def _combine(a: Parameter, b: Parameter, how: "np.ufunc") -> Parameter | None:
    if a.array is None or b.array is None:
        return None
    folded = how(a.array.astype(np.float64), b.array.astype(np.float64))  # rounded once, to the graph's dtype
    return Parameter(array=folded.astype(b.array.dtype))
