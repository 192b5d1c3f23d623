"""ONNX operators in NumPy where onnx.reference is one-pass, sums in half precision, or slips float32 into float64."""

import math
from contextvars import ContextVar
from typing import Any

import ml_dtypes
import numpy as np
from onnx import helper
from onnx.reference.op_run import OpRun
from onnx.reference.ops._op_list import load_op

from gn_deploy.runtimes.base import Array

ACCUMULATORS: ContextVar[int | None] = ContextVar("ACCUMULATORS", default=None)
"""Running sums of a mean, as a vectorized kernel keeps them; None for NumPy's pairwise sum, which is more exact."""

HALF = (np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16))


def widened(x: Array) -> Array:
    """x in float32 when it is float16 or bfloat16, in which no runtime accumulates; x itself otherwise."""
    return x.astype(np.float32) if x.dtype in HALF else x


def theirs(op: OpRun, *inputs: Array) -> tuple[Array, ...]:
    """The same node computed by onnx.reference's own implementation."""
    implementation = load_op(op.domain, op.op_type, op.run_params["opsets"][op.domain])
    outputs: tuple[Array, ...] = implementation(op.onnx_node, op.run_params).run(*inputs)
    return outputs


def standardized(x: Array, axes: tuple[int, ...], epsilon: float) -> tuple[Array, Array, Array]:
    """(x - mean) / sqrt(var + epsilon), mean and 1 / sqrt(var + epsilon) over ``axes``, in x's dtype, two passes."""
    mean = mean_over(x, axes)
    centred = x - mean
    variance = mean_over(np.square(centred), axes)
    deviation = np.sqrt(variance + x.dtype.type(epsilon))
    return centred / deviation, mean, 1 / deviation


def mean_over(x: Array, axes: tuple[int, ...]) -> Array:
    """The mean over the last ``axes`` of x, kept as axes of size 1, summed as ACCUMULATORS says."""
    if (count := ACCUMULATORS.get()) is None:
        return np.asarray(x.mean(axis=axes, keepdims=True))
    size = math.prod(x.shape[axis] for axis in axes)
    rows = np.pad(x.reshape(-1, size), ((0, 0), (0, -size % count)))
    total = np.add.reduce(np.add.reduce(rows.reshape(len(rows), -1, count), axis=1), axis=1) / x.dtype.type(size)
    return np.asarray(total).reshape(*x.shape[: -len(axes)], *[1] * len(axes))


def per_channel(parameter: Array, rank: int) -> Array:
    """(C,) -> (C, 1, ..., 1), to be broadcast over x of that rank, (N, C, ...)."""
    return parameter.reshape(-1, *[1] * (rank - 2))


