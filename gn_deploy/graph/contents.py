"""The numbers in small integer tensors, such as shapes in the making: each proved, or named."""

from typing import TYPE_CHECKING

import onnx_ir as ir

from gn_deploy.graph.dims import Dim, Shape, known, product
from gn_deploy.graph.fold import bounds, integer

if TYPE_CHECKING:
    from gn_deploy.graph.facts import Facts

_SAME = frozenset("Identity Cast CastLike Unsqueeze Squeeze Reshape Floor Ceil Round".split())
_ARITHMETIC = frozenset({"Mul", "Div", "Add", "Sub", "Mod"})
_SIZES = (ir.DataType.INT64, ir.DataType.INT32, ir.DataType.FLOAT, ir.DataType.DOUBLE)
"""Types that hold any size; bool makes 1 of it, and the small ones less."""


def contents(node: ir.Node, facts: "Facts") -> Shape | None:
    """What a plain node computes; None when any of it is not known. Elements in order, whatever the rank."""
    kind, source = node.op_type, node.inputs[0]
    if kind in ("Shape", "Size"):
        shape = facts.shape(source)
        if shape is None:
            return None
        if kind == "Size":
            return (product(shape),)
        return shape[slice(integer(node, "start", 0), integer(node, "end", len(shape)))]
    if kind not in _SAME and any(v is not None and facts.rank(v) not in (0, 1) for v in node.inputs):
        return None  # which element goes where depends on the axes
    if kind == "Concat":
        parts = [facts.contents(v) for v in node.inputs]
        return None if None in parts else tuple(d for part in parts if part is not None for d in part)
    if kind == "Where":
        return _chosen(node, facts)
    first = facts.contents(source)
    if first is None:
        return None
    if kind in _SAME:
        return first if facts.dtype(node.outputs[0]) in (None, *_SIZES) else None
    if kind in _ARITHMETIC:
        second = facts.contents(node.inputs[1])
        whole = facts.dtype(node.outputs[0]) in (ir.DataType.INT64, ir.DataType.INT32)
        return _computed("IntegerDiv" if kind == "Div" and whole else kind, first, second)
    if kind == "Gather":
        indices = facts.integers(node.inputs[1])
        within = indices is not None and all(-len(first) <= i < len(first) for i in indices)
        return tuple(first[i] for i in indices) if indices is not None and within else None
    if kind == "Slice":
        arrays = [facts.constant(v) for v in node.inputs[1:]]
        cuts = None if any(a is None for a in arrays) else bounds(node, [a for a in arrays if a is not None], 1)
        return None if cuts is None or set(cuts) != {0} else first[cuts[0]]
    if kind in ("Expand", "Tile"):
        shape = facts.shape(node.outputs[0])
        count = None if shape is None or len(first) != 1 else product(shape).known
        return first * count if count is not None and count <= 16 else None  # a shape has few elements
    if kind == "ReduceProd" and facts.axes(node) is not None:
        return (product(first),)
    return None


def _chosen(node: ir.Node, facts: "Facts") -> Shape | None:
    """Where, whose condition is proved for each element or chooses between equal numbers."""
    yes, no = facts.contents(node.inputs[1]), facts.contents(node.inputs[2])
    if yes is None or no is None:
        return None
    count = max(len(yes), len(no))
    yes, no = (_stretched(part, count) for part in (yes, no))
    truths = _truths(node.inputs[0], count, facts)
    if not len(yes) == len(no) == len(truths):
        return None
    picked = [
        a if truth or a == b else b if truth is False else None for truth, a, b in zip(truths, yes, no, strict=True)
    ]
    return None if None in picked else tuple(d for d in picked if d is not None)


def _truths(value: ir.Value | None, count: int, facts: "Facts") -> list[bool | None]:
    """For each element of a condition whether it holds, None where that is not known."""
    array = facts.constant(value)
    if array is not None:
        held: list[bool | None] = [bool(b) for b in array.reshape(-1)]
        return held * count if len(held) == 1 else held
    node = None if value is None else value.producer()
    if node is None or node.domain or node.op_type != "Equal":
        return [None] * count
    sides = [facts.contents(v) for v in node.inputs]
    a, b = (() if side is None else _stretched(side, count) for side in sides)
    return [_equal(x, y) for x, y in zip(a, b, strict=True)] if len(a) == len(b) == count else [None] * count


def _equal(a: Dim, b: Dim) -> bool | None:
    if a == b:
        return True
    if a.known is not None and b.known is not None:
        return False
    size, number = (a, b.known) if b.known is not None else (b, a.known)
    negative = number is not None and number < 0 and size.coefficient > 0
    return False if negative else None  # a size is never -1


def _stretched(part: Shape, count: int) -> Shape:
    return part * count if len(part) == 1 else part


def _computed(kind: str, first: Shape, second: Shape | None) -> Shape | None:
    if second is None:
        return None
    count = max(len(first), len(second))
    a, b = _stretched(first, count), _stretched(second, count)
    if len(a) != len(b):
        return None
    results = [_one(kind, x, y) for x, y in zip(a, b, strict=True)]
    return None if None in results else tuple(r for r in results if r is not None)


def _one(kind: str, a: Dim, b: Dim) -> Dim | None:
    if kind == "Mul":
        return a * b
    if kind == "IntegerDiv" and a.known is not None and b.known is not None and a.known >= 0 and b.known > 0:
        return known(a.known // b.known)
    if kind in ("Div", "IntegerDiv"):
        return a.divided_by(b)
    if kind == "Mod":
        return known(0) if a.divided_by(b) is not None else None
    return a.plus(b if kind == "Add" else Dim(-b.coefficient, b.symbols))
