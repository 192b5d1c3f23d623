"""GroupNormalizationPlugin and GroupNorm of NVIDIA's TensorRT plugin library, and the nodes that call them."""

from collections.abc import Sequence

import onnx_ir as ir

from gn_deploy.forms.base import GroupNormSite, NearMiss, ReadOnly
from gn_deploy.forms.base_fused import read_fused
from gn_deploy.graph.facts import Facts
from gn_deploy.graph.nodes import says_all
from gn_deploy.plugin.node import DOMAIN
from gn_deploy.spec import Activation

GROUPS = 32  # of the GroupNorm plugin, which has no attribute for it (TensorRT, groupNormPlugin.cpp)
DOMAINS = ("", "trt.plugins", "com.nvidia", "nvidia")


class NvidiaPlugin(ReadOnly):
    """Read only: nobody but TensorRT runs these, and TensorRT's native op does more than they do.

    1. GroupNormalizationPlugin: float32 (N, C, H, W), attributes ``eps`` and ``num_groups``; deprecated since 10.12.
    2. GroupNorm, of the Stable Diffusion demo: float16, float32 scale and bias, 32 groups, SiLU with ``bSwish``.
    """

    name = "nvidia_plugin"
    why = "NVIDIA's plugin nodes are only read: deprecated, and TensorRT's native op does more"
    roots: Sequence[str] = ("GroupNormalizationPlugin", "GroupNorm")

    def read(self, node: ir.Node, facts: Facts) -> GroupNormSite | NearMiss | None:
        attributes = node.attributes
        if node.domain not in DOMAINS or len(node.inputs) < 3 or not says_all(node):
            return None
        if attributes.get_string("plugin_namespace", "") == DOMAIN:
            return None
        epsilon = attributes.get_float("epsilon", attributes.get_float("eps", 1e-5))
        swish = bool(attributes.get_int("bSwish", 0))
        return read_fused(
            self.name,
            node,
            facts,
            groups=GROUPS if node.op_type == "GroupNorm" else attributes.get_int("num_groups", 0),
            epsilon=epsilon,
            activation=Activation.SILU if swish else Activation.NONE,
        )


FORM = NvidiaPlugin()
