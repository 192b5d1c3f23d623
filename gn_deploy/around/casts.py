"""A pair of Casts around a normalization: half precision outside, scale and bias applied in float32 inside."""

from dataclasses import replace

import onnx_ir as ir

from gn_deploy.forms.base import GroupNormSite, dtype_name
from gn_deploy.graph.facts import Facts
from gn_deploy.graph.nodes import is_plain, sole_consumer
from gn_deploy.spec import HALF_DTYPES, Activation


def with_casts(site: GroupNormSite, facts: Facts) -> GroupNormSite | None:
    """The site from the half-precision value before the first Cast to the one after the second (LDM's GroupNorm32,
    autocast); None when there is no such pair around it."""
    before, after = site.input.producer(), sole_consumer(site.output)
    if before is None or after is None or not _is_cast(before) or not _is_cast(after):
        return None
    if after.graph is not site.graph:
        return None  # inside a branch that may not be taken
    inside = site.spec
    if inside.dtype != "float32" or inside.activation is not Activation.NONE or site.operands:
        return None  # an activation or a modulation in float32 would be written in half precision
    x, y = before.inputs[0], after.outputs[0]
    assert x is not None
    outside = dtype_name(facts.dtype(x))
    if outside not in HALF_DTYPES or dtype_name(facts.dtype(y)) != outside:
        return None
    spec = replace(inside, dtype=outside, wide_affine=True)
    return replace(site, spec=spec, input=x, output=y, nodes=(before, *site.nodes, after), inner=site)


def _is_cast(node: ir.Node) -> bool:
    return node.op_type == "Cast" and is_plain(node)
