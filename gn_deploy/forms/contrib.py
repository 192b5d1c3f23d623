"""GroupNorm and SkipGroupNorm of com.microsoft: ONNX Runtime's fused CUDA kernels, channels last, SiLU inside."""

from collections.abc import Sequence
from dataclasses import replace

import onnx_ir as ir

from gn_deploy.decision import Decision, Rejected
from gn_deploy.forms.base import GroupNormSite, NearMiss, dtype_name, known_rank, named
from gn_deploy.forms.base_fused import read_fused
from gn_deploy.forms.base_write import cast, parameter, ungrouped
from gn_deploy.graph.facts import Facts
from gn_deploy.graph.nodes import says_all, sole_consumer
from gn_deploy.graph.passing import to_first, to_last, transposes
from gn_deploy.graph.splice import Builder
from gn_deploy.spec import Activation, GroupNormSpec

_DOMAIN = "com.microsoft"
_LAST, _FIRST = to_last(4), to_first(4)
_ACTIVATIONS = (Activation.NONE, Activation.SILU)  # by the number in the attribute


class Contrib:
    """x is (N, H, W, C) in float16 or float32, scale and bias are float32 (ONNX Runtime's ContribOperators.md).

    1. Other ranks are written through (N, 1, P, C), channels first through Transposes, bfloat16 through Casts.
    2. SkipGroupNorm adds a residual, and a bias (C,), before the statistics, and gives the sum as a second output.
    """

    name = "contrib"
    fuses = frozenset({"silu", "residual", "wide_affine", "channels_last"})
    roots: Sequence[str] = ("GroupNorm", "SkipGroupNorm")

    def read(self, node: ir.Node, facts: Facts) -> GroupNormSite | NearMiss | None:
        if node.domain != _DOMAIN or len(node.inputs) < 3 or not says_all(node):
            return None
        activation = node.attributes.get_int("activation", 0)
        if activation not in range(len(_ACTIVATIONS)):
            return NearMiss(named(node), self.name, f"activation {activation} is not 0 (none) or 1 (SiLU)", 1)
        skip, bias = [*node.inputs[3:], None, None][:2]
        site = read_fused(
            self.name,
            node,
            facts,
            groups=node.attributes.get_int("groups", 0),
            epsilon=node.attributes.get_float("epsilon", 1e-5),
            activation=_ACTIVATIONS[activation],
            channel_axis=-1 if node.attributes.get_int("channels_last", 1) else 1,
            operands={"residual": skip, "residual_bias": bias},
        )
        return site if isinstance(site, NearMiss) else _unwrapped(site, facts)

    def write(self, site: GroupNormSite, builder: Builder) -> ir.Value:
        spec = site.spec
        inputs = [_entered(site, site.input, builder), *_parameters(site, builder)]
        if spec.residual:
            inputs.append(_entered(site, site.operands["residual"], builder))
        if "residual_bias" in site.operands:
            inputs.append(site.operands["residual_bias"])
        attributes = {
            "activation": _ACTIVATIONS.index(spec.activation),
            "channels_last": 1,
            "epsilon": spec.epsilon,
            "groups": spec.num_groups,
        }
        wanted = 1 + (site.sum is not None)
        name = "SkipGroupNorm" if spec.residual else "GroupNorm"
        y, *total = builder.ops(name, inputs, attributes, outputs=wanted, dtype=inputs[0].dtype, domain=_DOMAIN)
        if site.sum is not None:
            builder.stands_for[site.sum] = _left(site, total[0], builder)
        return _left(site, y, builder)

    def legal(self, spec: GroupNormSpec, opset: int) -> Decision:
        if spec.dtype == "float64":
            return Rejected("com.microsoft GroupNorm takes float16 and float32")
        if spec.residual and (spec.rank != 4 or spec.dtype == "bfloat16"):
            return Rejected("com.microsoft SkipGroupNorm takes rank 4 in float16 and float32")
        if opset < self.min_opset(spec):
            return Rejected(f"Casts of {spec.dtype} need opset {self.min_opset(spec)}, the model has {opset}")
        return known_rank(spec)

    def min_opset(self, spec: GroupNormSpec) -> int:
        return 13 if spec.dtype == "bfloat16" else 7


