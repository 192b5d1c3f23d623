"""The shape of a node's output, derived from what is known of its inputs."""

from collections.abc import Container, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from gn_deploy.graph.dims import ONE, Dim, Shape, known, product, unknown
from gn_deploy.graph.fold import Array, bounds, integer, integers, split_sizes

if TYPE_CHECKING:
    from gn_deploy.graph.facts import Facts

REDUCTIONS = frozenset({"ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "ReduceSumSquare"})
_SAME_SHAPE = frozenset(
    "Identity Cast CastLike Relu Sigmoid Swish Sqrt Reciprocal InstanceNormalization LayerNormalization Abs Log "
    "GroupNormalization BatchNormalization MeanVarianceNormalization Softmax Neg Exp Erf Tanh Clip HardSwish "
    "HardSigmoid Gelu Mish LeakyRelu Elu Selu Softplus Floor Ceil Round Not Dropout".split()
)
_BROADCAST = frozenset("Mul Add Sub Div Pow Max Min Sum Where Equal Greater Less And Or Mod".split())


def derived_shape(value: ir.Value, node: ir.Node, facts: "Facts") -> Shape | None:
    """The shape of an output of a plain node with a first input."""
    first = facts.shape(node.inputs[0])
    kind = node.op_type
    if kind == "Split":
        return _split(value, node, first, facts)
    if value.index() != 0:
        return None
    if kind in _SAME_SHAPE:
        return first
    if kind in _BROADCAST:
        return broadcast([facts.shape(v) for v in node.inputs])
    if kind in REDUCTIONS or kind == "ReduceProd":
        axes = facts.axes(node)
        if first is None or axes is None:
            return None
        kept = integer(node, "keepdims", 1)
        return tuple(ONE if i in axes else d for i, d in enumerate(first) if kept or i not in axes)
    match kind:
        case "Reshape":
            return _reshaped(node, first, facts)
        case "Unsqueeze" | "Squeeze":
            return _squeezed(node, first, facts)
        case "ConstantOfShape":
            return facts.contents(node.inputs[0])
        case "Conv" if (kernel := facts.shape(node.inputs[1])) is not None:
            batch = unknown(value.name, 0) if first is None else first[0]
            return (batch, kernel[0], *_unknown(value, range(2, len(kernel))))
        case "Range":
            array = facts.constant(value)
            return None if array is None else (known(array.size),)
        case "Concat":
            return _concatenated([facts.shape(v) for v in node.inputs], integer(node, "axis", 1))
    if first is None:
        return None
    match kind:
        case "Transpose":
            order = integers(node, "perm") or [*range(len(first))][::-1]
            return tuple(first[axis] for axis in order) if sorted(order) == [*range(len(first))] else None
        case "MaxPool" | "AveragePool":
            return (*first[:2], *_unknown(value, range(2, len(first))))
        case "Flatten":
            axis = integer(node, "axis", 1)
            return (product(first[:axis]), product(first[axis:]))
        case "Shape":
            return (known(len(first[slice(integer(node, "start", 0), integer(node, "end", len(first)))])),)
        case "Expand":
            return broadcast([first, facts.contents(node.inputs[1])])
        case "Tile":
            repeats = facts.contents(node.inputs[1])
            fits = repeats is not None and len(repeats) == len(first)
            return tuple(a * b for a, b in zip(first, repeats, strict=True)) if repeats is not None and fits else None
        case "Gather":
            indices, axis = facts.shape(node.inputs[1]), integer(node, "axis", 0)
            inside = indices is not None and -len(first) <= axis < len(first)
            axis %= max(1, len(first))
            return (*first[:axis], *indices, *first[axis + 1 :]) if indices is not None and inside else None
        case "Slice":
            return _sliced(value, node, first, facts)
        case "Pad":
            return _padded(value, node, first, facts)
        case "MatMul":
            return _multiplied(first, facts.shape(node.inputs[1]))
        case "TopK":
            axis = integer(node, "axis", -1) % len(first)
            return (*first[:axis], unknown(value.name, axis), *first[axis + 1 :])
    return None


def broadcast(shapes: Sequence[Shape | None]) -> Shape | None:
    """Numpy broadcasting; a named size wins over 1, and two different names are not resolved."""
    if any(s is None for s in shapes):
        return None
    present = [s for s in shapes if s is not None]
    if all(s == present[0] for s in present):
        return present[0]
    rank = max(map(len, present))
    result: list[Dim] = []
    for i in range(rank):
        here = {s[i - rank + len(s)] for s in present if i >= rank - len(s)} - {ONE}
        if len(here) > 1:
            return None
        result.append(here.pop() if here else ONE)
    return tuple(result)


def _reshaped(node: ir.Node, first: Shape | None, facts: "Facts") -> Shape | None:
    wanted = facts.contents(node.inputs[1]) if len(node.inputs) > 1 else integers(node, "shape")
    if wanted is None:
        return None
    copy_zero = not integer(node, "allowzero", 0)
    dims: list[Dim | None] = []
    for i, dim in enumerate(d if isinstance(d, Dim) else known(d) for d in wanted):
        if dim.known == 0 and copy_zero:
            dims.append(first[i] if first is not None and i < len(first) else unknown(node.outputs[0].name, i))
        else:
            dims.append(None if dim.known == -1 else dim)
    if None in dims:
        rest = product(d for d in dims if d is not None)
        left = product(first).divided_by(rest) if first is not None else None
        name = node.outputs[0].name
        dims = [d or left or unknown(name, i) for i, d in enumerate(dims)]
    return tuple(d for d in dims if d is not None)


def _squeezed(node: ir.Node, first: Shape | None, facts: "Facts") -> Shape | None:
    axes_value = node.inputs[1] if len(node.inputs) > 1 else None
    given = integers(node, "axes") if "axes" in node.attributes else facts.integers(axes_value)
    if first is None:
        return None
    if node.op_type == "Squeeze":
        if given is None and axes_value is None and all(d.known is not None for d in first):
            return tuple(d for d in first if d.known != 1)
        gone = None if given is None else {a % len(first) for a in given}
        return None if gone is None else tuple(d for i, d in enumerate(first) if i not in gone)
    if given is None:
        return None
    rank = len(first) + len(given)
    new = {a % rank for a in given}
    if len(new) < len(given):
        return None
    rest = iter(first)
    return tuple(ONE if i in new else next(rest) for i in range(rank))


def _sliced(value: ir.Value, node: ir.Node, first: Shape, facts: "Facts") -> Shape | None:
    arrays = [_numbers(v, facts) for v in node.inputs[1:]]
    cuts = None if any(a is None for a in arrays) else bounds(node, [a for a in arrays if a is not None], len(first))
    if cuts is None:  # where it is cut is not known, but other axes stay as they are
        axes = arrays[2] if len(arrays) > 2 else None
        named = None if axes is None else {int(axis) % len(first) for axis in axes}
        return None if named is None else _but(first, named, value)
    dims = []
    for axis, dim in enumerate(first):
        cut = cuts.get(axis, slice(None))
        whole = cut.step in (None, 1) and cut.start in (None, 0) and (cut.stop is None or cut.stop >= 1 << 30)
        if dim.known is not None:
            dims.append(known(len(range(dim.known)[cut])))
        else:
            dims.append(dim if whole else unknown(value.name, axis))
    return tuple(dims)


def _split(value: ir.Value, node: ir.Node, first: Shape | None, facts: "Facts") -> Shape | None:
    index = value.index()
    if first is None or index is None or not first:
        return None
    axis = integer(node, "axis", 0) % len(first)
    size = first[axis].known
    given = integers(node, "split") or facts.integers(node.inputs[1] if len(node.inputs) > 1 else None)
    sizes = [] if size is None else split_sizes(size, len(node.outputs), given)
    return (*first[:axis], known(sizes[index]), *first[axis + 1 :]) if index < len(sizes) else None


def _padded(value: ir.Value, node: ir.Node, first: Shape, facts: "Facts") -> Shape | None:
    own = integers(node, "pads")
    pads = facts.contents(node.inputs[1]) if own is None and len(node.inputs) > 1 else tuple(map(known, own or ()))
    axes = facts.integers(node.inputs[3]) if len(node.inputs) > 3 and node.inputs[3] else [*range(len(first))]
    if pads is None or axes is None or len(pads) != 2 * len(axes):
        return None
    dims = list(first)
    for axis, before, after in zip(axes, pads, pads[len(axes) :], strict=False):
        added = before.plus(after)
        dims[axis] = (None if added is None else first[axis].plus(added)) or unknown(value.name, axis % len(first))
    return tuple(dims)


def _multiplied(a: Shape, b: Shape | None) -> Shape | None:
    if b is None or len(a) < 2 or len(b) < 2:
        return None
    batch = broadcast([a[:-2], b[:-2]])
    return None if batch is None else (*batch, a[-2], b[-1])


def _numbers(value: ir.Value | None, facts: "Facts") -> Array | None:
    """A small integer vector, computed from known sizes or constant."""
    array = facts.constant(value)
    if array is None and (dims := facts.contents(value)) is not None:
        sizes = [d.known for d in dims]
        array = None if None in sizes else np.asarray(sizes, np.int64)
    return array


def _concatenated(shapes: Sequence[Shape | None], axis: int) -> Shape | None:
    first, *rest = shapes
    if first is None or any(s is None or len(s) != len(first) for s in rest):
        return None
    sizes = [s[axis].known for s in shapes if s is not None]
    total = sum(size for size in sizes if size is not None)
    if None in sizes:
        return None
    return tuple(known(total) if i == axis % len(first) else dim for i, dim in enumerate(first))


def _but(shape: Shape, axes: Container[int], value: ir.Value) -> Shape:
    """The shape with ``axes`` no longer known."""
    return tuple(unknown(value.name, axis) if axis in axes else dim for axis, dim in enumerate(shape))


def _unknown(value: ir.Value, axes: Iterable[int]) -> Shape:
    return tuple(unknown(value.name, axis) for axis in axes)
