"""LayerNormalization over each group's elements; for num_groups = 1 directly over (C, ...), as TensorRT needs it."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from gn_deploy.affine import per_channel
from gn_deploy.decision import Decision, Rejected
from gn_deploy.forms.base import (
    DTYPES,
    Applied,
    GroupNormSite,
    NearMiss,
    Parameter,
    complete,
    dtype_name,
    known_rank,
    named,
)
from gn_deploy.forms.base_write import apply_affine, enter, grouped, leave, parameter, ungrouped
from gn_deploy.graph.derive import broadcast
from gn_deploy.graph.facts import Facts
from gn_deploy.graph.passing import to_last, transposes
from gn_deploy.graph.splice import Builder
from gn_deploy.spec import GroupNormSpec
from gn_deploy.views import GroupView, group_views

_SINCE = 17
_UNCHANGED = ("Identity", "Cast", "Dropout")  # what may stand between a Reshape and the norm
_STASHES = ("float32", "bfloat16")  # what LayerNormalization-17 allows as stash_type


class LayerNorm:
    """num_groups = 1: LayerNormalization(axis=1), scale and bias (C, 1, ...); else rows (N, G, -1), axis 2, Mul, Add.

    TensorRT compiles GroupNormalization(num_groups=1) as instance normalization (NVIDIA/TensorRT#4756), this rightly.
    """

    name = "layer_norm"
    fuses: frozenset[str] = frozenset()
    roots: Sequence[str] = ("LayerNormalization",)

    def read(self, node: ir.Node, facts: Facts) -> GroupNormSite | NearMiss | None:
        x = node.inputs[0]
        if node.domain or x is None or any(v.uses() or v.is_graph_output() for v in node.outputs[1:]):
            return None
        shape = facts.shape(x)
        axis = node.attributes.get_int("axis", -1)
        producer = x.producer()
        while producer is not None and producer.op_type in _UNCHANGED and (before := producer.inputs[0]) is not None:
            producer = before.producer()
        reshaped = producer is not None and producer.op_type == "Reshape"
        if not reshaped and shape is not None and axis in (-1, len(shape) - 1) and _comes_from_channels_first(x, facts):
            return NearMiss(named(node), self.name, f"'{x.name}' is normalized over C alone: LayerNorm", 1)
        if not reshaped and (axis not in (1, 1 - len(shape or ())) or (shape is not None and len(shape) < 3)):
            return None  # a LayerNorm over its last axes, the way transformers use it
        if shape is None:
            return NearMiss(named(node), self.name, f"the shape of '{x.name}' is not known", 1)
        rank = len(shape)

        def applied(view: GroupView) -> Applied | Rejected:
            found: list[Parameter | None] = []
            for value in [*node.inputs[1:], None][:2]:
                if value is None:
                    found.append(None)
                    continue
                own, element = facts.shape(value), facts.element(value)
                fits = own is not None and len(own) <= rank and broadcast([shape, own]) == shape
                if element is not None and fits:
                    found.append(Parameter(np.full(view.num_channels, element)))
                    continue
                held = per_channel(value, shape, view, facts)
                if held is None:
                    return Rejected(f"'{value.name}' is not one number per channel")
                found.append(held)
            return found[0], found[1]

        stash = dtype_name(ir.DataType(node.attributes.get_int("stash_type", int(ir.DataType.FLOAT))))
        return complete(
            self.name,
            node,
            group_views(x, tuple(range(axis % rank, rank)), facts),
            facts,
            epsilon=node.attributes.get_float("epsilon", 1e-5),
            stash=stash,
            applied=applied,
        )

    def write(self, site: GroupNormSite, builder: Builder) -> ir.Value:
        x, spec = enter(site, builder), site.spec
        attributes = {"epsilon": spec.epsilon, "stash_type": int(DTYPES[spec.stash_dtype])}
        if spec.num_groups == 1 and spec.rank != 2:
            assert spec.rank is not None
            shape = [spec.num_channels] + [1] * (spec.rank - 2)
            scale = parameter(site, "scale", shape, builder, neutral=True)
            bias = parameter(site, "bias", shape, builder)
            inputs = [x, scale] if bias is None else [x, scale, bias]
            y = builder.op("LayerNormalization", inputs, {"axis": 1, **attributes}, dtype=site.input.dtype)
            return leave(site, y, builder)
        dtype = DTYPES[spec.dtype]
        one = builder.constant(np.ones(1, dtype.numpy()), "one", dtype)
        rows = grouped(site, x, builder)
        y = builder.op("LayerNormalization", [rows, one], {"axis": 2, **attributes}, dtype=site.input.dtype)
        return leave(site, apply_affine(site, ungrouped(site, y, x, builder), builder), builder)

    def legal(self, spec: GroupNormSpec, opset: int) -> Decision:
        if opset < _SINCE:
            return Rejected(f"LayerNormalization needs opset {_SINCE}, the model has {opset}")
        if spec.stash_dtype not in _STASHES:
            return Rejected(f"LayerNormalization cannot take its statistics in {spec.stash_dtype}")
        return known_rank(spec)

    def min_opset(self, spec: GroupNormSpec) -> int:
        return _SINCE


def _comes_from_channels_first(x: ir.Value, facts: Facts) -> bool:
    """Whether C was put last just before, as ConvNeXt does; a LayerNorm of tokens is no look-alike."""
    rank = facts.rank(x) or 0
    return rank > 3 and transposes(x.producer(), to_last(rank))


FORM = LayerNorm()
