"""GroupNormalization of ONNX opset 18 to 20: scale and bias per *group*, deprecated since it contradicts the paper."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from gn_deploy.decision import Decision, Rejected
from gn_deploy.forms.base import (
    DTYPES,
    GroupNormSite,
    NearMiss,
    apply_affine,
    enter,
    known_rank,
    leave,
)
from gn_deploy.forms.base_op import read_op
from gn_deploy.graph.facts import Facts
from gn_deploy.graph.splice import Builder
from gn_deploy.spec import GroupNormSpec

_SINCE, _UNTIL = 18, 20


class Native18:
    """Written only on request: per-channel parameters do not fit in it, so they follow as Mul and Add.

    The op does not say in which type the statistics are taken; every known kernel takes them in float32 or wider.
    """

    name = "native18"
    fuses: frozenset[str] = frozenset()
    roots: Sequence[str] = ("GroupNormalization",)

    def read(self, node: ir.Node, facts: Facts) -> GroupNormSite | NearMiss | None:
        """Raises InputError for a node that ONNX does not allow (groups, epsilon, length of scale or bias)."""
        if node.domain or not _SINCE <= facts.opset <= _UNTIL:
            return None
        return read_op(self.name, node, facts, per_group=True, stash=None)

    def write(self, site: GroupNormSite, builder: Builder) -> ir.Value:
        x = enter(site, builder)
        dtype, groups = DTYPES[site.spec.dtype], site.spec.num_groups
        one = builder.constant(np.ones(groups, dtype.numpy()), "ones", dtype)
        zero = builder.constant(np.zeros(groups, dtype.numpy()), "zeros", dtype)
        attributes = {"epsilon": site.spec.epsilon, "num_groups": groups}
        y = builder.op("GroupNormalization", [x, one, zero], attributes, dtype=site.input.dtype)
        return leave(site, apply_affine(site, y, builder), builder)

    def legal(self, spec: GroupNormSpec, opset: int) -> Decision:
        if not _SINCE <= opset <= _UNTIL:
            return Rejected(f"GroupNormalization-18 needs opset {_SINCE} to {_UNTIL}, the model has {opset}")
        return known_rank(spec)

    def min_opset(self, spec: GroupNormSpec) -> int:
        return _SINCE


FORM = Native18()
