"""A graph as a row of nodes, to be cut between any two: what is alive at a cut, the stretch between two cuts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from gn_deploy.graph.cut import cut, needs
from gn_deploy.parity.cases import Array

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx_ir as ir

_GUESS = 1 << 20  # elements of a value whose shape is not known
_NEAR = 8  # a cut may move by this part of its stretch to where less is alive
MAX_ALIVE = 64  # values at one cut; more would make outputs of half the network


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """The nodes of a model's main graph in topological order.

    1. The cut at position i stands before node i: 0 is before everything, ``len(nodes)`` behind.
    2. ``alive[i]`` are the values that cross it: inputs of the graph and results of nodes before it which nodes behind
       it read or which are graph outputs; initializers never do. In the order they are made.
    """

    model: "ir.Model"
    nodes: "tuple[ir.Node, ...]"
    alive: "tuple[tuple[ir.Value, ...], ...]"
    cost: tuple[float, ...] = field(default=())
    """Elements alive at each cut; infinite where it cannot be cut: something that is no tensor crosses it."""

    def stretch(self, i: int, j: int) -> "ir.Model":
        """Nodes i to j as a model: what they read that is alive at i -> what they make that is alive at j."""
        ends = [v for v in self.alive[j] if v not in set(self.alive[i])]
        region = cut(self.model, list(self.alive[i]), ends)
        _drop_unread(region)
        return region

    def cuts(self, i: int, j: int, parts: int) -> list[int]:
        """Up to ``parts`` - 1 positions between i and j, evenly spread, each moved to where little is alive."""
        found = set()
        for k in range(1, parts):
            middle = i + (j - i) * k / parts
            reach = max(1, (j - i) // (_NEAR * (parts - 1)))
            around = [p for p in range(round(middle) - reach, round(middle) + reach + 1) if i < p < j]
            around = [p for p in around if math.isfinite(self.cost[p])]
            if around:
                found.add(min(around, key=lambda p: (self.cost[p], abs(p - middle))))
        return sorted(found)


def row(model: "ir.Model") -> Row:
    """``model`` is normalized; its nodes are taken in the order they stand in, which is topological."""
    nodes = tuple(model.graph)
    last: dict[ir.Value, int] = {}
    for at, node in enumerate(nodes):
        for value in needs(node):
            last[value] = at
    for value in model.graph.outputs:
        last[value] = len(nodes)
    inputs = [v for v in model.graph.inputs if not v.is_initializer() and v in last]
    alive: list[tuple[ir.Value, ...]] = [tuple(inputs)]
    for at, node in enumerate(nodes):
        kept = [v for v in alive[-1] if last[v] > at]
        kept += [v for v in node.outputs if last.get(v, -1) > at]
        alive.append(tuple(kept))
    return Row(model, nodes, tuple(alive), tuple(_cost(values) for values in alive))


def typed(region: "ir.Model", feeds: "Mapping[str, Array]") -> "ir.Model":
    """``region`` in place, its inputs' types as those of the arrays where the file does not say."""
    import onnx_ir as ir

    for value in region.graph.inputs:
        array = feeds.get(str(value.name))
        if array is None:
            continue
        if value.dtype is None:
            value.type = ir.TensorType(ir.DataType.from_numpy(np.dtype(array.dtype)))
        if value.shape is None or len(value.shape) != array.ndim:
            value.shape = ir.Shape([None] * array.ndim)
    return region


def names(values: "Sequence[ir.Value]") -> list[str]:
    return [str(value.name) for value in values]


def _drop_unread(region: "ir.Model") -> None:
    inputs = region.graph.inputs
    for value in list(inputs):
        if not value.uses() and not value.is_graph_output():
            inputs.remove(value)


def _cost(values: "Sequence[ir.Value]") -> float:
    import onnx_ir as ir

    if len(values) > MAX_ALIVE or any(v.type is not None and not isinstance(v.type, ir.TensorType) for v in values):
        return math.inf
    sizes = [list(v.shape) if v.shape is not None else [None] for v in values]
    known = [[d for d in size if isinstance(d, int)] for size in sizes]
    return float(sum(math.prod(k) if len(k) == len(s) else _GUESS for k, s in zip(known, sizes, strict=True)))
