"""What a report draws of one case: its elements by error over bound, and the group that is furthest off."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gn_deploy.parity.metrics import nonfinite_mismatch
from gn_deploy.parity.report import HISTOGRAM_EDGES, SiteVerdict, WorstGroup
from gn_deploy.parity.tolerance import Bounds
from gn_deploy.reference import F64
from gn_deploy.rounding import FORMATS

PICKED = 256  # elements of a drawn group: more than a screen's columns show apart, little enough to write down
GROUPS = 8  # broken sites of a runtime whose group is kept: 9 groups on 5 runtimes are about a megabyte of JSON
_DIGITS = 9  # what it takes to tell any two float32 apart
_BOUND_DIGITS = 4  # a bound is an estimate; four digits draw it


@dataclass(frozen=True, slots=True)
class Drawing:
    """``histogram`` as SiteVerdict has it: one count for each bin of HISTOGRAM_EDGES, and one at either end."""

    histogram: tuple[int, ...]
    group: WorstGroup | None


def draw(
    x: NDArray[Any], y: NDArray[Any], limits: Bounds, dtype: str, slots: Sequence[int], num_groups: int
) -> Drawing:
    """``x``, ``y`` and the limits as one row per group, ``slots[i]`` = sample * num_groups + group of row i.

    Elements about which nothing can be said (an infinite bound, an undefined reference) are not counted.
    """
    ratios = _ratios(y, limits, dtype)
    counted = ratios[~np.isnan(ratios)]
    bins = np.bincount(np.searchsorted(HISTOGRAM_EDGES, counted), minlength=len(HISTOGRAM_EDGES) + 1)
    told = np.nan_to_num(ratios, nan=-1.0, posinf=np.inf)
    row, column = divmod(int(told.argmax()), told.shape[1])
    picked = _evenly(told.shape[1], column)
    sample, group = divmod(slots[row], num_groups)
    drawn = WorstGroup(
        sample,
        group,
        index=tuple(map(int, picked)),
        x=_rounded(x[row][picked], _DIGITS),
        expected=_rounded(limits.reference[row][picked], _DIGITS),
        actual=_rounded(y[row][picked], _DIGITS),
        bound=_rounded(limits.two_pass[row][picked], _BOUND_DIGITS),
    )
    return Drawing(tuple(map(int, bins)), drawn)


def keep_few(verdicts: Iterable[SiteVerdict]) -> list[SiteVerdict]:
    """The verdicts of one runtime; of all their groups only those of the worst broken sites and of the worst held one
    stay, so that a report of many sites does not grow to many megabytes."""
    verdicts = list(verdicts)
    ranked = sorted((v for v in verdicts if v.group and v.metrics), key=_size, reverse=True)
    broken = [v for v in ranked if v.status.broken][:GROUPS]
    kept = {id(v) for v in [*broken, *[v for v in ranked if not v.status.broken][:1]]}
    return [v if id(v) in kept else replace(v, group=None) for v in verdicts]


def _size(verdict: SiteVerdict) -> float:
    return verdict.metrics.error_over_bound if verdict.metrics else 0.0


def _ratios(y: NDArray[Any], limits: Bounds, dtype: str) -> F64:
    """Error over bound of every element, NaN where nothing can be said, infinity for a number where none should be."""
    got = y.astype(np.float64)
    bound = limits.two_pass
    with np.errstate(all="ignore"):
        error = np.abs(got - limits.reference)
        ratios: F64 = np.where(error == 0, 0.0, error / bound)
    known = np.isfinite(got) & np.isfinite(limits.reference) & np.isfinite(bound)
    if known.all() and np.abs(limits.reference).max(initial=0.0) <= FORMATS[dtype].largest:
        return ratios  # what is below costs as much again
    ratios = np.where(known, ratios, np.nan)
    return np.where(nonfinite_mismatch(y, limits.reference, bound, dtype), np.inf, ratios)


def _evenly(count: int, worst: int) -> NDArray[np.int64]:
    """At most PICKED positions of ``count``, evenly spread, ``worst`` in the place of the nearest of them."""
    if count <= PICKED:
        return np.arange(count)
    picked = np.linspace(0, count - 1, PICKED).round().astype(np.int64)
    picked[int(np.abs(picked - worst).argmin())] = worst
    return picked


def _rounded(values: NDArray[Any], digits: int) -> tuple[float, ...]:
    return tuple(float(f"{v:.{digits}g}") for v in values.astype(np.float64))
