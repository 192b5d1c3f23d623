"""Nodes that hand on the elements of a tensor: in another shape or type, in another order of axes, or as they are."""

from collections.abc import Sequence
from typing import TypeGuard

import onnx_ir as ir

from gn_deploy.graph.dims import ONE, product
from gn_deploy.graph.facts import Facts
from gn_deploy.graph.nodes import is_plain

CASTS = frozenset({"Cast", "CastLike"})
VIEW_OPS = CASTS | {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"}
"""Ops that keep the order of the elements in memory (Cast keeps the values up to rounding)."""
NO_OPS = frozenset({"Expand", "Transpose", "Dropout", "Where"})
"""Ops that keep it in some cases; ``handed_on`` knows which."""

_FLOAT, _DOUBLE = ir.DataType.FLOAT, ir.DataType.DOUBLE
_WIDER: dict[ir.DataType | None, tuple[ir.DataType, ...]] = {
    ir.DataType.FLOAT16: (ir.DataType.FLOAT16, _FLOAT, _DOUBLE),
    ir.DataType.BFLOAT16: (ir.DataType.BFLOAT16, _FLOAT, _DOUBLE),
    _FLOAT: (_FLOAT, _DOUBLE),
    _DOUBLE: (_DOUBLE,),
}
"""The types that hold every value of a type."""


def handed_on(node: ir.Node, facts: Facts) -> ir.Value | None:
    """The input whose elements a node gives on, all of them and in their order; None when it does not."""
    if not node.inputs or node.inputs[0] is None or not is_plain(node):
        return None
    source = node.inputs[0]
    if node.op_type in VIEW_OPS:
        return source
    shape = facts.shape(source) if node.op_type in NO_OPS else None
    match node.op_type:
        case "Dropout" if _is_inference(node, facts):
            return source
        case "Expand" if shape is not None:
            whole = facts.shape(node.outputs[0])
            return source if whole is not None and product(whole) == product(shape) else None
        case "Transpose" if shape is not None:
            order = permutation(node, len(shape))
            moved = [axis for axis in order if shape[axis] != ONE]
            return source if moved == sorted(moved) else None
        case "Where" if (number := facts.scalar(source)) is not None:
            taken = node.inputs[1 if number else 2]
            return taken if facts.shape(taken) == facts.shape(node.outputs[0]) is not None else None
    return None


def permutation(node: ir.Node, rank: int) -> list[int]:
    """The axes of a Transpose; reversed, when it does not say."""
    perm = node.attributes.get("perm")
    order = [*range(rank)][::-1] if perm is None else [int(axis) for axis in perm.as_ints()]
    return order if sorted(order) == [*range(rank)] else []


def to_first(rank: int) -> list[int]:
    """The order of axes that makes (N, ..., C) channels first."""
    return [0, rank - 1, *range(1, rank - 1)]


def to_last(rank: int) -> list[int]:
    """The order of axes that makes (N, C, ...) channels last."""
    return [0, *range(2, rank), 1]


def transposes(node: ir.Node | None, order: Sequence[int]) -> TypeGuard[ir.Node]:
    """Whether a node is a Transpose that puts the axes in that order."""
    found = node is not None and node.op_type == "Transpose" and is_plain(node)
    return found and node is not None and permutation(node, len(order)) == [*order]


def undoes(first: ir.Node, second: ir.Node, facts: Facts) -> bool:
    """Whether two Transposes in a row leave every axis where it was."""
    rank = None if first.inputs[0] is None else facts.rank(first.inputs[0])
    if rank is None or first.op_type != "Transpose" or second.op_type != "Transpose":
        return False
    if not is_plain(first) or not is_plain(second):
        return False
    one, two = permutation(first, rank), permutation(second, rank)
    return bool(one and two) and [one[axis] for axis in two] == [*range(rank)]


def _is_inference(node: ir.Node, facts: Facts) -> bool:
    """Whether a Dropout does nothing, as opset by opset defines it."""
    if facts.opset < 7:
        return bool(node.attributes.get_int("is_test", 0))
    training = node.inputs[2] if len(node.inputs) > 2 else None
    return training is None or facts.scalar(training) == 0


def narrows(node: ir.Node, facts: Facts) -> bool:
    """Whether a Cast loses precision, so that what follows it is not a function of what precedes it alone.

    A Cast back to a type that held every value before other Casts widened it loses none.
    """
    if node.op_type not in CASTS:
        return False
    types = [facts.dtype(node.outputs[0])]
    value = node.inputs[0]
    while value is not None:
        before = facts.dtype(value)
        if all(holds(wide, before) for wide in types):
            return False
        types.append(before)
        producer = value.producer()
        seen = producer is not None and producer.op_type in VIEW_OPS and is_plain(producer)
        value = producer.inputs[0] if producer is not None and seen else None
    return True


def holds(wide: ir.DataType | None, narrow: ir.DataType | None) -> bool:
    """Whether the type ``wide`` has every value of the type ``narrow``."""
    return wide in _WIDER.get(narrow, ())
