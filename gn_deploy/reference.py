"""The oracle: Group Normalization in float64 NumPy, two passes, the only reference anything is judged against."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gn_deploy.errors import InputError
from gn_deploy.spec import Activation, GroupNormSpec

F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Normalized:
    """x of shape (N, C, ...) seen as (N, G, D, P): D = C / G channels per group, P spatial positions.

    1. Every array is float64 in that layout; ``back`` returns one to the shape of x.
    2. ``x`` is what the statistics were taken over, that is with the residual added.
    3. ``mean`` and ``var`` (biased) are (N, G, 1, 1).
    """

    x: F64
    z: F64
    """(x - mean) / sqrt(var + epsilon)."""
    mean: F64
    var: F64
    shape: tuple[int, ...]
    channel_axis: int

    def back(self, values: F64) -> F64:
        """(N, G, D, P) -> the shape of x."""
        n, c = values.shape[0], values.shape[1] * values.shape[2]
        if self.channel_axis == 1:
            return values.reshape(self.shape)
        return np.moveaxis(values.reshape(n, c, *self.shape[1:-1]), 1, -1)


def group_norm(
    x: ArrayLike,
    spec: GroupNormSpec,
    scale: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    residual: ArrayLike | None = None,
    modulation_scale: ArrayLike | None = None,
    modulation_shift: ArrayLike | None = None,
) -> F64:
    """activation(((x + residual) - mean) / sqrt(var + eps) * scale + bias) in float64 (Wu & He 2018, eq. 1-2).

    x and residual: (N, C, ...), or (N, ..., C) when ``spec.channel_axis`` is -1. scale and bias: (C,).
    With a modulation s, t of shape (N, C) the affine result is multiplied by 1 + s and moved by t before the
    activation (adaptive GroupNorm, FiLM). NaN and Inf stay in their own group. Raises InputError on a wrong shape.
    """
    parts = normalize(x, spec, residual=residual)
    weight, offset = affine(spec, parts.x.shape[0], scale, bias, modulation_scale, modulation_shift)
    with np.errstate(all="ignore"):
        return parts.back(activate(parts.z * weight + offset, spec.activation))


def normalize(x: ArrayLike, spec: GroupNormSpec, *, residual: ArrayLike | None = None) -> Normalized:
    """The statistics and the normalized values; variance from centred values, so no mean is too large."""
    values = _grouped(x, spec, "x")
    if residual is not None:
        added = _grouped(residual, spec, "residual")
        if added.shape != values.shape:
            raise InputError(f"residual has shape {np.shape(residual)}, x has {np.shape(x)}", "they must be equal")
        values = values + added
    with np.errstate(all="ignore"):  # NaN and Inf are answers here, not accidents
        mean = values.mean(axis=(2, 3), keepdims=True)
        centred = values - mean
        # The mean's own rounding error is the mean of what is left: one correction makes it negligible at any offset.
        slip = centred.mean(axis=(2, 3), keepdims=True)
        centred -= slip
        var = np.square(centred).mean(axis=(2, 3), keepdims=True)
        z = centred / np.sqrt(var + spec.epsilon)
    return Normalized(values, z, mean + slip, var, np.shape(x), spec.channel_axis)


def affine(
    spec: GroupNormSpec,
    batch: int,
    scale: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    modulation_scale: ArrayLike | None = None,
    modulation_shift: ArrayLike | None = None,
) -> tuple[F64, F64]:
    """The one multiplier and the one offset that scale, bias and modulation amount to, as (1 or N, G, D, 1)."""
    weight = _per_channel(scale, spec, 1.0, "scale", (spec.num_channels,))
    offset = _per_channel(bias, spec, 0.0, "bias", (spec.num_channels,))
    per_sample = (batch, spec.num_channels)
    if modulation_scale is not None:
        gain = 1.0 + _per_channel(modulation_scale, spec, 0.0, "modulation_scale", per_sample)
        weight, offset = weight * gain, offset * gain
    if modulation_shift is not None:
        offset = offset + _per_channel(modulation_shift, spec, 0.0, "modulation_shift", per_sample)
    return weight, offset


def activate(y: F64, activation: Activation) -> F64:
    """The activation in float64, relatively accurate also where it vanishes; exact limits at infinity, NaN kept."""
    with np.errstate(all="ignore"):
        match activation:
            case Activation.NONE:
                return y
            case Activation.RELU:
                return np.where(y < 0, 0.0, y)
            case Activation.HARDSWISH:
                return np.where(y <= -3, 0.0, y * np.minimum((y + 3) / 6, 1))
            case Activation.SILU:
                gate = _sigmoid(y)
            case Activation.GELU:  # erfc, since 1 + erf cancels
                gate = 0.5 * _erfc(y * -math.sqrt(0.5))
            case Activation.GELU_TANH:  # (1 + tanh t) / 2 is sigmoid(2 t)
                gate = _sigmoid(math.sqrt(8 / math.pi) * (y + 0.044715 * y**3))
            case Activation.MISH:  # tanh(log(1 + e)) is e (e + 2) / (e (e + 2) + 2); in 1 / e it does not overflow
                e = np.exp(-np.abs(y))
                gate = np.where(y < 0, e * (e + 2) / (e * (e + 2) + 2), (1 + 2 * e) / (1 + 2 * e + 2 * e * e))
        return np.where(y == -np.inf, 0.0, y * gate)


def _sigmoid(y: F64) -> F64:
    return 1.0 / (1.0 + np.exp(-y))


def _erfc(y: F64) -> F64:
    """NumPy has none; 0.13 s for a million numbers."""
    return np.fromiter(map(math.erfc, y.ravel().tolist()), np.float64, y.size).reshape(y.shape)


def _grouped(x: ArrayLike, spec: GroupNormSpec, name: str) -> F64:
    array = np.asarray(x)
    if array.ndim < 2:
        raise InputError(f"{name} has shape {array.shape}", "GroupNorm needs (N, C, ...), at least two axes")
    channels = array.shape[spec.channel_axis]
    if channels != spec.num_channels:
        raise InputError(
            f"{name} has {channels} channels on axis {spec.channel_axis}, the GroupNorm has {spec.num_channels}"
        )
    if array.size == 0:
        raise InputError(f"{name} has shape {array.shape}: there is nothing to normalize")
    moved = np.moveaxis(array, spec.channel_axis, 1).astype(np.float64)
    return moved.reshape(array.shape[0], spec.num_groups, spec.channels_per_group, -1)


def _per_channel(
    values: ArrayLike | None, spec: GroupNormSpec, default: float, name: str, shape: tuple[int, ...]
) -> F64:
    if values is None:
        return np.full((1, 1, 1, 1), default)
    array: NDArray[Any] = np.asarray(values)
    if array.shape != shape:
        raise InputError(f"{name} has shape {array.shape}, needed {shape}", "one number per channel")
    return array.astype(np.float64).reshape(-1, spec.num_groups, spec.channels_per_group, 1)
