"""Transposes around a normalization: x is channels last, and is turned to channels first and back."""

from dataclasses import replace

import onnx_ir as ir

from gn_deploy.affine import sole_consumer
from gn_deploy.forms.base import GroupNormSite
from gn_deploy.graph.facts import Facts, is_plain


def with_transposes(site: GroupNormSite, facts: Facts) -> GroupNormSite | None:
    """The site from x (N, ..., C) to y (N, ..., C); None when no such pair of Transposes stands around it."""
    rank = site.spec.rank
    before, after = site.input.producer(), sole_consumer(site.output)
    if rank is None or rank < 3 or site.spec.channel_axis != 1 or site.operands or before is None or after is None:
        return None
    if _perm(before) != [0, rank - 1, *range(1, rank - 1)] or _perm(after) != [0, *range(2, rank), 1]:
        return None
    if after.graph is not site.graph:
        return None  # inside a branch that may not be taken
    x, y = before.inputs[0], after.outputs[0]
    assert x is not None
    spec = replace(site.spec, channel_axis=-1)
    return replace(site, spec=spec, input=x, output=y, nodes=(before, *site.nodes, after), inner=site)


def _perm(node: ir.Node) -> list[int] | None:
    plain = node.op_type == "Transpose" and is_plain(node) and "perm" in node.attributes
    return list(node.attributes["perm"].as_ints()) if plain else None
