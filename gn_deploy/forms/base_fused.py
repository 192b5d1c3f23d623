"""Reading one node that computes a Group Normalization and more: activation, residual, modulation."""

from collections.abc import Mapping
from dataclasses import replace

import onnx_ir as ir

from gn_deploy.affine import unless_neutral
from gn_deploy.forms.base import GroupNormSite, NearMiss, Parameter, complete, named
from gn_deploy.graph.facts import Facts
from gn_deploy.spec import HALF_DTYPES, Activation
from gn_deploy.views import GroupView


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
    lengths = [_length(value, facts) for value in parameters]
    if channels is None and (shape is None or len(shape) > 1):
        channels = next((n for n in lengths if n is not None), None)

    def miss(reason: str) -> NearMiss:
        return NearMiss(named(node), form, reason, 1)

    if x is None or channels is None or groups < 1 or any(n not in (channels, None) for n in lengths):
        return miss(f"scale and bias of {lengths} elements for {channels} channels in {groups} groups")
    found = {name: value for name, value in (operands or {}).items() if value is not None}
    for name, value in found.items():
        if facts.dtype(value) not in (None, facts.dtype(x)):
            return miss(f"{name} '{value.name}' is {facts.dtype(value)}, x is {facts.dtype(x)}")
        if name != "residual_bias" and not _meets(value, None if shape is None else len(shape), facts):
            return miss(f"the ranks of x and {name} '{value.name}' are not known to fit")
    held = [unless_neutral(_parameter(p, facts), n) for p, n in zip(parameters, (1.0, 0.0), strict=False)]
    scale, bias = [*held, None, None][:2]
    view = GroupView(x, shape or (), groups, channels, channel_axis, ())
    site = complete(form, node, [view], facts, epsilon=epsilon, applied=lambda _view: (scale, bias), closed=True)
    if isinstance(site, NearMiss):
        return site
    spec = replace(
        site.spec,
        activation=activation,
        residual="residual" in found,
        scale_shift=any(name.startswith("modulation") for name in found),
        wide_affine=site.spec.dtype in HALF_DTYPES,
    )
    sums = [v for v in node.outputs[1:2] if v.uses() or v.is_graph_output()]
    return replace(site, spec=spec, operands=found, sum=sums[0] if sums else None)


def _length(parameter: ir.Value | None, facts: Facts) -> int | None:
    """How many numbers it holds; 0 for what is known at run time and does not lie along one axis."""
    array = facts.constant(parameter)
    if array is not None:
        return array.size
    shape = facts.shape(parameter)
    return None if shape is None else shape[0].known if len(shape) == 1 else 0


def _meets(operand: ir.Value, rank: int | None, facts: Facts) -> bool:
    """Whether it is broadcast against x by its own shape, or is (N, C) in the file's own words."""
    own = facts.rank(operand)
    return rank is not None and (own == rank or (own == 2 and operand.shape is not None))


def _parameter(value: ir.Value | None, facts: Facts) -> Parameter | None:
    array = facts.constant(value)
    return None if value is None else Parameter(None if array is None else array.reshape(-1), value)
