"""Faults of single elements and of where they are: stale ones, transposed ones, NaN and Inf that vanish."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gn_deploy.decision import Accepted, Decision, Rejected
from gn_deploy.faults.base import Call, Fault, Formula, Kind, anywhere
from gn_deploy.reference import F64
from gn_deploy.spec import GroupNormSpec

SLIP = 0.05  # of the root mean square of y: what no picture shows


def _stale(last: bool) -> Formula:
    """The element holds what another one should: the buffer's first value."""

    def run(call: Call) -> F64:
        y = call.right().copy()
        flat = y.reshape(-1)
        flat[-1 if last else flat.size // 2] = flat[0]
        return y

    return run


def _slipped(call: Call) -> F64:
    y = call.right().copy()
    flat = y.reshape(-1)
    flat[flat.size // 2] += SLIP * math.sqrt(np.square(flat[np.isfinite(flat)]).mean())
    return y


def _transposed(call: Call) -> F64:
    """The memory of the last two spatial axes in the other order, read in the right one."""
    y = call.right()
    first = y.ndim - 2 if call.spec.channel_axis == 1 else y.ndim - 3
    return np.swapaxes(y, first, first + 1).reshape(y.shape)


def _swallowed(special: str) -> Formula:
    find = np.isnan if special == "nan" else np.isinf

    def run(call: Call) -> F64:
        x, residual = (
            None if a is None else np.where(find(v := np.asarray(a, np.float64)), 0.0, v)
            for a in (call.x, call.residual)
        )
        assert x is not None
        return replace(call, x=x, residual=residual).right()

    return run


def _two_spatial(spec: GroupNormSpec, shape: Sequence[int]) -> Decision:
    first = len(shape) - 2 if spec.channel_axis == 1 else len(shape) - 3
    if len(shape) < 4:
        return Rejected("there are fewer than two spatial axes")
    return Accepted() if min(shape[first : first + 2]) > 1 else Rejected("an axis of one element has no order")


def _several_elements(spec: GroupNormSpec, shape: Sequence[int]) -> Decision:
    return Accepted() if math.prod(shape) > 1 else Rejected("there is one element")


ELEMENTS = (
    Fault("one element stale", Kind.STALE, "one element was not written: it holds an older value", _stale(False),
          _several_elements),
    Fault("last element stale", Kind.STALE, "the last element was not written: it holds an older value", _stale(True),
          _several_elements),
    Fault("one element 5 % off", Kind.STALE, "one element is off by 5 % of the root mean square", _slipped, anywhere),
    Fault("height and width swapped", Kind.LAYOUT, "the last two spatial axes were exchanged", _transposed,
          _two_spatial),
    Fault("NaN swallowed", Kind.NAN, "a NaN in the input is taken for 0 and its group comes out finite",
          _swallowed("nan"), anywhere),
    Fault("Inf swallowed", Kind.NAN, "an Inf in the input is taken for 0 and its group comes out finite",
          _swallowed("inf"), anywhere),
)  # fmt: skip
