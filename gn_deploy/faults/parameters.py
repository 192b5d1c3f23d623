"""Faults of scale, bias and modulation."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from gn_deploy.decision import Accepted, Decision, Rejected
from gn_deploy.faults.base import (
    Call,
    Fault,
    Formula,
    Kind,
    anywhere,
    several_channels,
    several_groups,
    several_per_group,
)
from gn_deploy.reference import F64, activate, affine
from gn_deploy.spec import GroupNormSpec

Change = Callable[[F64, GroupNormSpec], F64]
"""Scale or bias (C,) to what is used instead."""


def _changed(change: Change) -> Formula:
    def run(call: Call) -> F64:
        given = (call.scale, call.bias)
        scale, bias = (None if p is None else change(np.asarray(p, np.float64), call.spec) for p in given)
        return replace(call, scale=scale, bias=bias).right()

    return run


def _last_lost(call: Call) -> F64:
    """The loop over channels stops one early: the last one keeps its normalized value."""
    neutral = ((call.scale, 1.0), (call.bias, 0.0))
    scale, bias = (None if p is None else np.append(np.asarray(p, np.float64)[:-1], value) for p, value in neutral)
    return replace(call, scale=scale, bias=bias).right()


def _bias_first(call: Call) -> F64:
    """(z + b) w, and the modulation as it should be."""
    if call.bias is None:
        return call.right()
    scale = 1.0 if call.scale is None else np.asarray(call.scale, np.float64)
    return replace(call, bias=np.asarray(call.bias, np.float64) * scale).right()


def _without_plus_one(call: Call) -> F64:
    parts = call.normalized()
    weight, offset = affine(call.spec, np.shape(call.x)[0], call.scale, call.bias)
    y = parts.z * weight + offset
    if call.modulation_scale is not None:
        y = y * np.asarray(call.modulation_scale, np.float64).reshape(-1, *y.shape[1:3], 1)
    if call.modulation_shift is not None:
        y = y + np.asarray(call.modulation_shift, np.float64).reshape(-1, *y.shape[1:3], 1)
    return parts.back(activate(y, call.spec.activation))


def _modulated(spec: GroupNormSpec, shape: Sequence[int]) -> Decision:
    return Accepted() if spec.scale_shift else Rejected("it has no modulation")


def _first_of_group(values: F64, spec: GroupNormSpec) -> F64:
    return np.repeat(values[:: spec.channels_per_group], spec.channels_per_group)


def _first_group(values: F64, spec: GroupNormSpec) -> F64:
    return np.tile(values[: spec.channels_per_group], spec.num_groups)


PARAMETERS = (
    Fault("affine per group", Kind.AFFINE, "all channels of a group get the scale and bias of its first one",
          _changed(_first_of_group), several_per_group),
    Fault("affine tiled", Kind.AFFINE, "every group gets the scale and bias of the first group",
          _changed(_first_group), several_groups),
    Fault("affine one channel off", Kind.AFFINE, "every channel gets the scale and bias of the one before it",
          _changed(lambda values, spec: np.roll(values, 1)), several_channels),
    Fault("scale dropped", Kind.AFFINE, "the scale is not applied", lambda call: replace(call, scale=None).right(),
          anywhere),
    Fault("bias dropped", Kind.AFFINE, "the bias is not added", lambda call: replace(call, bias=None).right(),
          anywhere),
    Fault("last channel's affine lost", Kind.AFFINE, "the last channel gets neither scale nor bias", _last_lost,
          anywhere),
    Fault("bias before scale", Kind.AFFINE, "the bias is added before the scale is applied", _bias_first, anywhere),
    Fault("modulation dropped", Kind.AFFINE, "the per-sample scale and shift are not applied",
          lambda call: replace(call, modulation_scale=None, modulation_shift=None).right(), _modulated),
    Fault("modulation without 1 +", Kind.AFFINE, "the per-sample scale s multiplies by s instead of 1 + s",
          _without_plus_one, _modulated),
)  # fmt: skip
