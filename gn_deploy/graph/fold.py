"""What small constants become under the elementary ops that exporters and editors put behind them."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

LARGEST = 1 << 20  # elements; parameters are per channel, larger tensors are weights and stay on disk
Array = NDArray[np.generic]


def fold(node: ir.Node, arrays: Sequence[Array], index: int) -> Array | None:
    """Output ``index`` of a plain node whose present inputs are ``arrays``; None when it is not folded here.

    A node that no runtime could run, an index out of range or a wrong shape, has no value either.
    """
    rule = RULES.get(node.op_type)
    if rule is None or not arrays:
        return None
    try:
        with np.errstate(all="ignore"):
            result = rule(node, arrays, index)
    except (ValueError, IndexError, TypeError, ZeroDivisionError):
        return None
    return result if result is None or result.size <= LARGEST else None


def integer(node: ir.Node, name: str, default: int) -> int:
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_int()


def integers(node: ir.Node, name: str) -> list[int] | None:
    attribute = node.attributes.get(name)
    return None if attribute is None else [int(i) for i in attribute.as_ints()]


def _divide(a: Any, b: Any) -> Any:
    if a.dtype.kind not in "iu":
        return a / b
    if not np.all(b):
        raise ZeroDivisionError
    return (np.sign(a) * np.sign(b) * (abs(a) // abs(b))).astype(a.dtype)  # towards zero, as ONNX says


def _small(shape: Sequence[int]) -> list[int]:
    sizes = [int(n) for n in shape]
    if math.prod(sizes) > LARGEST:
        raise ValueError("large")
    return sizes


def _elementwise(how: Callable[..., Any]) -> Callable[[ir.Node, Sequence[Array], int], Array]:
    def rule(_node: ir.Node, arrays: Sequence[Array], _index: int) -> Array:
        _small(np.broadcast_shapes(*(a.shape for a in arrays)))
        if len({a.dtype for a in arrays[-2:]}) > 1:
            raise TypeError("ONNX converts nothing by itself")
        result = np.asarray(how(*arrays))
        return result if result.dtype == np.bool_ else result.astype(arrays[-1].dtype)  # half precision stays half

    return rule


def _concat(node: ir.Node, arrays: Sequence[Array], _index: int) -> Array:
    return np.concatenate(arrays, axis=integer(node, "axis", 1))


def _gather(node: ir.Node, arrays: Sequence[Array], _index: int) -> Array:
    return np.take(arrays[0], np.asarray(arrays[1], np.int64), axis=integer(node, "axis", 0))


def _slice(node: ir.Node, arrays: Sequence[Array], _index: int) -> Array | None:
    cuts = bounds(node, arrays[1:], arrays[0].ndim)
    return None if cuts is None else arrays[0][tuple(cuts.get(axis, slice(None)) for axis in range(arrays[0].ndim))]


def bounds(node: ir.Node, arrays: Sequence[Array], rank: int) -> dict[int, slice] | None:
    """What a Slice takes of each axis it names: from inputs, or before opset 10 from attributes."""
    given: list[list[int] | None] = [[int(i) for i in a.reshape(-1)] for a in arrays]
    if "starts" in node.attributes:
        given = [integers(node, name) for name in ("starts", "ends", "axes")]
    starts, ends, axes, steps = [*given, None, None, None, None][:4]
    if starts is None or ends is None:
        return None
    axes = [*range(len(starts))] if axes is None else [a % rank for a in axes]
    steps = [1] * len(starts) if steps is None else steps
    cuts: dict[int, slice] = {}
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        before_first = step < 0 and end < -(1 << 30)  # "to the very beginning", which Python spells None
        cuts[axis] = slice(start, None if before_first else end, step)
    return cuts


def _split(node: ir.Node, arrays: Sequence[Array], index: int) -> Array | None:
    axis = integer(node, "axis", 0)
    given = integers(node, "split") or ([int(i) for i in arrays[1]] if len(arrays) > 1 else None)
    sizes = split_sizes(arrays[0].shape[axis], len(node.outputs), given)
    return np.split(arrays[0], np.cumsum(sizes)[:-1], axis)[index] if sizes else None


def split_sizes(size: int, parts: int, given: Sequence[int] | None) -> list[int]:
    """How a Split cuts an axis: as given, else evenly with a smaller last part (ONNX Split-18)."""
    if given is not None:
        return list(given) if sum(given) == size and len(given) == parts else []
    each = -(-size // parts)
    return [max(0, min(each, size - i * each)) for i in range(parts)]


def _transpose(node: ir.Node, arrays: Sequence[Array], _index: int) -> Array:
    return np.transpose(arrays[0], integers(node, "perm"))


def _tile(_node: ir.Node, arrays: Sequence[Array], _index: int) -> Array:
    repeats = [int(n) for n in arrays[1]]
    _small([n * r for n, r in zip(arrays[0].shape, repeats, strict=True)])
    return np.tile(arrays[0], repeats)


def _expand(_node: ir.Node, arrays: Sequence[Array], _index: int) -> Array:
    sizes = _small(np.broadcast_shapes(arrays[0].shape, tuple(int(n) for n in arrays[1])))
    return np.ascontiguousarray(np.broadcast_to(arrays[0], sizes))


def _fill(node: ir.Node, arrays: Sequence[Array], _index: int) -> Array:
    return np.broadcast_to(filling(node), _small([int(n) for n in arrays[0]])).copy()


def filling(node: ir.Node) -> Array:
    """The one element of what ConstantOfShape makes."""
    value = node.attributes.get("value")
    return np.zeros(1, np.float32) if value is None else value.as_tensor().numpy().reshape(1)


def _range(_node: ir.Node, arrays: Sequence[Array], _index: int) -> Array:
    start, limit, delta = (a.reshape(-1)[0] for a in arrays)
    _small([max(0, math.ceil((float(limit) - float(start)) / float(delta)))])
    return np.arange(start, limit, delta, dtype=arrays[0].dtype)


def _product(node: ir.Node, arrays: Sequence[Array], _index: int) -> Array | None:
    given = integers(node, "axes") or [int(i) for a in arrays[1:] for i in a]
    if not given and integer(node, "noop_with_empty_axes", 0):
        return arrays[0]
    axes = tuple(given) or None
    keep = bool(integer(node, "keepdims", 1))
    return np.asarray(np.prod(arrays[0], axis=axes, keepdims=keep, dtype=arrays[0].dtype))  # type: ignore[arg-type]


def _remainder(node: ir.Node, arrays: Sequence[Array], _index: int) -> Array | None:
    whole = arrays[0].dtype.kind in "iu" and not integer(node, "fmod", 0) and bool(np.all(arrays[1]))
    return np.mod(arrays[0], arrays[1]) if whole else None


_ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "Identity": lambda a: a,
    "Mul": np.multiply,
    "Add": np.add,
    "Sub": np.subtract,
    "Div": _divide,
    "Neg": np.negative,
    "Abs": np.abs,
    "Sqrt": np.sqrt,
    "Reciprocal": lambda a: 1 / a,
    "Exp": np.exp,
    "Log": np.log,
    "Where": np.where,
    "Equal": np.equal,
    "Greater": np.greater,
    "Less": np.less,
    "Max": lambda *a: np.maximum.reduce(np.broadcast_arrays(*a)),
    "Min": lambda *a: np.minimum.reduce(np.broadcast_arrays(*a)),
}
RULES: dict[str, Callable[[ir.Node, Sequence[Array], int], Array | None]] = {
    "Concat": _concat,
    "Gather": _gather,
    "Slice": _slice,
    "Split": _split,
    "Transpose": _transpose,
    "Tile": _tile,
    "Expand": _expand,
    "ConstantOfShape": _fill,
    "Range": _range,
    "Mod": _remainder,
    "ReduceProd": _product,
    **{op: _elementwise(how) for op, how in _ELEMENTWISE.items()},
}
"""Output of an op on constants. Reshape, Cast and the like need shapes and types and are in ``facts``."""
