"""Faults of arithmetic: computed or stored in fewer bits than promised."""

from collections.abc import Callable, Sequence

import ml_dtypes  # noqa: F401  (registers bfloat16 with NumPy)
import numpy as np

from gn_deploy.decision import Accepted, Decision, Rejected
from gn_deploy.faults.base import Call, Fault, Formula, Kind, anywhere
from gn_deploy.reference import F64, activate
from gn_deploy.spec import GroupNormSpec

Rounding = Callable[[F64], F64]
RSQRT = 2.0**-12  # relative error of SSE's and older GPUs' approximate reciprocal root


def rounding(dtype: str) -> Rounding:
    """float64 values to the nearest of ``dtype`` (or "tf32") and back."""
    return _to_tf32 if dtype == "tf32" else lambda values: np.asarray(values).astype(dtype).astype(np.float64)


def _to_tf32(values: F64) -> F64:
    """float32 with 10 instead of 23 stored bits of mantissa, half to even."""
    single = np.asarray(values).astype(np.float32)
    bits = single.view(np.uint32)
    kept = (bits + np.uint32(0xFFF) + ((bits >> np.uint32(13)) & np.uint32(1))) & np.uint32(0xFFFFE000)
    return np.where(np.isfinite(single), kept.view(np.float32), single).astype(np.float64)


def _computed(dtype: str) -> Formula:
    """Every tensor is held in ``dtype``, sums are accumulated wider, as matrix units do."""
    q = rounding(dtype)

    def run(call: Call) -> F64:
        parts = call.normalized()
        x = q(parts.x)
        mean = q(x.mean(axis=(2, 3), keepdims=True))
        centred = q(x - mean)
        var = q(q(np.square(centred)).mean(axis=(2, 3), keepdims=True))
        z = q(centred * q(1 / q(np.sqrt(q(var + call.spec.epsilon)))))
        weight, offset = map(q, call.affine())
        y = q(q(z * weight) + offset)
        return parts.back(q(activate(y, call.spec.activation)))

    return run


def _tf32_operands(call: Call) -> F64:
    """x is rounded on its way into the sums and the product, everything after that is exact."""
    parts = call.normalized()
    x = _to_tf32(parts.x)
    mean = x.mean(axis=(2, 3), keepdims=True)
    var = x.var(axis=(2, 3), keepdims=True)
    return call.finish(parts, (x - mean) / np.sqrt(var + call.spec.epsilon))


def _stored(dtype: str) -> Formula:
    return lambda call: rounding(dtype)(call.right())


def _approximate_root(call: Call) -> F64:
    parts = call.normalized()
    return call.finish(parts, parts.z * (1 + RSQRT))


_BITS = {"bfloat16": 8, "float16": 11, "tf32": 11, "float32": 24, "float64": 53}


def _finer_than(dtype: str, *, stored: bool = False) -> Callable[[GroupNormSpec, Sequence[int]], Decision]:
    """What x and y, or the statistics, are promised in has more bits than ``dtype``."""

    def ask(spec: GroupNormSpec, shape: Sequence[int]) -> Decision:
        promised = spec.dtype if stored else spec.stash_dtype
        if _BITS[promised] > _BITS[dtype]:
            return Accepted()
        return Rejected(f"{promised} has no more bits than {dtype}")

    return ask


PRECISION = (
    Fault("bfloat16 arithmetic", Kind.PRECISION, "everything is computed in bfloat16", _computed("bfloat16"),
          _finer_than("bfloat16")),
    Fault("float16 arithmetic", Kind.PRECISION, "everything is computed in float16", _computed("float16"),
          _finer_than("float16")),
    Fault("TF32 arithmetic", Kind.PRECISION, "the input is rounded to TF32, as matrix units do by default",
          _tf32_operands, _finer_than("tf32", stored=True)),
    Fault("stored in bfloat16", Kind.PRECISION, "the result was rounded to bfloat16", _stored("bfloat16"),
          _finer_than("bfloat16", stored=True)),
    Fault("stored in float16", Kind.PRECISION, "the result was rounded to float16", _stored("float16"),
          _finer_than("float16", stored=True)),
    Fault("approximate root", Kind.PRECISION, "the reciprocal root is good to 12 bits only", _approximate_root,
          anywhere),
)  # fmt: skip
