"""Which named fault a wrong GroupNorm's output is explained by, on everything that was seen of it."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gn_deploy.faults import FAULTS, Kind, applies
from gn_deploy.parity.appearance import appearance
from gn_deploy.parity.metrics import by_slot
from gn_deploy.parity.tolerance import Bounds
from gn_deploy.reference import F64, group_norm
from gn_deploy.spec import GroupNormSpec

Array = NDArray[Any]

_ORDER = (
    *(Kind.GROUPS, Kind.AFFINE, Kind.ACTIVATION, Kind.RESIDUAL, Kind.BATCH, Kind.LAYOUT, Kind.VARIANCE, Kind.EPSILON),
    *(Kind.TAIL, Kind.NAN, Kind.STALE, Kind.PRECISION),
)
"""Of several faults that are equal on all that was seen, the one that is met most often in exporters and kernels."""
_EPSILONS = (1e-3, 1e-4, 1e-6, 1e-5, 1e-8, 1e-12, 1e-2, 1e-7)
"""What layers of frameworks have as default, tried before an epsilon is estimated."""
_OTHER_EPSILONS = ("epsilon outside the root", "epsilon absent")
_SPAN = (-16.0, 1.0)
"""Powers of ten between which an epsilon is looked for."""
_STEPS = 48  # of a golden section: 17 powers of ten down to one part in a million
_OWN = 2.0  # a fault's answer is rounded like the right one: twice the bound, once for the size of each
_BY_NAME = {
    "per channel": "statistics per channel: InstanceNorm",
    "one group": "statistics over all channels: LayerNorm",
    "unbiased variance": "unbiased variance, n - 1 instead of n",
    "no centring": "the mean is not subtracted: RMSNorm",
}
ONE_PASS = "variance in one pass, E[x^2] - E[x]^2"


@dataclass(frozen=True, slots=True)
class Signs:
    """What one tensor says: the faults that explain all of it, each in words, and what the error looks like without."""

    explained: Mapping[str, tuple[str, float]]
    """Name -> words, and the largest distance over what is allowed, at most 1."""
    looks: str


def signs(
    x: Array,
    y: Array,
    spec: GroupNormSpec,
    scale: Array | None,
    bias: Array | None,
    limits: Bounds,
    around: Mapping[str, Any],
) -> Signs:
    """``y`` as a wrong answer to ``x``; arguments as ``reference.group_norm``, ``around`` as its keywords.

    A fault explains it when all of y is within the bound of what the fault computes, the bound being that of the right
    answer times how much larger the fault makes a group.
    """
    test = _Test(y, spec, limits)
    found: dict[str, tuple[str, float]] = {}
    for name, fault in FAULTS.items():
        if fault.kind is Kind.EPSILON and name not in _OTHER_EPSILONS:
            continue  # by its value, below
        if applies(fault, spec, x.shape):
            ratio = test.ratio(fault.compute(x, spec, scale, bias, **around))
            if ratio <= 1:
                found[name] = _BY_NAME.get(name, fault.says), ratio

    def with_epsilon(epsilon: float) -> float:
        return test.ratio(group_norm(x, replace(spec, epsilon=epsilon), scale, bias, **around))

    for epsilon in (*_EPSILONS, spec.epsilon * 10, spec.epsilon / 10, float(np.float16(spec.epsilon))):
        if epsilon != spec.epsilon and (ratio := with_epsilon(epsilon)) <= 1:
            found[f"epsilon {epsilon:.6g}"] = _other_epsilon(epsilon, spec.epsilon), ratio
    if not found and (best := _least(with_epsilon))[1] <= 1:
        found["epsilon"] = _other_epsilon(best[0], spec.epsilon), best[1]
    looks = appearance(y, limits.reference, limits.two_pass, channel_axis=spec.channel_axis)
    return Signs(found, looks)


def together(seen: Sequence[Signs]) -> str:
    """The fault that explains every piece, in words, else what the first error looks like; "" when nothing was seen."""
    if name := likeliest(seen):
        return seen[0].explained[name][0]
    return next((s.looks for s in seen if s.looks), "")


def likeliest(seen: Sequence[Signs]) -> str:
    """The name of the fault that explains every piece; "" when none does."""
    common = [name for name in seen[0].explained if all(name in s.explained for s in seen)] if seen else []

    def likely(name: str) -> tuple[int, float]:
        kind = FAULTS[name].kind if name in FAULTS else Kind.EPSILON
        return _ORDER.index(kind), max(s.explained[name][1] for s in seen)

    return min(common, key=likely, default="")


class _Test:
    """Whether an answer is the one that was given, group by group."""

    def __init__(self, y: Array, spec: GroupNormSpec, limits: Bounds) -> None:
        self._spec = spec
        self._dtype = np.asarray(y).dtype
        self._y = by_slot(np.asarray(y).astype(np.float64), spec)
        self._right, self._bound = (by_slot(a, spec) for a in (limits.reference, limits.two_pass))
        self._size = _rms(self._right)

    def ratio(self, answer: F64) -> float:
        """The largest distance over what is allowed; infinite where NaN or Inf do not match."""
        with np.errstate(all="ignore"):
            guess = by_slot(answer.astype(self._dtype).astype(np.float64), self._spec)  # it may overflow there
            larger = np.maximum(1.0, np.nan_to_num(_rms(guess) / self._size, nan=1.0, posinf=1.0))
            allowed = _OWN * self._bound * larger
            special = ~np.isfinite(guess) | ~np.isfinite(self._y)
            same = (guess == self._y) | (np.isnan(guess) & np.isnan(self._y))
            distance = np.where(special, np.where(same, 0.0, np.inf), np.abs(guess - self._y))
            ratios = np.where(np.isposinf(allowed) | np.isnan(allowed), 0.0, distance / allowed)
        return float(ratios.max(initial=0.0))


def _other_epsilon(found: float, right: float) -> str:
    if found == float(np.float16(right)):
        return f"epsilon rounded to float16, {found:.6g} instead of {right:.6g}"
    return f"epsilon {found:.3g} instead of {right:.3g}"


def _least(ratio: Callable[[float], float]) -> tuple[float, float]:
    """The epsilon at which ``ratio`` is least, by golden section over its powers of ten, and the ratio there."""
    low, high = _SPAN
    golden = (math.sqrt(5) - 1) / 2
    a, b = high - golden * (high - low), low + golden * (high - low)
    at_a, at_b = ratio(10**a), ratio(10**b)
    for _ in range(_STEPS):
        if at_a <= at_b:
            high, b, at_b = b, a, at_a
            a = high - golden * (high - low)
            at_a = ratio(10**a)
        else:
            low, a, at_a = a, b, at_b
            b = low + golden * (high - low)
            at_b = ratio(10**b)
    return (10**a, at_a) if at_a <= at_b else (10**b, at_b)


def _rms(rows: F64) -> F64:
    finite = np.where(np.isfinite(rows), rows, 0.0)
    return np.asarray(np.sqrt(np.square(finite).mean(axis=1, keepdims=True)))
