"""GridSample in NumPy, in the type of its input: onnx.reference computes it in float32 whatever that is."""

from itertools import product
from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun

from gn_deploy.runtimes.base import Array
from gn_deploy.runtimes.reference_ops import widened

_CUBIC = -0.75  # the coefficient of the cubic convolution (Keys 1981) that ONNX and torch take
_MODES = {"linear": 1, "bilinear": 1, "nearest": 0, "cubic": 3, "bicubic": 3}
"""Mode -> degree of the interpolation."""


class GridSample(OpRun):
    """ONNX GridSample 16 to 22: X (N, C, D1, ..., Dr) at the points of grid (N, d1, ..., dr, r), last axis first."""

    def _run(
        self, x: Array, grid: Array, align_corners: int = 0, mode: str = "linear", padding_mode: str = "zeros"
    ) -> tuple[Array]:
        wide, points = widened(x), widened(grid).astype(widened(x).dtype)
        sizes = x.shape[2:]
        taps = []
        for axis, size in enumerate(sizes):
            at = points[..., len(sizes) - 1 - axis]
            at = (at + 1) / 2 * (size - 1) if align_corners else ((at + 1) * size - 1) / 2
            degree = _MODES[mode]
            if degree < 3:  # cubic interpolation pads each of the pixels it reads, the others the point
                at = _inside(at, size, padding_mode, align_corners)
            taps.append(_taps(at, degree))
        batch = np.arange(x.shape[0]).reshape(-1, *[1] * len(sizes))
        total = np.zeros((*points.shape[:-1], x.shape[1]), wide.dtype)
        for corner in product(*taps):
            weight = np.ones(points.shape[:-1], wide.dtype)
            indices = []
            for (place, share), size in zip(corner, sizes, strict=True):
                if padding_mode != "zeros":
                    place = _inside(place, size, padding_mode, align_corners)
                weight = weight * np.where((place >= 0) & (place <= size - 1), share, 0)
                indices.append(np.clip(place, 0, size - 1).astype(np.int64))
            where: tuple[Any, ...] = (batch, slice(None), *indices)
            total += weight[..., None] * wide[where]
        return (np.moveaxis(total, -1, 1).astype(x.dtype),)


def _taps(at: Array, degree: int) -> list[tuple[Array, Array]]:
    """The pixels that a point is made of along one axis, and the share of each."""
    if degree == 0:
        return [(np.rint(at), np.ones_like(at))]
    first = np.floor(at)
    t = at - first
    if degree == 1:
        return [(first, 1 - t), (first + 1, t)]
    return [(first + i, _cubic(np.abs(t - i))) for i in (-1, 0, 1, 2)]


def _cubic(d: Array) -> Array:
    near = ((_CUBIC + 2) * d - (_CUBIC + 3)) * d * d + 1
    far = ((d - 5) * d + 8) * d * _CUBIC - 4 * _CUBIC
    return np.asarray(np.where(d <= 1, near, far))


def _inside(at: Array, size: int, padding_mode: str, align_corners: int) -> Array:
    """Coordinates brought into the tensor; those of "zeros" stay, what is outside counts as nothing."""
    if padding_mode == "zeros":
        return at
    if padding_mode == "reflection":
        low, high = (0.0, size - 1.0) if align_corners else (-0.5, size - 0.5)
        span = high - low
        folded = np.abs(at - low) % (2 * span) if span else np.zeros_like(at)
        at = low + np.where(folded > span, 2 * span - folded, folded)
    return np.clip(at, 0, size - 1)


OPS: list[type[OpRun]] = [GridSample]