def _parameters(site: GroupNormSite, builder: Builder) -> list[ir.Value]:
    """Scale and bias, (C,) in float32."""
    wide = replace(site, spec=replace(site.spec, dtype="float32"))
    found = []
    for which in ("scale", "bias"):
        value = parameter(wide, which, [site.spec.num_channels], builder, neutral=True)
        assert value is not None
        known = value.dtype or site.input.dtype
        found.append(cast(value, known, ir.DataType.FLOAT, builder))
    return found


def _entered(site: GroupNormSite, value: ir.Value, builder: Builder) -> ir.Value:
    """(N, C, ...) or (N, ..., C) as (N, H, W, C)."""
    spec, dtype = site.spec, site.input.dtype
    if spec.dtype == "bfloat16":
        dtype = ir.DataType.FLOAT
        value = cast(value, ir.DataType.BFLOAT16, dtype, builder)
    first = spec.channel_axis == 1
    if spec.rank != 4:
        sizes = [0, spec.num_channels, 1, -1] if first else [0, 1, -1, spec.num_channels]
        value = builder.op("Reshape", [value, builder.ints(sizes, "sizes")], dtype=dtype)
    return builder.op("Transpose", [value], {"perm": _LAST}, dtype=dtype) if first else value


def _left(site: GroupNormSite, value: ir.Value, builder: Builder) -> ir.Value:
    """The inverse of ``_entered``."""
    spec, dtype = site.spec, value.dtype
    if spec.channel_axis == 1:
        value = builder.op("Transpose", [value], {"perm": _FIRST}, dtype=dtype)
    if spec.rank != 4 and spec.channel_axis == 1:
        value = ungrouped(site, value, site.input, builder)
    elif spec.rank != 4:
        shape = builder.op("Shape", [site.input], dtype=ir.DataType.INT64)
        value = builder.op("Reshape", [value, shape], dtype=dtype)
    return cast(value, ir.DataType.FLOAT, ir.DataType.BFLOAT16, builder) if spec.dtype == "bfloat16" else value


def _unwrapped(site: GroupNormSite, facts: Facts) -> GroupNormSite:
    """The site with the nodes that ``write`` puts around the operator, where they are there."""
    site = _turned(site, facts)
    if site.operands:
        return site
    site = _without(site, facts, "Reshape", site.spec.dtype)
    return _without(site, facts, "Cast", "bfloat16")


def _turned(site: GroupNormSite, facts: Facts) -> GroupNormSite:
    """The site channels first, where Transposes stand at everything that is channels last."""
    operands = dict(site.operands)
    read, made = [site.input], [v for v in (site.output, site.sum) if v is not None]
    if "residual" in operands and facts.rank(operands["residual"]) == 4:
        read.append(operands["residual"])
    before = [node for v in read if transposes(node := v.producer(), _LAST)]
    after = [node for v in made if transposes(node := sole_consumer(v), _FIRST)]
    if site.spec.channel_axis == 1 or (len(before), len(after)) != (len(read), len(made)):
        return site
    x, *residual = [v for node in before for v in node.inputs if v is not None]
    y, *total = [node.outputs[0] for node in after]
    return replace(
        site,
        spec=replace(site.spec, channel_axis=1),
        input=x,
        output=y,
        nodes=(*before, *site.nodes, *after),
        operands=operands | dict(zip(["residual"], residual, strict=False)),
        sum=next(iter(total), None),
    )


def _without(site: GroupNormSite, facts: Facts, op_type: str, dtype: str) -> GroupNormSite:
    """The site around one more pair of nodes, if they undo each other and leave samples and channels where they are."""
    before, after = site.input.producer(), sole_consumer(site.output)
    if before is None or after is None or not before.op_type == after.op_type == op_type:
        return site
    x, y, axis = before.inputs[0], after.outputs[0], site.spec.channel_axis
    outside, inside = facts.shape(x), facts.shape(site.input)
    if x is None or outside is None or inside is None or facts.shape(y) != outside or len(outside) < 2:
        return site
    kept = (outside[0], outside[axis]) == (inside[0], inside[axis])
    if not kept or dtype_name(facts.dtype(x)) != dtype or facts.dtype(y) != facts.dtype(x):
        return site
    wide = site.spec.wide_affine or op_type == "Cast"
    spec = replace(site.spec, rank=len(outside), dtype=dtype, wide_affine=wide)
    return replace(site, spec=spec, input=x, output=y, nodes=(before, *site.nodes, after))


FORM = Contrib()
