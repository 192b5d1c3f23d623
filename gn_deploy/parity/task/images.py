"""Metrics of images and features: PSNR, SSIM, cosine similarity, one number per sample."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gn_deploy.errors import InputError
from gn_deploy.reference import F64

Array = NDArray[Any]
WINDOW, SIGMA = 11, 1.5  # Wang et al. 2004, section III.C
K1, K2 = 0.01, 0.03  # the same


def psnr(got: Array, wanted: Array, *, data_range: float) -> F64:
    """20 log10(data_range / rms error) in dB per sample; infinite where nothing differs."""
    got, wanted = _alike(got, wanted)
    squared = np.square(got - wanted).reshape(len(got), -1).mean(1)
    with np.errstate(divide="ignore"):
        decibels: F64 = 20 * np.log10(data_range) - 10 * np.log10(squared)
    return decibels


def ssim(got: Array, wanted: Array, *, data_range: float) -> F64:
    """Structural similarity of (N, ..., H, W), the mean over every window and channel, per sample.

    Windows are Gaussian, 11 x 11 with sigma 1.5, K1 = 0.01, K2 = 0.03, and lie wholly inside the image (Wang, Bovik,
    Sheikh, Simoncelli, IEEE Trans. Image Processing 13, 2004).
    """
    x, y = _alike(got, wanted)
    if x.ndim < 3 or min(x.shape[-2:]) < WINDOW:
        raise InputError(f"SSIM of images {x.shape}", f"needed: (N, ..., H, W), both at least {WINDOW}")
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    mean_x, mean_y, xx, yy, xy = (_blurred(a) for a in (x, y, x * x, y * y, x * y))
    var_x, var_y, cov = xx - mean_x**2, yy - mean_y**2, xy - mean_x * mean_y
    similar = (2 * mean_x * mean_y + c1) * (2 * cov + c2)
    similar /= (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    each: F64 = similar.reshape(len(x), -1).mean(1)
    return each


def cosine(got: Array, wanted: Array) -> F64:
    """Of the angle between the two as vectors, per sample; 1 where both are zero."""
    x, y = (a.reshape(len(a), -1) for a in _alike(got, wanted))
    size = np.sqrt(np.square(x).sum(1) * np.square(y).sum(1))
    both_zero = ~x.any(1) & ~y.any(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(both_zero, 1.0, np.where(size > 0, (x * y).sum(1) / size, 0.0))


def usual_range(images: Array) -> float:
    """What the numbers of images can span: a byte's 255, 1 or 2 for floats within 0..1 or -1..1, else what they do."""
    if np.issubdtype(images.dtype, np.integer):
        return float(np.iinfo(images.dtype).max)
    low, high = float(np.nanmin(images)), float(np.nanmax(images))
    if low >= -1 and high <= 1:
        return 1.0 if low >= 0 else 2.0
    return high - low


def _alike(got: Array, wanted: Array) -> tuple[F64, F64]:
    if got.shape != wanted.shape:
        raise InputError(f"the output has shape {got.shape}, what is wanted {wanted.shape}", "they must be equal")
    return got.astype(np.float64), wanted.astype(np.float64)


def _blurred(images: F64) -> F64:
    """Weighted by the Gaussian window along both of the last two axes, where it lies inside."""
    steps = np.arange(WINDOW) - WINDOW // 2
    window = np.exp(-0.5 * (steps / SIGMA) ** 2)
    window /= window.sum()
    for axis in (-2, -1):
        images = np.lib.stride_tricks.sliding_window_view(images, WINDOW, axis=axis) @ window
    return images
