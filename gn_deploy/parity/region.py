"""What the candidate's own nodes tell about the arithmetic of a GroupNorm: in which order it sums."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

_SUMS = frozenset(("ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL2"))


def sums_serially(nodes: "Iterable[ir.Node]") -> bool:
    """Whether any of the nodes sums over axes that are not the innermost ones of its input.

    What is summed then does not lie side by side in memory, and kernels go along it with one accumulator for each sum
    instead of several for all. Axes or ranks that the graph does not tell count as innermost.
    """
    return any(node.op_type in _SUMS and not _innermost(node) for node in nodes)


def _innermost(node: "ir.Node") -> bool:
    entry = node.inputs[0]
    axes = _axes(node)
    if entry is None or entry.shape is None or not axes:
        return True
    rank = len(entry.shape)
    summed = {axis % rank for axis in axes}
    return summed == set(range(rank - len(summed), rank))


def _axes(node: "ir.Node") -> tuple[int, ...]:
    given = node.attributes.get("axes")
    if given is not None:
        return tuple(given.as_ints())
    value = node.inputs[1] if len(node.inputs) > 1 else None
    tensor = value.const_value if value is not None else None
    return () if tensor is None else tuple(int(axis) for axis in tensor.numpy().reshape(-1))
