"""Sees the activation after a normalization as part of it: ReLU, and SiLU spelled Sigmoid and Mul, or Swish."""

from dataclasses import replace

import onnx_ir as ir

from gn_deploy.affine import sole_consumer
from gn_deploy.forms.base import GroupNormSite
from gn_deploy.spec import Activation


def fuse_activation(site: GroupNormSite) -> GroupNormSite:
    """The site with ``spec.activation`` and ``epilogue`` set, or unchanged when no activation can be proved.

    1. The activation must be the only reader of the normalized value; whoever else reads it must still find it.
    2. SiLU is y * sigmoid(y) of the *same* y: a gate computed from anything else is not an activation.
    """
    for activation, epilogue in (
        (Activation.RELU, _single(site.output, "Relu")),
        (Activation.SILU, _single(site.output, "Swish") or _sigmoid_mul(site.output)),
    ):
        if epilogue:
            return replace(site, spec=replace(site.spec, activation=activation), epilogue=epilogue)
    return site


def _single(value: ir.Value, op_type: str) -> tuple[ir.Node, ...]:
    node = sole_consumer(value)
    if node is None or node.domain or node.op_type != op_type:
        return ()
    plain = node.attributes.get_float("alpha", 1.0) == 1.0  # Swish-24 is x * sigmoid(alpha * x)
    return (node,) if plain else ()


def _sigmoid_mul(value: ir.Value) -> tuple[ir.Node, ...]:
    readers = {use.node for use in value.uses()}
    if len(readers) != 2 or len(value.uses()) != 2 or value.is_graph_output():
        return ()
    by_type = {node.op_type: node for node in readers if not node.domain}
    sigmoid, mul = by_type.get("Sigmoid"), by_type.get("Mul")
    if sigmoid is None or mul is None or sole_consumer(sigmoid.outputs[0]) is not mul:
        return ()
    return (sigmoid, mul)
