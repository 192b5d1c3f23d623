"""Exact confidence bounds of a proportion, and how many faultless trials prove a rate."""

import math

import numpy as np

CONFIDENCE = 0.95
_BISECTIONS = 60  # halvings of [0, 1]: below float64 resolution


def clopper_pearson_lower(successes: int, samples: int, confidence: float = CONFIDENCE) -> float:
    """One-sided exact lower bound of a proportion: the p that gives ``successes`` or more once in 1 / (1 - confidence).

    That p is the quantile 1 - confidence of Beta(successes, samples - successes + 1) (Clopper & Pearson, Biometrika 26,
    1934), found by bisection of the binomial tail.
    """
    if samples == 0 or successes == 0:
        return 0.0
    k = np.arange(successes, samples + 1)
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, samples + 1)))])
    ways = log_factorial[samples] - log_factorial[k] - log_factorial[samples - k]
    low, high = 0.0, 1.0
    for _ in range(_BISECTIONS):
        p = (low + high) / 2
        with np.errstate(divide="ignore", invalid="ignore"):
            misses = np.where(samples == k, 0.0, (samples - k) * np.log1p(-p))
            tail = float(np.exp(ways + k * np.log(p) + misses).sum())
        low, high = (p, high) if tail < 1 - confidence else (low, p)
    return low


def clopper_pearson_upper(successes: int, samples: int, confidence: float = CONFIDENCE) -> float:
    """The one-sided exact upper bound; 1 - (1 - confidence)^(1 / samples) when there is no success."""
    return 1.0 - clopper_pearson_lower(samples - successes, samples, confidence)


def trials_needed(rate: float, confidence: float = CONFIDENCE) -> int:
    """The fewest trials that, all faultless, put the rate of faults below ``rate``: 299 for 1 % with 95 %."""
    return max(1, math.ceil(math.log(1 - confidence) / math.log1p(-rate)))
