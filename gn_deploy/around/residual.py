"""A tensor added to x before the statistics: the skip connection of residual blocks."""

from dataclasses import replace

import onnx_ir as ir

from gn_deploy.forms.base import GroupNormSite
from gn_deploy.graph.dims import ONE, Shape
from gn_deploy.graph.facts import Facts
from gn_deploy.graph.nodes import is_plain
from gn_deploy.graph.splice import dying_with


def with_residual(site: GroupNormSite, facts: Facts) -> GroupNormSite | None:
    """The site from the two addends on; None when its input is not such a sum.

    The residual has x's shape or is (N, C, 1, ...), one number per sample and channel; it is not a constant. ``sum``
    is told when others read it, unless a run-time operand might itself be computed from it or it is an outer graph's.
    """
    node = site.input.producer()
    if site.spec.residual or node is None or node.op_type != "Add" or not is_plain(node) or len(node.inputs) != 2:
        return None
    whole = facts.shape(site.input)
    a, b = node.inputs
    if whole is None or len(whole) < 3 or a is None or b is None or a is b:
        return None
    last = site.output.producer()
    gone = dying_with([last] if last is not None else [], {site.input, *site.runtime_inputs})  # not what comes before
    shared = site.input.is_graph_output() or any(use.node not in gone for use in site.input.uses())
    for x, residual in ((a, b), (b, a)):
        if facts.shape(x) == whole and _fits(residual, whole, site.spec.channel_axis, facts) and not _fixed(x, facts):
            return replace(
                site,
                spec=replace(site.spec, residual=True),
                input=x,
                nodes=(node, *site.nodes),
                operands={**site.operands, "residual": residual},
                sum=site.input if shared and not site.runtime_inputs and node.graph is site.graph else None,
                inner=site,
            )
    return None


def _fits(residual: ir.Value, whole: Shape, channel_axis: int, facts: Facts) -> bool:
    shape = facts.shape(residual)
    if shape is None or _fixed(residual, facts):
        return False
    axes = (0, channel_axis % len(whole))
    return shape == whole or shape == tuple(d if i in axes else ONE for i, d in enumerate(whole))


def _fixed(value: ir.Value, facts: Facts) -> bool:
    """Whether a value is the same in every run."""
    return value.is_initializer() or facts.constant(value) is not None
