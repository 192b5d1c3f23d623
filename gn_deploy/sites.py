"""Every Group Normalization in a model: in the main graph, in every subgraph and in every function."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from gn_deploy.forms import FORMS
from gn_deploy.forms.base import Form, GroupNormSite, NearMiss
from gn_deploy.graph.facts import Facts
from gn_deploy.graph.io import paused_gc
from gn_deploy.registry import Unavailable


@dataclass(frozen=True, slots=True)
class Found:
    """What ``find`` found, in graph order."""

    sites: tuple[GroupNormSite, ...]
    near_misses: tuple[NearMiss, ...]


def find(model: ir.Model) -> Found:
    """All sites and near misses of ``model``, which is only read; best after ``graph.normalize``.

    A node belongs to one site at most; the first form of the registry that explains it wins.
    Raises InputError for GroupNormalization nodes that ONNX does not allow and whose meaning cannot be guessed.
    """
    facts = Facts(opset_of(model), model.graph.inputs)
    forms = _by_root()
    sites: list[GroupNormSite] = []
    misses: list[NearMiss] = []
    claimed: set[ir.Node] = set()
    with paused_gc():
        for node in _nodes(model):
            for form in forms.get(node.op_type, ()):
                if node in claimed:
                    break
                result = form.read(node, facts)
                if isinstance(result, NearMiss):
                    misses.append(result)
                elif result is not None and claimed.isdisjoint(result.nodes):
                    claimed.update(result.nodes)
                    sites.append(result)
    names = {site.name for site in sites}
    return Found(tuple(sites), tuple(m for m in misses if m.node not in names))


def opset_of(model: ir.Model) -> int:
    """Version of the ONNX domain the model imports; 1 when it does not say."""
    return model.graph.opset_imports.get("", model.graph.opset_imports.get("ai.onnx", 1))


def _by_root() -> dict[str, list[Form]]:
    table: dict[str, list[Form]] = defaultdict(list)
    for form in FORMS:
        if not isinstance(form, Unavailable):
            for root in form.roots:
                table[root].append(form)
    return table


def _nodes(model: ir.Model) -> Iterator[ir.Node]:
    """Every node of the main graph, its subgraphs, and the functions."""
    stack = [*(f.graph for f in reversed(model.functions.values())), model.graph]
    while stack:
        for node in stack.pop():
            yield node
            for attribute in node.attributes.values():
                if attribute.type == ir.AttributeType.GRAPH:
                    stack.append(attribute.as_graph())
                elif attribute.type == ir.AttributeType.GRAPHS:
                    stack.extend(attribute.as_graphs())
