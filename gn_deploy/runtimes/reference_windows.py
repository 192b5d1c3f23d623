"""ONNX convolution and pooling in NumPy by kernel offsets: 10 to 1000 times faster than onnx.reference."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun

from gn_deploy.runtimes.base import Array
from gn_deploy.runtimes.reference_ops import per_channel, theirs, widened

SAME = ("SAME_UPPER", "SAME_LOWER")
COLUMN_BYTES = 1 << 26  # of unfolded input per matrix product; few large products: each one waits for all BLAS threads


class Windows:
    """Where a kernel slides: ``shape`` of the output, and for each kernel offset the slices of the input it sees."""

    def __init__(self, size: Sequence[int], kernel: Sequence[int], attributes: dict[str, Any]) -> None:
        """``size`` and ``kernel`` are spatial; strides, dilations and pads are those of the ONNX node, if any."""
        rank = len(kernel)
        self._strides = attributes.get("strides") or [1] * rank
        self._dilations = attributes.get("dilations") or [1] * rank
        pads = attributes.get("pads") or [0] * 2 * rank
        self._pads = [(pads[i], pads[i + rank]) for i in range(rank)]
        extent = [(k - 1) * d + 1 for k, d in zip(kernel, self._dilations, strict=True)]
        sides = zip(size, self._pads, extent, self._strides, strict=True)
        self.shape = tuple((n + a + b - e) // s + 1 for n, (a, b), e, s in sides)

    def padded(self, x: Array, value: float) -> Array:
        """(N, C, ...) with the borders filled with ``value``."""
        return np.pad(x, [(0, 0), (0, 0), *self._pads], constant_values=value) if any(map(any, self._pads)) else x

    def at(self, offset: Sequence[int]) -> Any:
        """Index of what the kernel's element at ``offset`` sees, for all output positions."""
        return every(offset, self._dilations, self.shape, self._strides)


def every(offset: Sequence[int], dilations: Sequence[int], count: Sequence[int], strides: Sequence[int]) -> Any:
    """Index of ``count`` positions, ``strides`` apart, from ``offset * dilations`` on, along the last axes."""
    steps = zip(offset, dilations, count, strides, strict=True)
    return (..., *(slice(o * d, o * d + (n - 1) * s + 1, s) for o, d, n, s in steps))


