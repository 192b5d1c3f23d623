"""The node of gn_deploy's own TensorRT plugin, read and written, with a function body or without."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeGuard

import numpy as np
import onnx_ir as ir

from gn_deploy.affine import Parameter
from gn_deploy.decision import Decision, Rejected
from gn_deploy.forms.base import DTYPES, GroupNormSite, NearMiss, known_rank, named
from gn_deploy.forms.base_fused import read_fused
from gn_deploy.forms.base_write import cast, parameter
from gn_deploy.graph.dims import ONE
from gn_deploy.graph.facts import Facts
from gn_deploy.graph.nodes import is_plain, says_all
from gn_deploy.graph.splice import Attribute, Builder
from gn_deploy.plugin.function import SINCE, chosen, function, views
from gn_deploy.plugin.node import ATTRIBUTES, DOMAIN, INPUTS, VERSION
from gn_deploy.spec import HALF_DTYPES, Activation, GroupNormSpec

OPERANDS = INPUTS[3:]
_RANKS = (2, 3, 4, 5)


class PluginNode:
    """y = activation((((x + residual) - mean) / std * scale + bias) * (1 + s) + t), all in float32, in one kernel.

    1. Inputs, outputs and attributes are those of ``plugin.node``; the sum with the residual is rounded to x's type.
    2. Scale, bias, s and t are of x's type, all of them float32 where that would round scale or bias.
    3. A residual that is not of x's shape, and an s or t for fewer samples than x, goes through an Expand.
    """

    name: str
    domain: str
    has_body: bool
    fuses = frozenset({"residual", "scale_shift", "wide_affine", "channels_last", *map(str, Activation)}) - {"none"}
    roots: Sequence[str] = ("GroupNorm", "SkipGroupNorm")

    def read(self, node: ir.Node, facts: Facts) -> GroupNormSite | NearMiss | None:
        attributes = node.attributes
        if node.domain != self.domain or len(node.inputs) < 3 or not says_all(node):
            return None
        if attributes.get_string("plugin_namespace", self.domain) != DOMAIN:
            return None  # trt.plugins has NVIDIA's as well
        activation = attributes.get_string("activation", "none")
        if activation not in list(Activation):
            return NearMiss(named(node), self.name, f"activation '{activation}' is not known", 1)
        given = dict(zip(OPERANDS, [*node.inputs[3:], None, None, None], strict=False))
        operands = {k: v for k, v in given.items() if v is not None and attributes.get_int(k, 1) != 0}
        axis = -1 if attributes.get_int("channels_last", 0) else 1
        seen = {name: _unwrapped(name, value, node.inputs[0], axis, facts) for name, value in operands.items()}
        site = read_fused(
            self.name,
            node,
            facts,
            groups=attributes.get_int("num_groups", 0),
            epsilon=attributes.get_float("epsilon", 1e-5),
            activation=Activation(activation),
            channel_axis=axis,
            operands={name: value for name, (value, _) in seen.items()},
        )
        if isinstance(site, NearMiss):
            return site
        around = (wrapping for _, nodes in seen.values() for wrapping in nodes)
        return replace(site, nodes=(*dict.fromkeys(around), *site.nodes))

    def write(self, site: GroupNormSite, builder: Builder) -> ir.Value:
        spec, dtype = site.spec, DTYPES[site.spec.dtype]
        facts = Facts(builder.opset, site.graph.inputs if isinstance(site.graph, ir.Graph) else ())
        flat = spec.rank == 2 and builder.min_rank > 2
        axes = builder.ints([2], "axes") if flat else None
        kind = _parameter_dtype(site)
        wide = replace(site, spec=replace(spec, dtype=kind))
        parameters = [parameter(wide, w, [spec.num_channels], builder, neutral=True) for w in ("scale", "bias")]
        inputs = [site.input, *parameters, _residual(site, facts, builder)]
        inputs += [_per_sample(site, name, DTYPES[kind], facts, builder) for name in OPERANDS[1:]]
        if axes is not None:
            for i in (0, 3) if spec.residual else (0,):
                inputs[i] = builder.op("Unsqueeze", [inputs[i], axes], dtype=dtype)
        op = "SkipGroupNorm" if site.sum is not None else "GroupNorm"
        attributes: dict[str, Attribute] = {**attributes_of(site)}
        if self.has_body:
            attributes |= {**views(spec), **chosen(spec.activation)}
            builder.functions[self.domain, op, ""] = partial(function, op, builder.opset)
        outputs = 2 if site.sum is not None else 1
        results = builder.ops(op, inputs, attributes, outputs=outputs, dtype=dtype, domain=self.domain)
        if axes is not None:
            results = [builder.op("Squeeze", [value, axes], dtype=dtype) for value in results]
        if site.sum is not None:
            builder.stands_for[site.sum] = results[1]
        return results[0]

    def legal(self, spec: GroupNormSpec, opset: int) -> Decision:
        if spec.dtype == "float64":
            return Rejected("the plugin takes float32, float16 and bfloat16")
        if opset < self.min_opset(spec):
            what = "the node's function body" if self.has_body else "what may stand before the node"
            return Rejected(f"{what} needs opset {self.min_opset(spec)}, the model has {opset}")
        if spec.rank not in (None, *_RANKS):
            return Rejected(f"the plugin takes ranks {_RANKS[0]} to {_RANKS[-1]}, the input has {spec.rank}")
        return known_rank(spec)

    def min_opset(self, spec: GroupNormSpec) -> int:
        return SINCE if self.has_body else 15  # Shape of some axes


def attributes_of(site: GroupNormSite) -> Mapping[str, int | float | str]:
    """What the plugin reads, every attribute of it, and where TensorRT finds it."""
    spec = site.spec
    told: dict[str, int | float | str] = {
        "num_groups": spec.num_groups,
        "epsilon": spec.epsilon,
        "activation": str(spec.activation),
        "channels_last": int(spec.channel_axis == -1),
        "residual": int(spec.residual),
        "modulation_scale": int("modulation_scale" in site.operands),
        "modulation_shift": int("modulation_shift" in site.operands),
        "sum": int(site.sum is not None),
    }
    return {**ATTRIBUTES, **told, "plugin_namespace": DOMAIN, "plugin_version": VERSION}


def _parameter_dtype(site: GroupNormSite) -> str:
    dtype = site.spec.dtype
    if dtype not in HALF_DTYPES:
        return dtype
    held = [p for p in (site.scale, site.bias) if p is not None]
    return dtype if all(_fits(p, DTYPES[dtype]) for p in held) else "float32"


def _fits(held: Parameter, dtype: ir.DataType) -> bool:
    """Whether it can be had in that type without rounding."""
    if held.array is None:
        return held.value is not None and held.value.dtype in (None, dtype)
    return bool(np.array_equal(held.array.astype(dtype.numpy()).astype(held.array.dtype), held.array, equal_nan=True))


def _residual(site: GroupNormSite, facts: Facts, builder: Builder) -> ir.Value:
    """Of x's shape; where there is none, a zero."""
    spec, dtype = site.spec, DTYPES[site.spec.dtype]
    if not spec.residual:
        return builder.constant(np.zeros(1, dtype.numpy()), "no_residual", dtype)
    value, x = site.operands["residual"], site.input
    shape = facts.shape(x)
    if facts.rank(value) == 2 != spec.rank:
        value = _as_samples(site, value, builder)
    if "residual_bias" in site.operands:  # of com.microsoft's SkipGroupNorm
        assert spec.rank is not None, "`legal` asks for the rank"
        sizes = [spec.num_channels if i == spec.channel_axis % spec.rank else 1 for i in range(spec.rank)]
        bias = builder.op("Reshape", [site.operands["residual_bias"], builder.ints(sizes, "sizes")], dtype=dtype)
        value = builder.op("Add", [value, bias], dtype=dtype, shape=value.shape)
    if shape is not None and facts.shape(value) == shape:
        return value
    size = builder.op("Shape", [x], dtype=ir.DataType.INT64)
    return builder.op("Expand", [value, size], dtype=dtype, shape=x.shape)


