"""Fused Group Normalization nodes in NumPy: com.microsoft's, NVIDIA's plugins and our own; no CPU runtime has them."""

from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun

from gn_deploy.forms import nvidia_plugin
from gn_deploy.plugin.node import DOMAIN
from gn_deploy.reference import activate
from gn_deploy.runtimes.base import Array
from gn_deploy.runtimes.reference_ops import standardized, widened
from gn_deploy.spec import Activation

_MICROSOFT = "com.microsoft"
_NODES = (
    *((_MICROSOFT, name) for name in ("GroupNorm", "SkipGroupNorm")),
    *((domain, name) for domain in nvidia_plugin.DOMAINS for name in ("GroupNorm", "GroupNormalizationPlugin")),
    (DOMAIN, "GroupNorm"),
    *((domain, "SkipGroupNorm") for domain in (DOMAIN, "trt.plugins")),
)


class _Fused(OpRun):
    """y, and the sum with the residual when the node gives it, both in x's type.

    In between everything is float32 (float64 for a float64 x), as those kernels compute; two passes. The inputs after
    x, scale and bias are the residual and either a bias per channel (com.microsoft) or the modulation (our own, where a
    zero stands for what is not there).
    """

    def _run(self, x: Array, scale: Array, bias: Array, *others: Array | None, **attributes: Any) -> tuple[Array, ...]:
        last = bool(attributes.get("channels_last", self.op_domain == _MICROSOFT))
        groups = attributes.get("groups", attributes.get("num_groups", nvidia_plugin.GROUPS))
        epsilon = attributes.get("epsilon", attributes.get("eps", 1e-5))
        along = [-1 if i == (x.ndim - 1 if last else 1) else 1 for i in range(x.ndim)]

        def spread(v: Array | None) -> Array | None:
            """As it is broadcast against x: a matrix is (N, C)."""
            return None if v is None else widened(v if v.ndim != 2 else v.reshape(len(v), *along[1:]))

        residual, *rest = map(spread, (*others, None, None, None)[:3])
        total = widened(x)
        if residual is not None:
            total = total + residual
        if self.op_domain == _MICROSOFT and rest[0] is not None:
            total = total + rest[0].reshape(along)
        # NumPy sums pairwise along memory only; on a strided view it adds one row after another
        first = np.ascontiguousarray(np.moveaxis(total, -1, 1)) if last else total
        z, _, _ = standardized(first.reshape(first.shape[0], groups, -1), (2,), epsilon)
        y = np.moveaxis(z.reshape(first.shape), 1, -1) if last else z.reshape(first.shape)
        y = y * widened(scale).reshape(along) + widened(bias).reshape(along)
        if self.op_domain != _MICROSOFT:
            y = y if rest[0] is None else y * (1 + rest[0])
            y = y if rest[1] is None else y + rest[1]
        y = activate(y.astype(np.float64), _activation(attributes))
        return (y.astype(x.dtype), total.astype(x.dtype))[: len(self.onnx_node.output)]


def _activation(attributes: dict[str, Any]) -> Activation:
    told = attributes.get("activation", attributes.get("bSwish", 0))
    if isinstance(told, str):
        return Activation(told)
    return Activation.SILU if told else Activation.NONE


OPS: list[type[OpRun]] = [type(name, (_Fused,), {"op_domain": domain}) for domain, name in _NODES]
