"""How far an array is from the reference, in every measure a report shows, and what that means."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gn_deploy.parity.report import Metrics
from gn_deploy.parity.status import Status
from gn_deploy.parity.tolerance import Bounds
from gn_deploy.reference import F64
from gn_deploy.rounding import FORMATS
from gn_deploy.spec import GroupNormSpec

_SIGNAL = 100.0  # a group's spread must be this many bounds before its slope says more than rounding does


def measure(
    actual: NDArray[Any], reference: F64, bound: F64 | float, *, dtype: str, spec: GroupNormSpec | None = None
) -> Metrics:
    """``actual`` against the float64 ``reference``; ``dtype`` gives the unit in the last place.

    NaN or Inf where the reference rounded to ``dtype`` has something else makes ``error_over_bound`` infinite. Where
    the bound is infinite nothing is measured. With ``spec`` slope and offset are fitted per (sample, group), else once.
    """
    bounds = np.broadcast_to(np.asarray(bound, np.float64), reference.shape)
    got = np.asarray(actual).astype(np.float64)
    wrong = nonfinite_mismatch(actual, reference, bounds, dtype)
    ok = np.isfinite(got) & np.isfinite(reference) & np.isfinite(bounds)
    a, r = np.where(ok, got, 0.0), np.where(ok, reference, 0.0)
    error = np.abs(a - r)
    with np.errstate(all="ignore"):
        ratio = np.where(error == 0, 0.0, error / np.where(ok, bounds, 1.0))
        norm, difference, own = (math.sqrt(np.square(v).sum()) for v in (r, error, a))
        rel_l2 = difference / norm if norm else (np.inf if difference else 0.0)
        cosine = float((a * r).sum()) / (norm * own) if norm and own else float(norm == own)
    slope, offset = _fit(a, r, np.where(ok, bounds, 0.0), spec)
    return Metrics(
        error_over_bound=np.inf if wrong.any() else float(ratio.max(initial=0.0)),
        max_abs=np.inf if wrong.any() else float(error.max(initial=0.0)),
        rel_l2=rel_l2,
        cosine=cosine,
        max_ulp=np.inf if wrong.any() else float((error / ulp(r, dtype)).max(initial=0.0)),
        slope=slope,
        offset=offset,
    )


def classify(actual: NDArray[Any], bounds: Bounds, *, dtype: str) -> Status:
    """PASS inside the two-pass bound, UNSTABLE inside the one-pass bound, NAN on a NaN neither explains, else FAIL."""
    got = np.asarray(actual).astype(np.float64)
    with np.errstate(all="ignore"):
        error = np.abs(got - bounds.reference)
        nan = nonfinite_mismatch(actual, bounds.reference, bounds.two_pass, dtype)
        outside = nan | (error > bounds.two_pass)
        if not outside.any():
            return Status.PASS
        # A one-pass variance may leave nothing, or a negative number: where its bound is infinite, NaN is its doing.
        beyond = outside & ~np.isposinf(bounds.one_pass) & (nan | (error > bounds.one_pass))
    if not beyond.any():
        return Status.UNSTABLE
    return Status.NAN if (beyond <= nan).all() else Status.FAIL


def nonfinite_mismatch(actual: NDArray[Any], reference: F64, bounds: F64, dtype: str) -> NDArray[np.bool_]:
    """Where exactly one of the two is NaN, or they are different infinities; nowhere where the bound is infinite."""
    got = np.asarray(actual).astype(np.float64)
    if np.isfinite(got).all() and np.abs(reference).max(initial=0.0) <= FORMATS[dtype].largest:
        return np.zeros(got.shape, np.bool_)  # as nearly always; what is below costs several times as much
    with np.errstate(over="ignore"):
        want = reference.astype(np.dtype(dtype)).astype(np.float64)  # a float64 number may be Inf in the dtype
    special: NDArray[np.bool_] = ~np.isfinite(got) | ~np.isfinite(want)
    same: NDArray[np.bool_] = (got == want) | (np.isnan(got) & np.isnan(want))
    return np.asarray(special & ~same & ~np.isposinf(bounds))


def ulp(values: F64, dtype: str) -> F64:
    """The unit in the last place of ``dtype`` at each value; the least subnormal around zero."""
    form = FORMATS[dtype]
    _, exponent = np.frexp(values)
    units: F64 = np.maximum(np.ldexp(2 * form.u, exponent - 1), form.least)
    return np.where(values == 0, form.least, units)


def by_slot(array: NDArray[Any], spec: GroupNormSpec) -> NDArray[Any]:
    """(N, C, ...) or (N, ..., C) as one row per (sample, group)."""
    return np.moveaxis(array, spec.channel_axis, 1).reshape(array.shape[0] * spec.num_groups, -1)


def _fit(a: F64, r: F64, bounds: F64, spec: GroupNormSpec | None) -> tuple[float, float]:
    """The worst slope and the worst offset of a = slope * r + offset over groups; NaN when no group has a spread."""
    a, r, bounds = (v.reshape(1, -1) if spec is None else by_slot(v, spec) for v in (a, r, bounds))
    mean_a, mean_r = a.mean(1, keepdims=True), r.mean(1, keepdims=True)
    spread = np.square(r - mean_r).mean(1)
    kept = np.sqrt(spread) > _SIGNAL * bounds.max(1)
    kept &= spread > 0
    if not kept.any():
        return float("nan"), float("nan")
    slope = ((a - mean_a) * (r - mean_r)).mean(1)[kept] / spread[kept]
    offset = mean_a[kept, 0] - slope * mean_r[kept, 0]
    return float(slope[np.argmax(np.abs(slope - 1))]), float(offset[np.argmax(np.abs(offset))])