class GroupNormalization(OpRun):
    """ONNX GroupNormalization 18 (scale and bias per group, statistics in T) and 21 (per channel, in stash_type).

    Two passes, where the function body of the specification computes E[x^2] - E[x]^2. As in the specification the
    normalized value is rounded to T before scale and bias; statistics are never narrower than float32.
    """

    def _run(
        self, x: Array, scale: Array, bias: Array, epsilon: float, num_groups: int, stash_type: int = 1
    ) -> tuple[Array]:
        modern = self.run_params["opsets"][""] >= 21
        stash = helper.tensor_dtype_to_np_dtype(stash_type) if modern else x.dtype
        wide = widened(x.astype(stash))
        grouped = wide.reshape(x.shape[0], num_groups, -1)
        normalized = standardized(grouped, (2,), epsilon)[0].reshape(x.shape).astype(x.dtype)
        if not modern:
            scale, bias = (np.repeat(p, x.shape[1] // num_groups) for p in (scale, bias))
        scale, bias = (per_channel(p.astype(x.dtype), x.ndim) for p in (scale, bias))
        return (normalized * scale + bias,)


class InstanceNormalization(OpRun):
    """ONNX InstanceNormalization; float16 and bfloat16 are computed in float32 and rounded once, at the end."""

    def _run(self, x: Array, scale: Array, bias: Array, epsilon: float) -> tuple[Array]:
        normalized, _, _ = standardized(widened(x), tuple(range(2, x.ndim)), epsilon)
        y = normalized * per_channel(widened(scale), x.ndim) + per_channel(widened(bias), x.ndim)
        return (y.astype(x.dtype),)


class LayerNormalization(OpRun):
    """ONNX LayerNormalization-17: first stage in stash_type, rounded to T, then scale and bias in T."""

    def _run(
        self,
        x: Array,
        scale: Array,
        bias: Array | None = None,
        axis: int = -1,
        epsilon: float = 1e-5,
        stash_type: int = 1,
    ) -> tuple[Array, Array, Array]:
        stash = helper.tensor_dtype_to_np_dtype(stash_type)
        axes = tuple(range(axis % x.ndim, x.ndim))
        normalized, mean, inverse = standardized(widened(x.astype(stash)), axes, epsilon)
        y = normalized.astype(x.dtype) * scale
        return (y if bias is None else y + bias), mean.astype(stash), inverse.astype(stash)


class RMSNormalization(OpRun):
    """ONNX RMSNormalization-23, staged as LayerNormalization is."""

    def _run(self, x: Array, scale: Array, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1) -> tuple[Array]:
        wide = widened(x.astype(helper.tensor_dtype_to_np_dtype(stash_type)))
        axes = tuple(range(axis % x.ndim, x.ndim))
        power = np.square(wide).mean(axis=axes, keepdims=True) + wide.dtype.type(epsilon)
        return ((wide / np.sqrt(power)).astype(x.dtype) * scale,)


class MeanVarianceNormalization(OpRun):
    """ONNX MeanVarianceNormalization-13; the function body is one-pass and adds 1e-9 to the deviation."""

    def _run(self, x: Array, axes: tuple[int, ...] = (0, 2, 3)) -> tuple[Array]:
        wide = widened(x)
        centred = wide - wide.mean(axis=tuple(axes), keepdims=True)
        deviation = np.sqrt(np.square(centred).mean(axis=tuple(axes), keepdims=True))
        return ((centred / (deviation + wide.dtype.type(1e-9))).astype(x.dtype),)


_erf = np.vectorize(math.erf, otypes=[np.float64])


class Erf(OpRun):
    """onnx.reference rounds to float32 whatever the type."""

    def _run(self, x: Array) -> tuple[Array]:
        return (_erf(x.astype(np.float64)).astype(x.dtype),)


class Gelu(OpRun):
    """ONNX Gelu-20; the constants of its function body are float32."""

    def _run(self, x: Array, approximate: str = "none") -> tuple[Array]:
        v = x.astype(np.float64)
        if approximate == "tanh":
            gate = np.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3))
        else:
            gate = _erf(v / math.sqrt(2))
        return ((0.5 * v * (1 + gate)).astype(x.dtype),)


class HardSwish(OpRun):
    """ONNX HardSwish-14; the 1/6 of its function body is float32."""

    def _run(self, x: Array) -> tuple[Array]:
        v = x.astype(np.float64)
        return ((v * np.clip(v / 6 + 0.5, 0, 1)).astype(x.dtype),)


class Transpose(OpRun):
    """NumPy gives a view, whose sums it takes one number after the other; a runtime's tensor has its own memory."""

    def _run(self, x: Array, perm: tuple[int, ...] | None = None) -> tuple[Array]:
        return (np.transpose(x, perm).copy(),)


class _Widened(OpRun):
    """Accumulates float16 and bfloat16 in float32 and rounds once; NumPy sums bfloat16 in bfloat16."""

    def _run(self, *inputs: Array, **_: Any) -> tuple[Array, ...]:
        if not any(x is not None and x.dtype in HALF for x in inputs):
            return theirs(self, *inputs)
        half = next(x.dtype for x in inputs if x is not None and x.dtype in HALF)
        outputs = theirs(self, *(x if x is None else widened(x) for x in inputs))
        return tuple(y.astype(half) if y.dtype == np.float32 else y for y in outputs)


WIDENED = (
    "BatchNormalization Einsum Gemm GlobalAveragePool GlobalMaxPool LogSoftmax MatMul ReduceL1 ReduceL2 ReduceLogSum "
    "ReduceLogSumExp ReduceMean ReduceSum ReduceSumSquare Sigmoid Softmax"
).split()

OPS: list[type[OpRun]] = [
    GroupNormalization,
    InstanceNormalization,
    LayerNormalization,
    RMSNormalization,
    MeanVarianceNormalization,
    Erf,
    Gelu,
    HardSwish,
    Transpose,
    *(type(name, (_Widened,), {}) for name in WIDENED),
]
