"""The first value at which two models part when both are evaluated in float64, and what is written there otherwise."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gn_deploy.diagnosis.judge import Wrong, wrong_values
from gn_deploy.diagnosis.piece import Piece, plain
from gn_deploy.diagnosis.stretches import typed
from gn_deploy.graph.cut import cut, needs, tap
from gn_deploy.parity.cases import Array, Case
from gn_deploy.parity.inputs import fed_to
from gn_deploy.parity.oracle import open_oracle
from gn_deploy.runtimes.base import RuntimeFailure

if TYPE_CHECKING:
    import onnx_ir as ir

    from gn_deploy.parity.pairing import Pair

_TOGETHER = 1 << 26  # numbers of paired values held at once, in float64 and in five runs: 2.7 GB at most


@dataclass(frozen=True, slots=True, eq=False)
class Parting:
    """``mine`` of the reference and ``theirs`` of the candidate should be equal and are not; all before them is."""

    mine: "ir.Value"
    theirs: "ir.Value"
    wrong: Wrong
    case: Case
    piece: Piece
    """The candidate's nodes behind the last values that agree, and the reference's as their truth."""


def part(a: "ir.Model", b: "ir.Model", pairs: "Sequence[Pair]", cases: Sequence[Case], types: str) -> Parting | None:
    """Where ``b`` leaves ``a``; ``pairs`` are their GroupNorms. None when their outputs agree on every case.

    Values are paired by name, as inputs and outputs of paired GroupNorms, and as outputs by position. A name that both
    use for different things does no harm: the values behind it agree, and what is behind is asked first.
    Raises RuntimeFailure when either cannot be evaluated in float64.
    """
    paired = _paired(a, b, pairs)
    ends = {str(v.name): str(w.name) for v, w in zip(a.graph.outputs, b.graph.outputs, strict=True)}
    for case in cases:
        compared = _Compared(a, b, paired, case, types)
        if any(compared.differs(mine) for mine in ends):
            return compared.first(list(ends))
    return None


class _Compared:
    """Both models in float64 on one case: every pair of values, in the reference's rounding noise."""

    def __init__(self, a: "ir.Model", b: "ir.Model", paired: Mapping[str, str], case: Case, types: str) -> None:
        self._a, self._b, self._paired, self._case, self._types = a, b, paired, case, types
        self._wrong: dict[str, Wrong] = {}
        (theirs,) = fed_to(a, b, [case])
        for chunk in _chunks(a, list(paired)):
            shown = tap(a, chunk)
            session = open_oracle(tap(b, [paired[name] for name in chunk]))
            values = session.run(theirs.feeds)
            session.close()
            given = {name: values[paired[name]] for name in chunk}
            keep = [v for v in shown.graph.outputs if str(v.name) in given]
            shown.graph.outputs[:] = keep
            self._wrong |= {w.value: w for w in wrong_values(shown, case.feeds, given, types)}

    def differs(self, mine: str) -> bool:
        return mine in self._wrong

    def first(self, ends: Sequence[str]) -> Parting:
        mine_of = {theirs: mine for mine, theirs in self._paired.items()}
        agree = {theirs for mine, theirs in self._paired.items() if mine not in self._wrong}
        values = {str(v.name): v for n in self._b.graph for v in n.outputs}
        behind = _behind([values[self._paired[e]] for e in ends if e in self._wrong], agree)
        order = [str(v.name) for n in self._b.graph if n in behind for v in n.outputs]
        bad = [t for t in order if mine_of.get(t) in self._wrong]
        for theirs in bad:
            before = {str(v.name) for n in _behind([values[theirs]], agree) for v in n.outputs} - {theirs}
            if not before & set(bad):
                return self._parting(mine_of[theirs], theirs)
        return self._parting(mine_of[bad[0]], bad[0])

    def _parting(self, mine: str, theirs: str) -> Parting:
        """Cut out behind the last values that agree, where the candidate is fed what the reference has there."""
        right = [m for m in self._paired if m not in self._wrong]
        given = [str(v.name) for v in self._a.graph.inputs]
        truth = cut(self._a, [*right, *given], [mine])
        inputs = [str(v.name) for v in self._b.graph.inputs]
        own = dict(zip(given, inputs, strict=False)) if set(given) != set(inputs) else {}
        model = cut(self._b, [*(self._paired[m] for m in right), *inputs], [theirs])
        named = {t: m for m, t in self._paired.items() if m in right} | {t: m for m, t in own.items()}
        for value in model.graph.inputs:
            value.name = named.get(str(value.name), value.name)
        feeds = self._values(right)
        unknown = {str(v.name) for m in (model, truth) for v in m.graph.inputs} - feeds.keys()
        if unknown:
            raise RuntimeFailure(f"the nodes before '{theirs}' need '{min(unknown)}', which only one of the models has")
        what = plain(model, truth, feeds, self._types)
        wrong = _alone(what) or self._wrong[mine]
        values = {str(v.name): v for m in (self._a, self._b) for n in m.graph for v in n.outputs}
        at = {str(v.name): v for n in self._a.graph for v in n.outputs}
        return Parting(at[mine], values[theirs], wrong, self._case, what)

    def _values(self, wanted: Sequence[str]) -> dict[str, Array]:
        """The reference's own, in the types of its file."""
        session = open_oracle(tap(self._a, list(wanted)))
        values = {**session.run(self._case.feeds), **self._case.feeds}
        session.close()
        kinds = {str(v.name): v.dtype for n in self._a.graph for v in n.outputs}
        return {n: x.astype(d.numpy()) if (d := kinds.get(n)) is not None else x for n, x in values.items()}


