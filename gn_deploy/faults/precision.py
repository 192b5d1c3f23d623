"""Faults of arithmetic: computed or stored in fewer bits than promised."""

from collections.abc import Callable, Sequence

import numpy as np

from gn_deploy.decision import Accepted, Decision, Rejected
from gn_deploy.faults.base import Call, Fault, Formula, Kind, anywhere
from gn_deploy.reference import F64, activate
from gn_deploy.rounding import finer, rounded
from gn_deploy.spec import GroupNormSpec

RSQRT = 2.0**-12  # relative error of SSE's and older GPUs' approximate reciprocal root


def _computed(dtype: str) -> Formula:
    """Every tensor is held in ``dtype``, sums are accumulated wider, as matrix units do."""

    def q(values: F64) -> F64:
        return rounded(values, dtype)

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
    x = rounded(parts.x, "tf32")
    mean = x.mean(axis=(2, 3), keepdims=True)
    var = x.var(axis=(2, 3), keepdims=True)
    return call.finish(parts, (x - mean) / np.sqrt(var + call.spec.epsilon))


def _stored(dtype: str) -> Formula:
    return lambda call: rounded(call.right(), dtype)


def _approximate_root(call: Call) -> F64:
    parts = call.normalized()
    return call.finish(parts, parts.z * (1 + RSQRT))


def _finer_than(dtype: str, *, stored: bool = False) -> Callable[[GroupNormSpec, Sequence[int]], Decision]:
    """What x and y, or the statistics, are promised in has more bits than ``dtype``."""

    def ask(spec: GroupNormSpec, shape: Sequence[int]) -> Decision:
        promised = spec.dtype if stored else spec.stash_dtype
        if finer(promised, dtype):
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
