"""Adaptive Group Normalization: y * (1 + s) + t with a scale and a shift per sample and channel (FiLM)."""

from dataclasses import replace

import onnx_ir as ir

from gn_deploy.forms.base import GroupNormSite
from gn_deploy.graph.dims import ONE
from gn_deploy.graph.facts import Facts
from gn_deploy.graph.nodes import is_plain, sole_consumer
from gn_deploy.spec import Activation


def with_modulation(site: GroupNormSite, facts: Facts) -> GroupNormSite | None:
    """The site with the Mul by 1 + s, the Add of t, or both, that follow; None when neither is there.

    s and t are (N, C, 1, ...) or, channels last, (N, 1, ..., C), computed at run time; anything that differs along a
    spatial axis (SpatialNorm) is not.
    """
    if site.spec.activation is not Activation.NONE or site.spec.scale_shift:
        return None
    operands = dict(site.operands)
    nodes: list[ir.Node] = []
    y = site.output
    if (node := _reader(y, "Mul", site)) is not None:
        gain = _other(node, y)
        told = None if gain is None else _one_plus(gain, site, facts)
        if told is not None:
            operands["modulation_scale"], adding = told
            nodes += [*adding, node]
            y = node.outputs[0]
            if (node := _reader(y, "Mul", site)) is not None and facts.uniform(_other(node, y)) == 1.0:
                nodes.append(node)  # the factor that TorchScript writes for torch.addcmul
                y = node.outputs[0]
    if (node := _reader(y, "Add", site)) is not None:
        shift = _other(node, y)
        if shift is not None and _per_sample(shift, site, facts):
            operands["modulation_shift"] = shift
            nodes.append(node)
            y = node.outputs[0]
    if not nodes:
        return None
    spec = replace(site.spec, scale_shift=True)
    return replace(site, spec=spec, output=y, nodes=(*site.nodes, *nodes), operands=operands, inner=site)


def _reader(value: ir.Value, op_type: str, site: GroupNormSite) -> ir.Node | None:
    node = sole_consumer(value)
    fits = node is not None and node.op_type == op_type and is_plain(node) and node.graph is site.graph
    return node if fits else None


def _other(node: ir.Node, value: ir.Value) -> ir.Value | None:
    return node.inputs[1] if node.inputs[0] is value else node.inputs[0]


def _one_plus(gain: ir.Value, site: GroupNormSite, facts: Facts) -> tuple[ir.Value, tuple[ir.Node, ...]] | None:
    """s and the nodes of their own that add one to it."""
    node = gain.producer()
    if node is None or node.op_type != "Add" or not is_plain(node) or len(node.inputs) != 2:
        return None
    for s, one in (node.inputs, reversed(node.inputs)):
        adds_one = facts.uniform(one) == 1.0 and facts.shape(gain) == facts.shape(s)
        if s is not None and adds_one and _per_sample(s, site, facts):
            return s, ((node,) if sole_consumer(gain) is not None else ())
    return None


def _per_sample(value: ir.Value, site: GroupNormSite, facts: Facts) -> bool:
    """Whether a value known only at run time is one number per sample and channel, broadcast over space."""
    shape, y = facts.shape(value), facts.shape(site.output)
    if shape is None or y is None or len(shape) != len(y) or len(y) < 3 or facts.constant(value) is not None:
        return False
    channels = site.spec.channel_axis % len(y)
    narrow = tuple(d if i == channels else ONE for i, d in enumerate(y))
    return shape[1:] == narrow[1:] and shape[0] in (y[0], ONE)
