"""The op itself, GroupNormalization since ONNX opset 21: scale and bias per channel, statistics in ``stash_type``."""

from collections.abc import Sequence
from dataclasses import replace

import onnx_ir as ir

from gn_deploy.decision import Accepted, Decision, Rejected
from gn_deploy.forms.base import DTYPES, GroupNormSite, NearMiss, dtype_name
from gn_deploy.forms.base_op import by_group, read_op
from gn_deploy.forms.base_write import enter, leave, parameter
from gn_deploy.graph.facts import Facts
from gn_deploy.graph.splice import Builder
from gn_deploy.spec import GroupNormSpec

_SINCE = 21
_NO_EPSILON = (
    "it has no epsilon, so 1e-05 is taken, and one scale and one bias per group, as onnxscript's version converter "
    "leaves it: that drops the epsilon the file had before"
)


class Native:
    name = "native"
    fuses: frozenset[str] = frozenset()
    roots: Sequence[str] = ("GroupNormalization",)

    def read(self, node: ir.Node, facts: Facts) -> GroupNormSite | NearMiss | None:
        """Raises InputError for a node that ONNX does not allow (groups, epsilon, length of scale or bias)."""
        if node.domain or facts.opset < _SINCE:
            return None
        stash = node.attributes.get_int("stash_type", int(ir.DataType.FLOAT))
        site = read_op(self.name, node, facts, per_group=False, stash=dtype_name(ir.DataType(stash)))
        if isinstance(site, NearMiss) or "epsilon" in node.attributes or site.spec.channels_per_group == 1:
            return site
        repeated = by_group(site, "scale") is not None and by_group(site, "bias") is not None
        return replace(site, doubt=_NO_EPSILON) if repeated else site

    def write(self, site: GroupNormSite, builder: Builder) -> ir.Value:
        x = enter(site, builder)
        flat = site.spec.rank == 2 and builder.min_rank > 2
        if flat:
            axes = builder.ints([2], "axes")
            x = builder.op("Unsqueeze", [x, axes], dtype=site.input.dtype)
        channels = [site.spec.num_channels]
        scale = parameter(site, "scale", channels, builder, neutral=True)
        bias = parameter(site, "bias", channels, builder, neutral=True)
        y = builder.op(
            "GroupNormalization",
            [x, scale, bias],
            {
                "epsilon": site.spec.epsilon,
                "num_groups": site.spec.num_groups,
                "stash_type": int(DTYPES[site.spec.stash_dtype]),
            },
            dtype=site.input.dtype,
        )
        return leave(site, builder.op("Squeeze", [y, axes], dtype=site.input.dtype) if flat else y, builder)

    def legal(self, spec: GroupNormSpec, opset: int) -> Decision:
        if opset < _SINCE:
            return Rejected(f"GroupNormalization with scale per channel needs opset {_SINCE}, the model has {opset}")
        if spec.rank is None and (spec.channel_axis == -1):
            return Rejected("the rank of the input is not known")
        return Accepted()

    def min_opset(self, spec: GroupNormSpec) -> int:
        return _SINCE


FORM = Native()
