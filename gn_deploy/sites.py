"""Every Group Normalization in a model: in the main graph, in every subgraph and in every function."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from gn_deploy.around.look import look_around
from gn_deploy.forms import FORMS
from gn_deploy.forms.base import Form, GroupNormSite, NearMiss
from gn_deploy.graph.facts import Facts
from gn_deploy.graph.io import paused_gc
from gn_deploy.graph.nodes import is_plain
from gn_deploy.graph.subgraphs import subgraphs
from gn_deploy.pieces import joined
from gn_deploy.plugin.node import DOMAIN as PLUGIN
from gn_deploy.registry import Unavailable

_DEFAULTS_SINCE = 4  # IR version: before it, every initializer had to be an input as well and none was a default


@dataclass(frozen=True, slots=True)
class Found:
    """What ``find`` found, in graph order."""

    sites: tuple[GroupNormSite, ...]
    near_misses: tuple[NearMiss, ...]


def find(model: ir.Model) -> Found:
    """All sites and near misses of ``model``, which is only read; best after ``graph.normalize``.

    A site comes with what stands around it and provably belongs to it, layer by layer (``GroupNormSite.layers``).
    Sites may share what leads to the normalization (a reshape, a mean) but no node from there on; the first form of
    the registry that explains it wins. A function is read at the opset it imports.
    Raises InputError for GroupNormalization nodes that ONNX does not allow and whose meaning cannot be guessed.
    """
    main = Facts(opset_of(model), model.graph.inputs, defaults=model.ir_version >= _DEFAULTS_SINCE)
    functions = [f for f in model.functions.values() if f.domain != PLUGIN]  # whose nodes are sites, not their bodies
    bodies = [(model.graph, main), *((f.graph, Facts(opset_of(f))) for f in functions)]
    forms = _by_root()
    sites: list[tuple[GroupNormSite, Facts]] = []
    misses: list[NearMiss] = []
    claimed: set[ir.Node] = set()
    touched: set[ir.Node] = set()
    with paused_gc():
        for node, facts in ((node, facts) for body, facts in bodies for node in _nodes(body)):
            for form in forms.get(node.op_type, ()):
                if node in claimed or (facts is not main and not is_plain(node)):
                    break
                result = form.read(node, facts)
                if isinstance(result, NearMiss):
                    misses.append(result)
                elif result is not None:
                    own = _from(node, result)
                    if claimed.isdisjoint(result.nodes) and touched.isdisjoint(own):
                        claimed.update(own)
                        touched.update(result.nodes)
                        facts.ends.add(result.output)
                        sites.append((result, facts))
        sites = joined(sites)
        touched.update(node for site, _ in sites for node in site.nodes)
        whole = tuple(look_around(site, facts, touched) for site, facts in sites)
    names = {site.name for site in whole}
    return Found(whole, tuple(m for m in misses if m.node not in names))


def opset_of(model: ir.Model | ir.Function) -> int:
    """Version of the ONNX domain the model, or one of its functions, imports; 1 when it does not say."""
    return model.opset_imports.get("", model.opset_imports.get("ai.onnx", 1))


def _from(norm: ir.Node, site: GroupNormSite) -> set[ir.Node]:
    """The normalizing node and the nodes of the site after it."""
    own = {norm}
    for node in site.nodes:
        if any(v is not None and v.producer() in own for v in node.inputs):
            own.add(node)
    return own


def _by_root() -> dict[str, list[Form]]:
    table: dict[str, list[Form]] = defaultdict(list)
    for form in FORMS:
        if not isinstance(form, Unavailable):
            for root in form.roots:
                table[root].append(form)
    return table


def _nodes(body: ir.Graph) -> Iterator[ir.Node]:
    """Every node of a graph and its subgraphs."""
    stack = [body]
    while stack:
        for node in stack.pop():
            yield node
            stack.extend(subgraphs(node))
