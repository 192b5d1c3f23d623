"""Every family exposes what it says: a wrong implementation that it shows and that normal data (nearly) hides."""

from collections.abc import Callable

import numpy as np
import pytest

from gn_deploy.parity.families import FAMILIES
from gn_deploy.parity.metrics import measure
from gn_deploy.parity.tolerance import bounds
from gn_deploy.reference import F64
from gn_deploy.spec import GroupNormSpec

EPSILON = 1e-5
CHANNELS, POSITIONS = 16, 256
Formula = Callable[[F64], F64]
"""Rows of groups (slots, n) -> the same, normalized: no scale, no bias."""


def _with(x: F64, mean: F64 | float, var: F64 | float, epsilon: float = EPSILON) -> F64:
    with np.errstate(all="ignore"):
        return (x - mean) / np.sqrt(var + epsilon)


def _moments(x: F64) -> tuple[F64, F64]:
    return x.mean(1, keepdims=True), x.var(1, keepdims=True)


def _one_pass(x: F64) -> F64:
    single = x.astype(np.float32)
    mean, second = (v.mean(1, keepdims=True, dtype=np.float32) for v in (single, np.square(single)))
    return _with(x, mean.astype(np.float64), (second - np.square(mean)).astype(np.float64))


def _one_accumulator(x: F64) -> F64:
    """In one pass and one after the other, as a naive loop sums."""
    single = x.astype(np.float32)
    mean, second = (np.cumsum(v, 1, dtype=np.float32)[:, -1:] / np.float32(x.shape[1]) for v in (single, single**2))
    return _with(x, mean.astype(np.float64), (second - mean**2).astype(np.float64))


def _rounded_squares(x: F64) -> F64:
    """Exact sums of squares that had been rounded to float32."""
    squares = np.square(x.astype(np.float32)).astype(np.float64)
    mean = x.mean(1, keepdims=True)
    return _with(x, mean, np.maximum(squares.mean(1, keepdims=True) - mean**2, 0))


def _statistics_of(part: Formula) -> Formula:
    return lambda x: _with(x, *_moments(part(x)))


def _not_zero(x: F64) -> F64:
    count = np.count_nonzero(x, axis=1, keepdims=True)
    mean = x.sum(1, keepdims=True) / count
    return _with(x, mean, (np.square(x - mean) * (x != 0)).sum(1, keepdims=True) / count)


def _float16_squares(x: F64) -> F64:
    mean = x.mean(1, keepdims=True)
    squares = np.square(x - mean)
    return _with(x, mean, np.where(squares > 65504, np.inf, squares).mean(1, keepdims=True))


def _flushed(x: F64) -> F64:
    zeroed = np.where(np.abs(x) < 2.0**-14, 0.0, x)
    return _with(zeroed, *_moments(zeroed))


SHOWS: dict[str, tuple[Formula, str]] = {
    "epsilon_dominated": (lambda x: _with(x, *_moments(x), epsilon=float(np.float16(EPSILON))), "float32"),
    "offset": (_one_pass, "float32"),
    "constant": (_one_accumulator, "float32"),
    "kappa1000": (_one_pass, "float32"),
    "small": (lambda x: (x - x.mean(1, keepdims=True)) / (x.std(1, keepdims=True) + EPSILON), "float32"),
    "outlier": (_statistics_of(lambda x: np.clip(x, -500, 500)), "float32"),
    "spikes": (_statistics_of(lambda x: np.clip(x, -100, 100)), "float32"),
    "checkerboard": (_statistics_of(lambda x: x[:, ::2]), "float32"),
    "trend": (_statistics_of(lambda x: x[:, : x.shape[1] // 2]), "float32"),
    "kappa10000": (_rounded_squares, "float32"),
    "large_mean": (_one_pass, "float32"),
    "near_max": (_float16_squares, "float16"),
    "post_relu": (_not_zero, "float32"),
    "tiny": (_flushed, "float16"),
}
"""Family -> a wrong implementation, and the type in which it is wrong. ``normal`` is what they are compared with."""


def error(family: str, formula: Formula, dtype: str) -> float:
    """The largest error over the bound, over four groups."""
    drawn = FAMILIES[family].draw(np.random.default_rng(3), (4, CHANNELS * POSITIONS), EPSILON, dtype)
    x = drawn.astype(dtype).astype(np.float64)
    limits = bounds(x.reshape(4, CHANNELS, POSITIONS), GroupNormSpec(1, CHANNELS, EPSILON, dtype=dtype))
    with np.errstate(over="ignore"):
        y = formula(x).astype(dtype).reshape(limits.reference.shape)
    return measure(y, limits.reference, limits.two_pass, dtype=dtype).error_over_bound


def test_every_family_has_its_proof() -> None:
    assert SHOWS.keys() | {"normal"} == FAMILIES.keys()


@pytest.mark.parametrize("family", SHOWS)
def test_a_family_shows_what_normal_data_hides(family: str) -> None:
    formula, dtype = SHOWS[family]
    shown, usual = error(family, formula, dtype), error("normal", formula, dtype)
    assert shown > 1, "the fault is not seen at all"
    assert shown > 10 * usual, f"normal data shows it as well: {usual:.3g} against {shown:.3g}"


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_no_family_accuses_the_right_formula(family: str, dtype: str) -> None:
    assert error(family, lambda x: _with(x, *_moments(x)), dtype) <= 1
