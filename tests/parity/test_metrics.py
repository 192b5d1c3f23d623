"""Every measure against a second way of computing it, and what the statuses mean."""

import math

import numpy as np
import pytest

from gn_deploy.parity.metrics import classify, measure, ulp
from gn_deploy.parity.status import Status
from gn_deploy.parity.tolerance import Bounds
from gn_deploy.spec import GroupNormSpec

RNG = np.random.default_rng(0)
R = RNG.standard_normal((2, 4, 9))


def test_numbers() -> None:
    a = R + 1e-3 * RNG.standard_normal(R.shape)
    got = measure(a, R, 1e-3, dtype="float32")
    assert got.max_abs == np.abs(a - R).max()
    assert got.error_over_bound == pytest.approx(np.abs(a - R).max() / 1e-3)
    assert got.rel_l2 == pytest.approx(np.linalg.norm(a - R) / np.linalg.norm(R))
    assert got.cosine == pytest.approx(np.vdot(a, R) / np.linalg.norm(a) / np.linalg.norm(R))
    slope, offset = np.polyfit(R.ravel(), a.ravel(), 1)
    assert (got.slope, got.offset) == (pytest.approx(slope), pytest.approx(offset))


def test_slope_and_offset_per_group_leave_out_groups_without_variance() -> None:
    spec = GroupNormSpec(2, 4)
    r = R.copy()
    r[0, :2] = 5.0
    a = r.copy()
    a[1, 2:] = 1.5 * a[1, 2:] + 0.25
    a[0, :2] += 1e-9
    got = measure(a, r, 1e-6, dtype="float32", spec=spec)
    assert got.slope == pytest.approx(1.5)
    assert got.offset == pytest.approx(0.25)
    assert math.isnan(measure(np.full_like(r, 5), np.full_like(r, 5), 1e-6, dtype="float32", spec=spec).slope)


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
def test_ulp_is_numpys_spacing(dtype: str) -> None:
    values = np.abs(RNG.standard_normal(200) * 10.0 ** RNG.integers(-4, 4, 200)).astype(dtype)
    np.testing.assert_array_equal(ulp(values.astype(np.float64), dtype), np.spacing(values).astype(np.float64))
    assert ulp(np.zeros(1), dtype)[0] == np.finfo(dtype).smallest_subnormal


def _bounds(reference: np.ndarray, two: float = 1.0, one: float = 10.0) -> Bounds:
    return Bounds(reference, np.full(reference.shape, two), np.full(reference.shape, one))


def test_statuses() -> None:
    assert classify(R + 0.9, _bounds(R), dtype="float32") is Status.PASS
    assert classify(R + 5, _bounds(R), dtype="float32") is Status.UNSTABLE
    assert classify(R + 50, _bounds(R), dtype="float32") is Status.FAIL


def test_nan_and_inf_are_compared_exactly() -> None:
    a, r = R.copy(), R.copy()
    a[0, 0, 0] = np.nan
    assert classify(a, _bounds(r), dtype="float32") is Status.NAN
    assert measure(a, r, 1.0, dtype="float32").error_over_bound == math.inf
    assert classify(a, _bounds(r, one=math.inf), dtype="float32") is Status.UNSTABLE  # a one-pass variance may do this
    r[0, 0, 0] = np.nan
    limits = _bounds(r)
    assert classify(a, limits, dtype="float32") is Status.PASS
    assert measure(a, r, 1.0, dtype="float32").error_over_bound == 0
    a[0, 0, 0] = 1.0
    assert classify(a, limits, dtype="float32") is Status.NAN
    a[0, 0, 0], r[0, 0, 0] = np.inf, -np.inf
    assert classify(a, _bounds(r), dtype="float32") is Status.NAN
    a[1, 1, 1] = r[1, 1, 1] + 50
    assert classify(a, _bounds(r), dtype="float32") is Status.FAIL  # a wrong number says more than a NaN


def test_what_cannot_be_judged_is_left_out() -> None:
    bound = np.ones_like(R)
    bound[0, 0] = math.inf
    a = R.copy()
    a[0, 0] = np.nan
    assert measure(a, R, bound, dtype="float32").error_over_bound == 0
