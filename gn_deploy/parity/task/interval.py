"""How sure a difference between two models is: intervals of a metric and of proportions, samples being paired."""

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np

from gn_deploy.parity.proportion import CONFIDENCE
from gn_deploy.reference import F64

RESAMPLES = 4000  # Efron & Tibshirani ask for 1000 and more; the ends then move by a twentieth of the standard error
FEW = 64  # different rows up to which their counts are drawn rather than the samples: the same distribution, at once
CHUNK = 1 << 22  # numbers drawn at once
LARGEST = 1 << 40  # samples; what would need more is not settled by any data set
_BISECTIONS = 60  # halvings of [0, 1]: below float64 resolution
_Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)

Value = Callable[[F64], F64]
"""Means over samples (..., K) of per-sample statistics -> the metric (...)."""
Interval = tuple[float, float]


def bootstrap(reference: F64, actual: F64, value: Value, seed: int = 0) -> Interval:
    """95 % interval of value(mean of actual) - value(mean of reference), rows (N, K) being samples.

    Paired: a resample takes whole samples, both models' rows together, so that what is hard for both cancels. The ends
    are bias-corrected and accelerated (BCa: Efron, JASA 82, 1987; Efron & Tibshirani, An Introduction to the Bootstrap,
    1993, ch. 14): differences of good models are skewed, a few samples moving a lot, and there plain percentiles are
    off by the first order in 1/sqrt(N) where BCa is off by the second. A ratio such as IoU is recomputed from every
    resample's sums, never averaged over samples. NaN when a resample has no value.
    """
    rows = np.concatenate([reference, actual], axis=1)
    samples, half = len(rows), reference.shape[1]

    def difference(means: F64) -> F64:
        return value(means[..., half:]) - value(means[..., :half])

    with np.errstate(invalid="ignore", divide="ignore"):
        draws = np.sort(difference(_resampled(rows, np.random.default_rng(seed))))
        here = float(difference(rows.mean(0)))
        left_out = difference((rows.sum(0) - rows) / max(samples - 1, 1))
    if not (np.isfinite(draws).all() and np.isfinite(left_out).all()):
        return math.nan, math.nan
    if draws[0] == draws[-1]:
        return float(draws[0]), float(draws[0])
    below = (np.count_nonzero(draws < here) + np.count_nonzero(draws <= here)) / 2  # ties count half
    normal = NormalDist()
    bias = normal.inv_cdf(min(max(below / RESAMPLES, 1 / RESAMPLES), 1 - 1 / RESAMPLES))
    pull = left_out.mean() - left_out
    spread = float(np.square(pull).sum())
    skew = float((pull**3).sum()) / (6 * spread**1.5) if spread > 0 else 0.0
    ends = []
    for z in (-_Z, _Z):
        moved = normal.cdf(bias + (bias + z) / (1 - skew * (bias + z)))
        ends.append(float(np.quantile(draws, moved)))
    return ends[0], ends[1]


def _resampled(rows: F64, rng: np.random.Generator) -> F64:
    """Means (RESAMPLES, K) of rows drawn with replacement."""
    samples = len(rows)
    different, counts = np.unique(rows, axis=0, return_counts=True)
    if len(different) <= FEW:
        drawn = rng.multinomial(samples, counts / samples, RESAMPLES)
        means: F64 = drawn @ different / samples
        return means
    found = []
    step = max(1, CHUNK // samples)
    for start in range(0, RESAMPLES, step):
        picked = rng.integers(0, samples, (min(step, RESAMPLES - start), samples))
        times = np.stack([np.bincount(row, minlength=samples) for row in picked])
        found.append(times @ rows / samples)
    return np.concatenate(found)


def paired_proportions(lost: float, gained: float, samples: float) -> Interval:
    """95 % score interval of (gained - lost) / samples: of the difference of two proportions on the same samples.

    All differences that McNemar's test does not reject (Tango, Statistics in Medicine 17, 1998). Resampling cannot
    invent a change that no sample shows: with none among 540 it says 0 to 0, this says -0.71 % to 0.71 %.
    """

    def score(difference: float) -> float:
        b = lost + gained - difference * (2 * samples + lost - gained)
        root = math.sqrt(max(b * b + 8 * samples * lost * difference * (1 - difference), 0.0))
        losing = max((b + root) / (4 * samples), -difference, 0.0)  # the likeliest share lost, given the difference
        variance = samples * (2 * losing + difference * (1 - difference))
        away = gained - lost - samples * difference
        return away / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, away) if away else 0.0

    middle = (gained - lost) / samples
    low = _where(lambda d: score(d) > _Z, -1.0, middle)
    return low, _where(lambda d: score(d) >= -_Z, middle, 1.0)


def _where(holds: Callable[[float], bool], low: float, high: float) -> float:
    """The point from which on ``holds`` is no longer true."""
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return (low + high) / 2


def settling(difference: float, interval: Interval, allowed: float, samples: int) -> int:
    """How many samples like these would bring the whole interval to one side of -allowed; 0 when none would.

    An interval shrinks as 1/sqrt(samples) around the difference.
    """
    margin = difference + allowed
    reach = difference - interval[0] if margin > 0 else interval[1] - difference
    if not margin or not math.isfinite(reach / margin):
        return 0
    needed = samples * (reach / margin) ** 2 * (1 - 1e-12)  # what is a whole number stays one
    return math.ceil(needed) if needed < LARGEST else 0


def settling_proportions(lost: int, gained: int, samples: int, allowed: float) -> int:
    """The same for ``paired_proportions``, whose interval shrinks as 1/samples where nothing changed."""
    if (gained - lost) / samples + allowed == 0:
        return 0

    def open_at(times: float) -> bool:
        low, high = paired_proportions(times * lost, times * gained, times * samples)
        return low < -allowed <= high

    times = 1.0
    while open_at(times):
        times *= 2
        if times * samples > LARGEST:
            return 0
    return math.ceil(_where(open_at, times / 2, times) * samples)