def _per_sample(site: GroupNormSite, name: str, dtype: ir.DataType, facts: Facts, builder: Builder) -> ir.Value:
    """s or t, for as many samples as x has; where there is none, a zero for each channel."""
    value = site.operands.get(name)
    if value is None:
        zeros = np.zeros((1, site.spec.num_channels), dtype.numpy())
        return builder.constant(zeros, f"no_{name.removeprefix('modulation_')}", dtype)
    shape, whole = facts.shape(value), facts.shape(site.input)
    samples = None if shape is None or whole is None else (shape[0], whole[0])
    value = cast(value, facts.dtype(value), dtype, builder)
    if samples is not None and samples[0] == samples[1]:
        return value
    rank = facts.rank(site.operands[name]) or site.spec.rank
    assert rank is not None, "`legal` asks for the rank"
    size = builder.op("Shape", [site.input], {"start": 0, "end": 1}, dtype=ir.DataType.INT64)
    size = builder.op("Concat", [size, builder.ints([1] * (rank - 1), "ones")], {"axis": 0}, dtype=ir.DataType.INT64)
    return builder.op("Expand", [value, size], dtype=dtype)


def _as_samples(site: GroupNormSite, value: ir.Value, builder: Builder) -> ir.Value:
    """(N, C) with axes that broadcast it against x."""
    rank = site.spec.rank
    assert rank is not None, "`legal` asks for the rank"
    sizes = [1] * rank
    sizes[0], sizes[site.spec.channel_axis] = 0, site.spec.num_channels  # 0: as many samples as it has
    return builder.op("Reshape", [value, builder.ints(sizes, "sizes")], dtype=value.dtype)


def _unwrapped(
    name: str, value: ir.Value, x: ir.Value | None, axis: int, facts: Facts
) -> tuple[ir.Value, tuple[ir.Node, ...]]:
    """The operand before what ``write`` puts before it, and the nodes of that."""
    nodes: tuple[ir.Node, ...] = ()
    whole, made, node = None if x is None else facts.shape(x), facts.shape(value), value.producer()
    if _is(node, "Expand") and node.inputs[0] is not None and whole and made:
        inner = facts.shape(node.inputs[0])
        axes = (0, axis % len(whole))
        spread = made == whole and inner == tuple(d if i in axes else ONE for i, d in enumerate(whole))
        repeated = made[0] == whole[0] and inner == (ONE, *made[1:])
        if spread if name == "residual" else repeated:
            value, nodes = node.inputs[0], (node,)
            node = value.producer()
    if name != "residual" and x is not None and _is(node, "Cast") and facts.dtype(value) != facts.dtype(x):
        before = node.inputs[0]
        if before is not None and facts.dtype(before) == facts.dtype(x):
            value, nodes = before, (node, *nodes)
    return value, nodes


def _is(node: ir.Node | None, op_type: str) -> TypeGuard[ir.Node]:
    return node is not None and node.op_type == op_type and is_plain(node)
