"""Where a candidate parts from what it should compute: in what is written, and on each runtime that runs it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gn_deploy.diagnosis.differ import part
from gn_deploy.diagnosis.judge import Wrong, promised
from gn_deploy.diagnosis.piece import Piece, piece
from gn_deploy.diagnosis.search import Found, Open, Search
from gn_deploy.diagnosis.stretches import Row, row
from gn_deploy.diagnosis.written import difference
from gn_deploy.graph.provenance import module_path, source_line
from gn_deploy.parity.cases import Case
from gn_deploy.parity.report import Divergence
from gn_deploy.runtimes.base import RuntimeFailure

if TYPE_CHECKING:
    import onnx_ir as ir

    from gn_deploy.parity.pairing import Pair

ORACLE = "oracle"
Tell = Callable[[str], None]
_NAMED = 4  # nodes of a fused stretch that are named before the rest is counted


@dataclass(frozen=True, slots=True, eq=False)
class Located:
    """A divergence as it is reported, and the part of the network that shows it; None when nothing parts."""

    divergence: Divergence
    piece: Piece | None = None
    wrong: Wrong | None = None
    wider: "Callable[[], Piece] | None" = None
    """A larger part around it, when the piece by itself does not show it: where a runtime fuses across its borders."""
    at: int = 0
    """Position in the network of what was found; 0 when it was found in a GroupNorm alone."""


def locate_written(
    a: "ir.Model",
    b: "ir.Model",
    pairs: "Sequence[Pair]",
    cases: Sequence[Case],
    *,
    runtime: str,
    against: str,
    types: str = "",
    tell: Tell | None = None,
) -> Located:
    """Where ``b`` means something else than ``a``, both evaluated in float64."""
    (tell or (lambda _: None))("comparing what is written, in float64")
    nothing = Divergence(runtime, against, "", reason="what is written means the same")
    try:
        found = part(a, b, pairs, [c for c in cases if c.conditioned] or cases, types or promised(b))
    except RuntimeFailure as error:
        return Located(replace(nothing, reason=f"not compared: {error.message}"))
    if found is None:
        return Located(nothing)
    pair = next((p for p in pairs if p.output is found.theirs), None)
    written = difference(found.piece)
    node = written.node if written is not None else found.theirs.producer()
    words = (pair.differs if pair is not None else "") or (written.words if written is not None else "")
    at = next((str(v.name) for v in node.outputs), "") if node is not None else ""
    divergence = told(
        Divergence(runtime, against, at if written is not None else str(found.theirs.name)),
        node,
        found.wrong,
        found.case.name,
    )
    return Located(
        replace(divergence, reason=words or "the nodes in between compute something else"), found.piece, found.wrong
    )


def locate_run(
    model: "ir.Model",
    opened: Open,
    cases: Sequence[Case],
    *,
    runtime: str,
    asked: str = "",
    tell: Tell | None = None,
) -> Located:
    """Where a runtime, opened by ``opened``, leaves the float64 oracle of the very model it runs.

    ``cases`` feed ``model`` by its own names; ``asked`` is a precision that was asked for, and so is no error.
    Raises what ``opened`` raises for the model as it is.
    """
    nodes = row(model)
    types = promised(model, asked)
    search = Search(nodes, opened, types, tell)
    found = search.run(cases)
    if found is None:
        unjudged = f"; {len(search.unjudged)} part(s) not judged: {search.unjudged[0]}" if search.unjudged else ""
        return Located(Divergence(runtime, ORACLE, "", reason=f"no value leaves the oracle{unjudged}"))
    return _located(nodes, found, runtime, types)


def _located(nodes: Row, found: Found, runtime: str, types: str) -> Located:
    what = piece(nodes.model, found.feeds, found.wrong.value, types)
    node = next(n for n in nodes.nodes if found.wrong.value in {str(v.name) for v in n.outputs})
    divergence = told(Divergence(runtime, ORACLE, found.wrong.value), node, found.wrong, found.case.name)
    reason = ""
    if len(what.nodes) > 1:
        reason = f"only while {_listed(what.nodes)} run together: with an output between them the error is gone"

    def wider() -> Piece:
        return piece(nodes.model, found.case.feeds, found.wrong.value, types)

    return Located(replace(divergence, reason=reason), what, found.wrong, wider, found.end)


def told(divergence: Divergence, node: "ir.Node | None", wrong: Wrong | None, case: str) -> Divergence:
    """With where the node stands and how wrong its value is."""
    if node is not None:
        divergence = replace(
            divergence,
            node=node.name or "",
            op_type=node.op_type,
            module=module_path(node),
            source=source_line(node),
        )
    if wrong is None:
        return replace(divergence, case=case)
    return replace(divergence, case=case, metrics=wrong.metrics, noise_ratio=wrong.ratio, looks_like=wrong.looks_like)


def _listed(nodes: "Sequence[ir.Node]") -> str:
    named = [f"{n.op_type} '{n.name}'" if n.name else n.op_type for n in nodes]
    if len(named) > _NAMED + 1:
        named = [*named[: _NAMED // 2], f"{len(named) - _NAMED} more", *named[-_NAMED // 2 :]]
    return f"{', '.join(named[:-1])} and {named[-1]}"
