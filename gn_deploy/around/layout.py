"""Transposes around a normalization: x is channels last, and is turned to channels first and back."""

from dataclasses import replace

from gn_deploy.forms.base import GroupNormSite
from gn_deploy.graph.facts import Facts
from gn_deploy.graph.nodes import sole_consumer
from gn_deploy.graph.passing import to_first, to_last, transposes


def with_transposes(site: GroupNormSite, facts: Facts) -> GroupNormSite | None:
    """The site from x (N, ..., C) to y (N, ..., C); None when no such pair of Transposes stands around it."""
    rank = site.spec.rank
    before, after = site.input.producer(), sole_consumer(site.output)
    if rank is None or rank < 3 or site.spec.channel_axis != 1 or site.operands:
        return None
    if not transposes(before, to_first(rank)) or not transposes(after, to_last(rank)):
        return None
    if after.graph is not site.graph:
        return None  # inside a branch that may not be taken
    x, y = before.inputs[0], after.outputs[0]
    assert x is not None
    spec = replace(site.spec, channel_axis=-1)
    return replace(site, spec=spec, input=x, output=y, nodes=(before, *site.nodes, after), inner=site)
