"""The node of gn_deploy's own TensorRT plugin, ``gn_deploy::GroupNorm``, where it stands without a function body."""

from collections.abc import Sequence

import onnx_ir as ir

from gn_deploy.forms.base import GroupNormSite, NearMiss, ReadOnly, named
from gn_deploy.forms.base_fused import read_fused
from gn_deploy.graph.facts import Facts
from gn_deploy.graph.nodes import says_all
from gn_deploy.spec import Activation

DOMAIN = "gn_deploy"
_OPERANDS = ("residual", "modulation_scale", "modulation_shift")


class Plugin(ReadOnly):
    """y = activation((((x + residual) - mean) / std * scale + bias) * (1 + s) + t), all in float32, in one kernel.

    1. Inputs: x, scale (C,), bias (C,), then optional residual, s and t (N, C, 1, ...). Outputs: y, and the sum.
    2. Attributes: num_groups, epsilon, activation (a value of ``Activation``), channels_last.
    """

    name = "plugin"
    why = "there is no plugin library yet that runs the node"
    roots: Sequence[str] = ("GroupNorm",)

    def read(self, node: ir.Node, facts: Facts) -> GroupNormSite | NearMiss | None:
        attributes = node.attributes
        if node.domain != DOMAIN or len(node.inputs) < 3 or not says_all(node):
            return None
        activation = attributes.get_string("activation", "none")
        if activation not in list(Activation):
            return NearMiss(named(node), self.name, f"activation '{activation}' is not known", 1)
        return read_fused(
            self.name,
            node,
            facts,
            groups=attributes.get_int("num_groups", 0),
            epsilon=attributes.get_float("epsilon", 1e-5),
            activation=Activation(activation),
            channel_axis=-1 if attributes.get_int("channels_last", 0) else 1,
            operands=dict(zip(_OPERANDS, [*node.inputs[3:], None, None, None], strict=False)),
        )


FORM = Plugin()
