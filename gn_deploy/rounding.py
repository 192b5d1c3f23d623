"""Floating-point formats: how coarse each one is, and numbers rounded to it."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import ml_dtypes  # noqa: F401  (registers bfloat16 with NumPy)
import numpy as np
from numpy.typing import NDArray


class Format(NamedTuple):
    """A floating-point format: unit roundoff (half the distance from 1 to the next number), extremes."""

    u: float
    largest: float
    least: float
    """The least subnormal."""


FORMATS = {
    "float64": Format(2.0**-53, float(np.finfo(np.float64).max), 2.0**-1074),
    "float32": Format(2.0**-24, float(np.finfo(np.float32).max), 2.0**-149),
    "float16": Format(2.0**-11, 65504.0, 2.0**-24),
    "bfloat16": Format(2.0**-8, (2 - 2.0**-7) * 2.0**127, 2.0**-133),
    "tf32": Format(2.0**-11, float(np.finfo(np.float32).max), 2.0**-149),  # products of float32 on NVIDIA tensor cores
}


def coarser(*dtypes: str) -> str:
    """The one with the fewest bits of precision; words that are no floating-point type are passed over."""
    return max((d for d in dtypes if d in FORMATS), key=lambda dtype: FORMATS[dtype].u)


def finer(dtype: str, other: str) -> bool:
    """Whether ``dtype`` has more bits of precision than ``other``."""
    return FORMATS[dtype].u < FORMATS[other].u


def below(dtype: str) -> Iterable[str]:
    """Precisions with fewer bits than ``dtype``, the finest first; between two with as many, that of wider range."""
    order = sorted(FORMATS, key=lambda name: (FORMATS[name].u, -FORMATS[name].largest))
    return [name for name in order if finer(dtype, name)]


def rounded(values: Any, name: str) -> NDArray[Any]:
    """To the nearest number of a precision, ties to even, in the dtype they had."""
    values = np.asarray(values)
    with np.errstate(over="ignore"):
        if name != "tf32":
            return np.asarray(values.astype(name).astype(values.dtype))
        bits = values.astype(np.float32).view(np.uint32)
        even = (bits >> np.uint32(13)) & np.uint32(1)  # 13: the bits of float32 that TF32 lacks
        cut = (bits + np.uint32(0xFFF) + even) & np.uint32(0xFFFFE000)
        return np.asarray(np.where(np.isfinite(values), cut.view(np.float32), values).astype(values.dtype))
