"""Tensors that come in around a GroupNorm, residual and modulation: drawn for a probe, and as the oracle takes them."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gn_deploy.parity.cases import Array

if TYPE_CHECKING:
    import onnx_ir as ir


def draw(entry: "ir.Value", operands: "Mapping[str, ir.Value]", x: Array, channel_axis: int) -> dict[str, Array]:
    """An array in x's dtype for every operand, by the names of ``GroupNormSite.operands``; ``entry`` is given x.

    A residual is half of x the other way round, so that the sum has the scale and offset that x was drawn for.
    """
    rng = np.random.default_rng(1)
    spatial = _spatial(x, channel_axis)
    given = {entry: x}  # one tensor may come in twice
    for name, value in operands.items():
        if value in given:
            continue
        shape = _shape(name, list(value.shape or ()), x, channel_axis)
        if name == "residual":
            whole = shape == x.shape
            part = tuple(slice(1) if i in spatial and not whole else slice(None) for i in range(x.ndim))
            given[value] = (np.flip(x, spatial)[part] / 2).reshape(shape).astype(x.dtype)
        else:
            given[value] = rng.standard_normal(shape).astype(x.dtype)
    return {name: given[value] for name, value in operands.items()}


def for_oracle(operands: Mapping[str, Array], x: Array, channel_axis: int) -> dict[str, Any]:
    """The same as ``reference.group_norm`` takes them: residual of x's shape, modulation (N, C)."""
    told: dict[str, Any] = {}
    if "residual" in operands:
        residual = operands["residual"]
        if residual.ndim < x.ndim:
            residual = np.expand_dims(residual, _spatial(x, channel_axis))
        bias = operands.get("residual_bias", np.zeros(1, x.dtype))
        along = [-1 if i == channel_axis % x.ndim else 1 for i in range(x.ndim)]
        told["residual"] = np.broadcast_to(residual, x.shape) + bias.reshape(along)
    for name in ("modulation_scale", "modulation_shift"):
        if name in operands:
            rows = operands[name].reshape(len(operands[name]), -1)
            told[name] = np.broadcast_to(rows, (x.shape[0], rows.shape[1]))
    return told


def _shape(name: str, declared: Sequence[object], x: Array, channel_axis: int) -> tuple[int, ...]:
    """``declared`` may be unknown, (); the widest that fits is drawn then."""
    samples, channels, inner = x.shape[0], x.shape[channel_axis], _spatial(x, channel_axis)
    if name == "residual_bias":
        return (channels,)
    if len(declared) == 2 < x.ndim:
        return (samples, channels)
    narrow = len(declared) == x.ndim and all(declared[i] == 1 for i in inner)
    if name == "residual" and not narrow:
        return x.shape
    shape = [1 if i in inner else n for i, n in enumerate(x.shape)]
    if declared and declared[0] == 1:
        shape[0] = 1
    return tuple(shape)


def _spatial(x: Array, channel_axis: int) -> tuple[int, ...]:
    return tuple(i for i in range(1, x.ndim) if i != channel_axis % x.ndim)