def _alone(what: Piece) -> Wrong | None:
    """The piece in float64 on the reference's values: what is wrong in it, without what came before."""
    feeds = {str(v.name): what.feeds[str(v.name)] for v in what.model.graph.inputs}
    session = open_oracle(typed(what.model, feeds))
    answer = session.run(feeds)[what.output]
    session.close()
    given = {str(what.truth.graph.outputs[0].name): answer}
    truth = {str(v.name): what.feeds[str(v.name)] for v in what.truth.graph.inputs}
    found = wrong_values(what.truth, truth, given, what.types)
    return found[0] if found else None


def _paired(a: "ir.Model", b: "ir.Model", pairs: "Sequence[Pair]") -> dict[str, str]:
    """Names of the reference's values -> names of the candidate's, in the reference's order."""
    mine = {str(v.name): v for n in a.graph for v in n.outputs if v.name}
    theirs = {str(v.name): v for n in b.graph for v in n.outputs if v.name}
    found = {name: name for name in mine if name in theirs and _alike(mine[name], theirs[name])}
    for pair in pairs:
        for layer in pair.site.layers:
            if layer.spec == pair.spec:
                for one, other in ((layer.input, pair.input), (layer.output, pair.output)):
                    if str(one.name) in mine and str(other.name) in theirs:
                        found[str(one.name)] = str(other.name)
                break
    for one, other in zip(a.graph.outputs, b.graph.outputs, strict=True):
        if str(one.name) in mine and str(other.name) in theirs:
            found[str(one.name)] = str(other.name)
    return {name: found[name] for name in mine if name in found}


def _alike(a: "ir.Value", b: "ir.Value") -> bool:
    import onnx_ir as ir

    if any(v.type is not None and not isinstance(v.type, ir.TensorType) for v in (a, b)):
        return False
    if a.dtype is not None and b.dtype is not None and a.dtype.is_floating_point() != b.dtype.is_floating_point():
        return False
    if a.shape is None or b.shape is None:
        return True
    sizes = zip(a.shape, b.shape, strict=False)
    return len(a.shape) == len(b.shape) and not any(
        isinstance(x, int) and isinstance(y, int) and x != y for x, y in sizes
    )


def _behind(ends: "Sequence[ir.Value]", stop: set[str]) -> "dict[ir.Node, None]":
    """The nodes that ``ends`` depend on without looking behind values named in ``stop``."""
    nodes: dict[ir.Node, None] = {}
    stack = list(ends)
    while stack:
        value = stack.pop()
        node = value.producer()
        if node is None or node in nodes or (str(value.name) in stop and value not in ends):
            continue
        nodes[node] = None
        stack += needs(node)
    return nodes


def _chunks(model: "ir.Model", wanted: Sequence[str]) -> list[list[str]]:
    sizes = {str(v.name): v.shape for n in model.graph for v in n.outputs}
    chunks: list[list[str]] = [[]]
    held = 0
    for name in wanted:
        dims = [d if isinstance(d, int) else 2 for d in sizes.get(name) or ()]
        held += (size := int(np.prod(dims)))
        if chunks[-1] and held > _TOGETHER:
            chunks.append([])
            held = size
        chunks[-1].append(name)
    return chunks