class Conv(OpRun):
    """ONNX Conv as matrix products over as many kernel offsets at once as fit in COLUMN_BYTES: any rank, groups."""

    def _run(self, x: Array, weight: Array, bias: Array | None = None, **attributes: Any) -> tuple[Array, ...]:
        if attributes.get("auto_pad") in SAME:
            return theirs(self, x, weight) if bias is None else theirs(self, x, weight, bias)
        groups = attributes.get("group") or 1
        windows = Windows(x.shape[2:], weight.shape[2:], attributes)
        data = windows.padded(widened(x), 0)
        data = data.reshape(x.shape[0], groups, -1, *data.shape[2:])
        kernel = np.moveaxis(widened(weight).reshape(groups, -1, *weight.shape[1:]), 2, -1)
        places, offsets = math.prod(windows.shape), list(np.ndindex(*weight.shape[2:]))
        kernel = kernel.reshape(groups, -1, len(offsets), weight.shape[1])  # (G, O / G, offsets, I)
        y = np.zeros((x.shape[0], groups, kernel.shape[1], places), data.dtype)
        step = max(1, COLUMN_BYTES // (math.prod(data.shape[:3]) * places * data.itemsize or 1))
        for some in (slice(at, at + step) for at in range(0, len(offsets), step)):
            columns = np.stack([data[windows.at(offset)] for offset in offsets[some]], axis=2)
            flat = kernel[:, :, some].reshape(*kernel.shape[:2], -1)
            y += np.matmul(flat, columns.reshape(*data.shape[:2], flat.shape[-1], places))
        y = y.reshape(x.shape[0], -1, *windows.shape)
        if bias is not None:
            y += per_channel(widened(bias), x.ndim)
        return (y.astype(x.dtype),)


class ConvTranspose(OpRun):
    """ONNX ConvTranspose, the adjoint of ``Conv``: every kernel offset is scattered into the output."""

    def _run(self, x: Array, weight: Array, bias: Array | None = None, **attributes: Any) -> tuple[Array, ...]:
        if attributes.get("auto_pad") in SAME or attributes.get("output_shape"):
            return theirs(self, x, weight) if bias is None else theirs(self, x, weight, bias)
        rank, groups, size = x.ndim - 2, attributes.get("group") or 1, x.shape[2:]
        strides = attributes.get("strides") or [1] * rank
        dilations = attributes.get("dilations") or [1] * rank
        extra = attributes.get("output_padding") or [0] * rank
        pads = attributes.get("pads") or [0] * 2 * rank
        sides = zip(size, strides, weight.shape[2:], dilations, extra, strict=True)
        full = [(n - 1) * s + (k - 1) * d + 1 + o for n, s, k, d, o in sides]
        data = widened(x).reshape(x.shape[0], groups, x.shape[1] // groups, -1)
        kernel = widened(weight).reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
        kernel = np.ascontiguousarray(np.moveaxis(kernel, (1, 2), (-1, -2)))  # (G, ..., O / G, I / G), as BLAS wants it
        y = np.zeros((x.shape[0], groups, weight.shape[1], *full), data.dtype)
        for offset in np.ndindex(*weight.shape[2:]):
            place = every(offset, dilations, size, strides)
            y[place] += np.matmul(kernel[(slice(None), *offset)], data).reshape(*y.shape[:3], *size)
        inner: Any = (..., *(slice(pads[i], full[i] - pads[i + rank]) for i in range(rank)))
        y = y.reshape(x.shape[0], -1, *full)[inner]
        if bias is not None:
            y = y + per_channel(widened(bias), x.ndim)
        return (y.astype(x.dtype),)


class MaxPool(OpRun):
    """ONNX MaxPool as a running maximum; indices, ceil_mode, integers and SAME padding take onnx.reference's way."""

    def _run(self, x: Array, **attributes: Any) -> tuple[Array, ...]:
        unusual = len(self.output) > 1 or attributes.get("ceil_mode") or attributes.get("auto_pad") in SAME
        if unusual or x.dtype.kind in "iu":
            return theirs(self, x)
        windows = Windows(x.shape[2:], attributes["kernel_shape"], attributes)
        data = windows.padded(x, -np.inf)
        y = np.full((*x.shape[:2], *windows.shape), -np.inf, x.dtype)
        for offset in np.ndindex(*attributes["kernel_shape"]):
            y = np.maximum(y, data[windows.at(offset)])
        return (y,)


class AveragePool(OpRun):
    """ONNX AveragePool as a running sum; ceil_mode and SAME padding take onnx.reference's way."""

    def _run(self, x: Array, **attributes: Any) -> tuple[Array, ...]:
        if attributes.get("ceil_mode") or attributes.get("auto_pad") in SAME:
            return theirs(self, x)
        windows = Windows(x.shape[2:], attributes["kernel_shape"], attributes)
        data = windows.padded(widened(x), 0)
        border = 1 if attributes.get("count_include_pad") else 0
        inside = windows.padded(np.ones((1, 1, *x.shape[2:]), data.dtype), border)
        total = np.zeros((*x.shape[:2], *windows.shape), data.dtype)
        count = np.zeros((1, 1, *windows.shape), data.dtype)
        for offset in np.ndindex(*attributes["kernel_shape"]):
            total += data[windows.at(offset)]
            count += inside[windows.at(offset)]
        return ((total / count).astype(x.dtype),)


OPS: list[type[OpRun]] = [Conv, ConvTranspose, MaxPool, AveragePool]
