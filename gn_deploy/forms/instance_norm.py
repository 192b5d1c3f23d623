"""Reshape to (N, G, -1), InstanceNormalization, Reshape back, Mul, Add: what torch writes below opset 21."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from gn_deploy.decision import Decision, Rejected
from gn_deploy.forms.base import DTYPES, Applied, GroupNormSite, NearMiss, complete, known_rank, named, per_group
from gn_deploy.forms.base_write import apply_affine, enter, grouped, leave, ungrouped
from gn_deploy.graph.facts import Facts
from gn_deploy.graph.splice import Builder
from gn_deploy.spec import GroupNormSpec
from gn_deploy.views import GroupView, group_views


class InstanceNorm:
    """InstanceNormalization over the groups as if they were channels.

    The op does not say in which type the statistics are taken; every known kernel takes them in float32 or wider.
    """

    name = "instance_norm"
    fuses: frozenset[str] = frozenset()
    roots: Sequence[str] = ("InstanceNormalization",)

    def read(self, node: ir.Node, facts: Facts) -> GroupNormSite | NearMiss | None:
        if node.domain or len(node.inputs) != 3 or node.inputs[0] is None:
            return None
        scale, bias = (facts.constant(v) if facts.element(v) is None else facts.element(v) for v in node.inputs[1:])
        rank = facts.rank(node.inputs[0])
        if rank is None or rank < 3:
            return NearMiss(named(node), self.name, f"the shape of '{node.inputs[0].name}' is not known", 1)

        def applied(view: GroupView) -> Applied | Rejected:
            if scale is None or bias is None:
                return Rejected("scale or bias of the InstanceNormalization are known only at run time")
            if not {scale.size, bias.size} <= {1, view.num_groups}:
                return Rejected(f"scale has {scale.size} elements and bias {bias.size} for {view.num_groups} groups")
            scales, biases = (np.broadcast_to(a.reshape(-1), view.num_groups) for a in (scale, bias))
            return per_group(scales, view), per_group(biases, view)

        return complete(
            self.name,
            node,
            group_views(node.inputs[0], tuple(range(2, rank)), facts),
            facts,
            epsilon=node.attributes.get_float("epsilon", 1e-5),
            stash="float64" if facts.dtype(node.inputs[0]) == ir.DataType.DOUBLE else None,
            applied=applied,
        )

    def write(self, site: GroupNormSite, builder: Builder) -> ir.Value:
        x = enter(site, builder)
        dtype, groups = DTYPES[site.spec.dtype], site.spec.num_groups
        one = builder.constant(np.ones(groups, dtype.numpy()), "ones", dtype)
        zero = builder.constant(np.zeros(groups, dtype.numpy()), "zeros", dtype)
        rows = grouped(site, x, builder)
        attributes = {"epsilon": site.spec.epsilon}
        normalized = builder.op("InstanceNormalization", [rows, one, zero], attributes, dtype=site.input.dtype)
        return leave(site, apply_affine(site, ungrouped(site, normalized, x, builder), builder), builder)

    def legal(self, spec: GroupNormSpec, opset: int) -> Decision:
        if spec.dtype == "bfloat16" and opset < 22:
            return Rejected(f"InstanceNormalization takes bfloat16 only since opset 22, the model has {opset}")
        return known_rank(spec)

    def min_opset(self, spec: GroupNormSpec) -> int:
        return 22 if spec.dtype == "bfloat16" else 7


FORM = InstanceNorm()
