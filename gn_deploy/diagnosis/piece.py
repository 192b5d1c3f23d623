"""A part of a network that goes wrong by itself: the nodes, what is fed, and what would be right."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gn_deploy.diagnosis.judge import Wrong, wrong_values
from gn_deploy.diagnosis.search import Open
from gn_deploy.diagnosis.stretches import typed
from gn_deploy.errors import GnDeployError
from gn_deploy.graph.cut import cut
from gn_deploy.parity.cases import Array

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """``model`` on ``feeds`` gives ``output`` wrong.

    1. ``truth`` takes the same inputs; in float64 it says what is right. It is ``model`` itself when who runs it is at
       fault, the same part of the reference when what is written is.
    2. Both have one output, by the same place if not by the same name.
    """

    model: "ir.Model"
    truth: "ir.Model"
    feeds: dict[str, Array]
    types: str

    @property
    def output(self) -> str:
        return str(self.model.graph.outputs[0].name)

    @property
    def nodes(self) -> "list[ir.Node]":
        return list(self.model.graph)


def piece(model: "ir.Model", feeds: Mapping[str, Array], output: str, types: str) -> Piece:
    """The nodes of ``model`` that make ``output`` of those ``feeds`` that they need."""
    known = {str(v.name) for v in model.graph.inputs} | {str(v.name) for n in model.graph for v in n.outputs}
    region = cut(model, [n for n in feeds if n in known], [output])
    return plain(region, region, feeds, types)


def plain(model: "ir.Model", truth: "ir.Model", feeds: Mapping[str, Array], types: str) -> Piece:
    """Without inputs that neither reads, and with the types of the feeds where the file has none."""
    read = {str(v.name) for m in (model, truth) for v in m.graph.inputs if v.uses() or v.is_graph_output()}
    for m in (model, truth):
        for value in [v for v in m.graph.inputs if str(v.name) not in read]:
            m.graph.inputs.remove(value)
        typed(m, feeds)
    return Piece(model, truth, {n: a for n, a in feeds.items() if n in read}, types)


def sized(model: "ir.Model", feeds: Mapping[str, Array]) -> "ir.Model":
    """A clone for inputs of these very shapes; those that were written down of values in between are forgotten."""
    import onnx_ir as ir

    clone = model.clone()
    for node in clone.graph:
        for value in node.outputs:
            value.shape = None
    for value in clone.graph.inputs:
        value.shape = ir.Shape(list(feeds[str(value.name)].shape))
    return clone


def shows(what: Piece, opened: Open, limit: float) -> Wrong | None:
    """How wrong the piece is when it is run by itself; None when it is right, refused, or cannot be judged."""
    try:
        session = opened(what.model)
        try:
            answer = session.run({str(v.name): what.feeds[str(v.name)] for v in what.model.graph.inputs})
        finally:
            session.close()
        theirs = {str(what.truth.graph.outputs[0].name): answer[what.output]}
        feeds = {str(v.name): what.feeds[str(v.name)] for v in what.truth.graph.inputs}
        found = wrong_values(what.truth, feeds, theirs, what.types, limit)
    except (GnDeployError, KeyError):
        return None
    return found[0] if found else None
