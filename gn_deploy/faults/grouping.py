"""Faults of which values are normalized together: groups, batch, tails of rows."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from gn_deploy.decision import Accepted, Decision, Rejected
from gn_deploy.faults.base import (
    Call,
    Fault,
    Formula,
    Kind,
    Needs,
    anywhere,
    both,
    group_size,
    several_groups,
    several_per_group,
    spread,
)
from gn_deploy.reference import F64
from gn_deploy.spec import GroupNormSpec

PADDING = 8  # one zero for every eight elements: a border of one pixel around 32 x 32


def _groups(count: Callable[[GroupNormSpec], int]) -> Formula:
    def run(call: Call) -> F64:
        return call.with_spec(num_groups=count(call.spec)).right()

    return run


def _reordered(order: Callable[[GroupNormSpec], NDArray[np.intp]]) -> Formula:
    """Groups are made of channels in another order; every channel keeps its own scale and bias."""

    def run(call: Call) -> F64:
        there = order(call.spec)
        return np.take(call.with_channels(there).right(), np.argsort(there), call.spec.channel_axis)

    return run


def _interleaved(spec: GroupNormSpec) -> NDArray[np.intp]:
    return np.arange(spec.num_channels).reshape(spec.channels_per_group, spec.num_groups).T.ravel()


def _late(spec: GroupNormSpec) -> NDArray[np.intp]:
    return np.roll(np.arange(spec.num_channels), -1)


def _statistics_of(part: Callable[[F64], F64]) -> Formula:
    """Mean and variance over what ``part`` makes of the rows (N, G, n)."""

    def run(call: Call) -> F64:
        parts = call.normalized()
        rows = part(parts.x.reshape(*parts.x.shape[:2], -1))
        mean = rows.mean(axis=-1, keepdims=True)[..., None]
        var = rows.var(axis=-1, keepdims=True)[..., None]
        return call.finish(parts, (parts.x - mean) / np.sqrt(var + call.spec.epsilon))

    return run


def _whole_batch(rows: F64) -> F64:
    return np.moveaxis(rows, 0, 1).reshape(1, rows.shape[1], -1)


def _padded(rows: F64) -> F64:
    return np.pad(rows, ((0, 0), (0, 0), (0, max(1, rows.shape[-1] // PADDING))))


def _without_tail(block: int) -> Fault:
    def needs(spec: GroupNormSpec, shape: Sequence[int]) -> Decision:
        n = group_size(spec, shape)
        if n < block:
            return Rejected(f"a group has {n} values, fewer than {block}")
        return Accepted() if n % block else Rejected(f"a group has {n} values, whole blocks of {block}")

    says = f"what is left of a row after whole blocks of {block} is not in the statistics"
    formula = _statistics_of(lambda rows: rows[..., : rows.shape[-1] // block * block])
    return Fault(f"tail after {block}s left out", Kind.TAIL, says, formula, needs)


def _asked(question: Callable[[GroupNormSpec], bool], reason: str) -> Needs:
    def ask(spec: GroupNormSpec, shape: Sequence[int]) -> Decision:
        return Accepted() if question(spec) else Rejected(reason)

    return ask


def _several_samples(spec: GroupNormSpec, shape: Sequence[int]) -> Decision:
    return Accepted() if shape[0] > 1 else Rejected("there is one sample")


_halved = _asked(lambda spec: spec.num_groups % 2 == 0, "an odd number of groups has no half")
_doubled = _asked(lambda spec: spec.channels_per_group % 2 == 0, "an odd number of channels per group has no half")
_swapped = _asked(lambda spec: spec.num_groups != spec.channels_per_group, "as many groups as channels per group")
_mixable = both(several_groups, several_per_group)

GROUPING = (
    Fault("half the groups", Kind.GROUPS, "there are half as many groups, each twice as large",
          _groups(lambda spec: spec.num_groups // 2), _halved),
    Fault("twice the groups", Kind.GROUPS, "there are twice as many groups, each half as large",
          _groups(lambda spec: spec.num_groups * 2), _doubled),
    Fault("groups swapped", Kind.GROUPS, "the number of groups was taken for the number of channels per group",
          _groups(lambda spec: spec.channels_per_group), _swapped),
    Fault("groups one channel late", Kind.GROUPS, "every group begins one channel late", _reordered(_late), _mixable),
    Fault("groups interleaved", Kind.GROUPS, "a group is made of every G-th channel instead of consecutive ones",
          _reordered(_interleaved), _mixable),
    Fault("per channel", Kind.GROUPS, "every channel is normalized alone: this is instance normalization",
          _groups(lambda spec: spec.num_channels), several_per_group),
    Fault("one group", Kind.GROUPS, "all channels are normalized together: this is layer normalization",
          _groups(lambda spec: 1), several_groups),
    Fault("batch statistics", Kind.BATCH, "mean and variance are taken over the whole batch",
          _statistics_of(_whole_batch), _several_samples),
    Fault("first sample's statistics", Kind.BATCH, "every sample is normalized with the first one's mean and variance",
          _statistics_of(lambda rows: rows[:1]), _several_samples),
    Fault("last element left out", Kind.TAIL, "the last value of every group is not in the statistics",
          _statistics_of(lambda rows: rows[..., :-1]), spread),
    _without_tail(32),
    _without_tail(64),
    Fault("padding counted", Kind.TAIL, "zeros that pad each group are counted in the statistics",
          _statistics_of(_padded), anywhere),
)  # fmt: skip
