"""Transposes around a normalization: x is channels last, and is turned to channels first and back."""

from dataclasses import replace

import onnx_ir as ir

from gn_deploy.forms.base import GroupNormSite
from gn_deploy.graph.facts import Facts
from gn_deploy.graph.nodes import is_plain, sole_consumer
from gn_deploy.graph.passing import to_first, to_last, transposes


def with_transposes(site: GroupNormSite, facts: Facts) -> GroupNormSite | None:
    """The site from x (N, ..., C) to y (N, ..., C); None when no such pair of Transposes stands around it."""
    rank = site.spec.rank
    before, copied = _before(site.input)
    after, copies = _after(site.output)
    if rank is None or rank < 3 or site.spec.channel_axis != 1 or site.operands:
        return None
    if not transposes(before, to_first(rank)) or not transposes(after, to_last(rank)):
        return None
    if after.graph is not site.graph:
        return None  # inside a branch that may not be taken
    x, y = before.inputs[0], after.outputs[0]
    assert x is not None
    spec = replace(site.spec, channel_axis=-1)
    return replace(site, spec=spec, input=x, output=y, nodes=(before, *copied, *site.nodes, *copies, after), inner=site)


def _before(value: ir.Value) -> tuple[ir.Node | None, list[ir.Node]]:
    """The node that made a value, and the Identities after it, which an export that was not cleaned up may hold."""
    node, copies = value.producer(), []
    while node is not None and _copies(node) and node.inputs[0] is not None:
        copies.append(node)
        node = node.inputs[0].producer()
    return node, copies[::-1]


def _after(value: ir.Value) -> tuple[ir.Node | None, list[ir.Node]]:
    """The one node that reads a value, and the Identities before it."""
    node, copies = sole_consumer(value), []
    while node is not None and _copies(node):
        copies.append(node)
        node = sole_consumer(node.outputs[0])
    return node, copies


def _copies(node: ir.Node) -> bool:
    return node.op_type == "Identity" and is_plain(node)
