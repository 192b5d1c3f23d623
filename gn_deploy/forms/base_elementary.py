"""Mean and standard deviation written in elementary ops, in two passes."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from gn_deploy.decision import Decision, Rejected
from gn_deploy.forms.base import DTYPES, known_rank
from gn_deploy.graph.splice import Builder
from gn_deploy.spec import GroupNormSpec


class Statistics(NamedTuple):
    """Values of a graph: the mean and standard deviation of each group, and the view less its mean."""

    mean: ir.Value
    centered: ir.Value
    deviation: ir.Value


def elementary(spec: GroupNormSpec, opset: int) -> Decision:
    """Whether ReduceMean, Sub, Mul, Sqrt, Div hold the spec at an opset, epsilon included."""
    needed = elementary_opset(spec)
    if opset < needed:
        return Rejected(f"elementary ops on {spec.dtype} need opset {needed}, the model has {opset}")
    stored = float(np.asarray(spec.epsilon, DTYPES[spec.stash_dtype].numpy()))
    if stored not in (spec.epsilon, float(np.float32(spec.epsilon))):
        return Rejected(f"epsilon {spec.epsilon:g} does not fit in {spec.stash_dtype}")
    return known_rank(spec)


def elementary_opset(spec: GroupNormSpec) -> int:
    return 13 if "bfloat16" in (spec.dtype, spec.stash_dtype) else 7


def statistics(view: ir.Value, axes: Sequence[int], spec: GroupNormSpec, builder: Builder) -> Statistics:
    """Mean, centred values and standard deviation over ``axes`` of a view in ``spec.stash_dtype``, in two passes."""
    stash = DTYPES[spec.stash_dtype]
    mean = _reduce_mean(view, axes, stash, builder)
    centered = builder.op("Sub", [view, mean], dtype=stash)
    variance = _reduce_mean(builder.op("Mul", [centered, centered], dtype=stash), axes, stash, builder)
    epsilon = builder.constant(np.asarray(spec.epsilon, stash.numpy()), "epsilon", stash)
    shifted = builder.op("Add", [variance, epsilon], dtype=stash)
    return Statistics(mean, centered, builder.op("Sqrt", [shifted], dtype=stash))


def _reduce_mean(value: ir.Value, axes: Sequence[int], dtype: ir.DataType, builder: Builder) -> ir.Value:
    """ReduceMean with keepdims; its axes became an input in opset 18."""
    if builder.opset >= 18:
        return builder.op("ReduceMean", [value, builder.ints(axes, "axes")], {"keepdims": 1}, dtype=dtype)
    return builder.op("ReduceMean", [value], {"axes": list(axes), "keepdims": 1}, dtype=dtype)
