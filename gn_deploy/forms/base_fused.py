"""Reading one node that computes a Group Normalization and more: activation, residual, modulation."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from gn_deploy.forms.base import GroupNormSite, NearMiss, Parameter, complete
from gn_deploy.graph.facts import Facts
from gn_deploy.spec import Activation
from gn_deploy.views import GroupView

_HALF = ("float16", "bfloat16")


def read_fused(
    form: str,
    node: ir.Node,
    facts: Facts,
    *,
    groups: int,
    epsilon: float,
    activation: Activation = Activation.NONE,
    channel_axis: int = 1,
    operands: Mapping[str, ir.Value | None] | None = None,
) -> GroupNormSite | NearMiss:
    """``node`` reads x, scale (C,) and bias (C,) first, and computes all of it in float32 before it rounds to x's type.

    Absent ``operands`` are None. A second output is the sum with the residual.
    """
    x, *parameters = node.inputs[:3]
    shape = facts.shape(x)
    channels = shape[channel_axis].known if shape is not None and len(shape) > 1 else None
    lengths = [None if (s := facts.shape(p)) is None or len(s) != 1 else s[0].known for p in parameters]
    channels = channels or next((n for n in lengths if n is not None), None)
    if x is None or channels is None or groups < 1 or any(n not in (channels, None) for n in lengths):
        told = f"scale and bias of {lengths} elements for {channels} channels in {groups} groups"
        return NearMiss(node.name or str(node.outputs[0].name), form, told, 1)
    held = [None if p is None else _unless_neutral(p, n, facts) for p, n in zip(parameters, (1.0, 0.0), strict=False)]
    scale, bias = [*held, None, None][:2]
    view = GroupView(x, shape or (), groups, channels, channel_axis, ())
    site = complete(form, node, [view], facts, epsilon=epsilon, applied=lambda _view: (scale, bias), closed=True)
    if isinstance(site, NearMiss):
        return site
    found = {name: value for name, value in (operands or {}).items() if value is not None}
    spec = replace(
        site.spec,
        activation=activation,
        residual="residual" in found,
        scale_shift=any(name.startswith("modulation") for name in found),
        wide_affine=site.spec.dtype in _HALF,
    )
    sums = [v for v in node.outputs[1:2] if v.uses() or v.is_graph_output()]
    return replace(site, spec=spec, operands=found, sum=sums[0] if sums else None)


def _unless_neutral(value: ir.Value, neutral: float, facts: Facts) -> Parameter | None:
    array = facts.constant(value)
    return None if array is not None and bool(np.all(array == neutral)) else Parameter(array, value)
