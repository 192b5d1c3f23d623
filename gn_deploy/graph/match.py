"""A pattern matcher over producers: full backtracking, either operand order, optional nodes, reasons for a miss."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from gn_deploy.decision import Accepted, Decision
from gn_deploy.graph.facts import Facts
from gn_deploy.graph.nodes import is_plain

_COMMUTATIVE = frozenset({"Add", "And", "Equal", "Mul", "Max", "Min", "Sum"})
_VARIADIC = frozenset({"Max", "Min", "Sum", "Mean"})
Predicate = Callable[[ir.Node, Facts], Decision]


@dataclass(frozen=True, eq=False)
class Any:
    """Any value. Used twice in a pattern, it must stand for the same value both times; so must every pattern object."""


@dataclass(frozen=True, eq=False)
class Scalar:
    """A constant of one element; with ``equal``, that number."""

    equal: float | None = None


@dataclass(frozen=True, eq=False)
class Op:
    """The first output of a node of one of ``types`` whose leading inputs match ``inputs``.

    ``where`` sees every node of the right type before its inputs are tried.
    """

    types: str
    inputs: tuple["Pattern", ...]
    where: Predicate = field(default=lambda _node, _facts: Accepted())


@dataclass(frozen=True, eq=False)
class Either:
    """The first of ``options`` that lets the whole pattern match."""

    options: tuple["Pattern", ...]


@dataclass(frozen=True, eq=False)
class Through:
    """``inner``, seen through any number of nodes of ``types``, such as Cast.

    ``via`` tells which input of such a node to go on with, None if with none.
    """

    types: str
    inner: "Pattern"
    via: Callable[[ir.Node, Facts], ir.Value | None] = field(default=lambda node, _facts: node.inputs[0])


@dataclass(frozen=True, eq=False)
class Refused:
    """A look-alike: where ``inner`` is there nothing matches, for ``reason``."""

    inner: "Pattern"
    reason: str


Pattern = Any | Scalar | Op | Either | Through | Refused
Bindings = Mapping[Pattern | ir.Node, ir.Value]


@dataclass(frozen=True, slots=True)
class Match:
    """What every pattern object stands for, and the nodes that were used."""

    bindings: Bindings

    def __getitem__(self, pattern: Pattern) -> ir.Value:
        return self.bindings[pattern]

    def get(self, pattern: Pattern) -> ir.Value | None:
        return self.bindings.get(pattern)

    @property
    def nodes(self) -> tuple[ir.Node, ...]:
        return _nodes(self.bindings)


@dataclass(frozen=True, slots=True)
class Miss:
    """How far the best attempt got, in nodes, and what stopped it."""

    progress: int
    reason: str

    def __bool__(self) -> bool:
        return False


def match(pattern: Pattern, value: ir.Value, facts: Facts) -> Match | Miss:
    """The first way in which ``pattern`` describes how ``value`` is computed."""
    search = _Search(facts)
    for bindings in search.solve(pattern, value, {}):
        return Match(bindings)
    return Miss(search.progress, search.reason)


def _nodes(bindings: Bindings) -> tuple[ir.Node, ...]:
    return tuple(key for key in bindings if type(key) is ir.Node)  # isinstance is slow: a Node is a Protocol


class _Search:
    """One search; remembers the deepest failure."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.progress = 0
        self.reason = "nothing was tried"
        self._deepest = -1

    def miss(self, bindings: Bindings, reason: str) -> None:
        if len(bindings) > self._deepest:
            self._deepest, self.progress, self.reason = len(bindings), len(_nodes(bindings)), reason

    def solve(self, pattern: Pattern, value: ir.Value, bindings: Bindings) -> Iterator[Bindings]:
        bound = bindings.get(pattern)
        if bound is not None:
            if self.facts.same(bound, value):
                yield bindings
            else:
                self.miss(bindings, f"'{value.name}' is not the same value as '{bound.name}'")
            return
        match pattern:
            case Any():
                yield {**bindings, pattern: value}
            case Scalar():
                yield from self._scalar(pattern, value, bindings)
            case Either():
                for option in pattern.options:
                    for found in self.solve(option, value, bindings):
                        yield {**found, pattern: value}
            case Refused():
                for found in self.solve(pattern.inner, value, bindings):
                    self.miss(found, pattern.reason)
                    return
            case Through():
                yield from self._through(pattern, value, bindings)
            case Op():
                yield from self._op(pattern, value, bindings)

    def _scalar(self, pattern: Scalar, value: ir.Value, bindings: Bindings) -> Iterator[Bindings]:
        number = self.facts.scalar(value)
        if number is None:
            self.miss(bindings, f"'{value.name}' is not a constant of one element")
        elif pattern.equal is not None and number != pattern.equal:
            self.miss(bindings, f"'{value.name}' is {number:g} where {pattern.equal:g} was needed")
        else:
            yield {**bindings, pattern: value}

    def _through(self, pattern: Through, value: ir.Value, bindings: Bindings) -> Iterator[Bindings]:
        for found in self.solve(pattern.inner, value, bindings):
            yield {**found, pattern: value}
        node = value.producer()
        if node is None or node.op_type not in pattern.types.split() or not node.inputs or not is_plain(node):
            return
        via = pattern.via(node, self.facts)
        if via is not None:
            for found in self._through(pattern, via, {**bindings, node: value}):
                yield {**found, pattern: value}

    def _op(self, pattern: Op, value: ir.Value, bindings: Bindings) -> Iterator[Bindings]:
        node = value.producer()
        if node is None or node.op_type not in pattern.types.split():
            found = "a graph input or weight" if node is None else f"{node.op_type}"
            self.miss(bindings, f"'{value.name}' is {found} where {pattern.types.replace(' ', ' or ')} was needed")
            return
        exact = node.op_type in _VARIADIC and len(node.inputs) != len(pattern.inputs)
        if value.index() != 0 or len(node.inputs) < len(pattern.inputs) or exact or not is_plain(node):
            needed = len(pattern.inputs)
            self.miss(bindings, f"'{value.name}' is not the first output of {node.op_type} on {needed} inputs")
            return
        decision = pattern.where(node, self.facts)
        if not decision:
            self.miss({**bindings, node: value}, decision.reason)
            return
        here = {**bindings, node: value, pattern: value}
        orders = [pattern.inputs]
        if node.op_type in _COMMUTATIVE and len(pattern.inputs) == 2:
            orders.append((pattern.inputs[1], pattern.inputs[0]))
        for order in orders:
            yield from self._inputs(order, node, 0, here)

    def _inputs(
        self, patterns: tuple[Pattern, ...], node: ir.Node, position: int, bindings: Bindings
    ) -> Iterator[Bindings]:
        if position == len(patterns):
            yield bindings
            return
        value = node.inputs[position]
        if value is None:
            self.miss(bindings, f"{node.op_type} '{node.name}' lacks input {position}")
            return
        for found in self.solve(patterns[position], value, bindings):
            yield from self._inputs(patterns, node, position + 1, found)
