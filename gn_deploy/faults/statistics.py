"""Faults of epsilon and of the variance."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gn_deploy.decision import Decision, Rejected
from gn_deploy.faults.base import Call, Fault, Formula, Kind, Needs, anywhere, spread
from gn_deploy.reference import F64
from gn_deploy.spec import HALF_DTYPES, GroupNormSpec


def _another_epsilon(change: float | None = None, *, times: float = 1.0) -> Formula:
    def run(call: Call) -> F64:
        return call.with_spec(epsilon=call.spec.epsilon * times if change is None else change).right()

    return run


def _half_epsilon(call: Call) -> F64:
    return call.with_spec(epsilon=float(np.float16(call.spec.epsilon))).right()


def _outside(call: Call) -> F64:
    parts = call.normalized()
    return call.finish(parts, (parts.x - parts.mean) / (np.sqrt(parts.var) + call.spec.epsilon))


def _unbiased(call: Call) -> F64:
    parts = call.normalized()
    n = parts.x.shape[2] * parts.x.shape[3]
    return call.finish(parts, (parts.x - parts.mean) / np.sqrt(parts.var * n / (n - 1) + call.spec.epsilon))


def _one_pass(call: Call) -> F64:
    """In the dtype of the statistics, scale and bias included, as a kernel or the ONNX function body computes it."""
    parts = call.normalized()
    kind = np.dtype("float64" if "float64" in (call.spec.stash_dtype, call.spec.dtype) else "float32")
    x = parts.x.astype(kind)
    over: dict[str, Any] = {"axis": (2, 3), "keepdims": True, "dtype": kind}
    mean = x.mean(**over)
    var = np.square(x).mean(**over) - np.square(mean)
    z = (x - mean) / np.sqrt(var + kind.type(call.spec.epsilon))
    weight, offset = (part.astype(kind) for part in call.affine())
    plain = replace(call, scale=None, bias=None, modulation_scale=None, modulation_shift=None)
    return plain.finish(parts, (z * weight + offset).astype(np.float64))


def _mean_deviation(call: Call) -> F64:
    parts = call.normalized()
    centred = parts.x - parts.mean
    deviation = np.abs(centred).mean(axis=(2, 3), keepdims=True)
    return call.finish(parts, centred / np.sqrt(np.square(deviation) + call.spec.epsilon))


def _not_centred(call: Call) -> F64:
    parts = call.normalized()
    square = np.square(parts.x).mean(axis=(2, 3), keepdims=True)
    return call.finish(parts, parts.x / np.sqrt(square + call.spec.epsilon))


def _unless(value: float) -> Needs:
    """Epsilon is not already ``value``."""

    def ask(spec: GroupNormSpec, shape: Sequence[int]) -> Decision:
        return Rejected(f"epsilon is {value:g} as it is") if spec.epsilon == value else spread(spec, shape)

    return ask


def _not_a_float16(spec: GroupNormSpec, shape: Sequence[int]) -> Decision:
    if spec.dtype in HALF_DTYPES:
        return Rejected("a model in half precision may hold its epsilon so")
    if float(np.float16(spec.epsilon)) == spec.epsilon:
        return Rejected(f"{spec.epsilon:g} is a float16 number")
    return spread(spec, shape)


STATISTICS = (
    Fault("epsilon x10", Kind.EPSILON, "epsilon is ten times too large", _another_epsilon(times=10.0), _unless(0.0)),
    Fault("epsilon /10", Kind.EPSILON, "epsilon is ten times too small", _another_epsilon(times=0.1), _unless(0.0)),
    Fault("epsilon 1e-3", Kind.EPSILON, "epsilon is 1e-3, another layer's default", _another_epsilon(1e-3),
          _unless(1e-3)),
    Fault("epsilon absent", Kind.EPSILON, "epsilon is not added at all", _another_epsilon(0.0), _unless(0.0)),
    Fault("epsilon outside the root", Kind.EPSILON,
          "epsilon is added to the standard deviation instead of the variance", _outside, _unless(0.0)),
    Fault("epsilon in float16", Kind.EPSILON, "epsilon was rounded to float16", _half_epsilon, _not_a_float16),
    Fault("unbiased variance", Kind.VARIANCE, "the variance is divided by n - 1 instead of n", _unbiased, spread),
    Fault("one-pass variance", Kind.VARIANCE, "the variance is E[x^2] - E[x]^2, which cancels where the mean is large",
          _one_pass, spread),
    Fault("mean absolute deviation", Kind.VARIANCE, "the mean absolute deviation stands for the standard deviation",
          _mean_deviation, spread),
    Fault("no centring", Kind.VARIANCE, "the mean is not subtracted: this is RMS normalization", _not_centred,
          anywhere),
)  # fmt: skip
