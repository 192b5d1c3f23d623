"""What a fault is, one call of a GroupNorm that it may spoil, and when it can act at all."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gn_deploy.decision import Accepted, Decision, Rejected
from gn_deploy.reference import F64, Normalized, activate, affine, group_norm, normalize
from gn_deploy.spec import GroupNormSpec


class Kind(StrEnum):
    """The part of the computation that a fault is in."""

    EPSILON = "epsilon"
    VARIANCE = "variance"
    GROUPS = "groups"
    AFFINE = "affine"
    BATCH = "batch"
    TAIL = "tail"
    STALE = "stale"
    LAYOUT = "layout"
    PRECISION = "precision"
    ACTIVATION = "activation"
    RESIDUAL = "residual"
    NAN = "nan"


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """One GroupNorm's inputs; shapes as ``reference.group_norm`` takes them, absent parameters None."""

    x: ArrayLike
    spec: GroupNormSpec
    scale: ArrayLike | None = None
    bias: ArrayLike | None = None
    residual: ArrayLike | None = None
    modulation_scale: ArrayLike | None = None
    modulation_shift: ArrayLike | None = None

    def right(self) -> F64:
        """The oracle's answer, of x's shape."""
        return group_norm(
            self.x,
            self.spec,
            self.scale,
            self.bias,
            residual=self.residual,
            modulation_scale=self.modulation_scale,
            modulation_shift=self.modulation_shift,
        )

    def normalized(self) -> Normalized:
        """x with the residual added, its statistics and z, as (N, G, D, P)."""
        return normalize(self.x, self.spec, residual=self.residual)

    def affine(self) -> tuple[F64, F64]:
        """Multiplier and offset, (1 or N, G, D, 1) each."""
        return affine(
            self.spec, np.shape(self.x)[0], self.scale, self.bias, self.modulation_scale, self.modulation_shift
        )

    def finish(self, parts: Normalized, z: F64) -> F64:
        """``z`` (N, G, D, P) with the right scale, bias and activation, of x's shape."""
        weight, offset = self.affine()
        return parts.back(activate(z * weight + offset, self.spec.activation))

    def with_channels(self, order: NDArray[np.intp]) -> "Call":
        """The same call on channels in another order: new channel i is old channel ``order[i]``."""

        def taken(array: ArrayLike | None, axis: int) -> ArrayLike | None:
            return None if array is None else np.take(np.asarray(array), order, axis)

        at = self.spec.channel_axis
        return replace(
            self,
            x=np.take(np.asarray(self.x), order, at),
            residual=taken(self.residual, at),
            scale=taken(self.scale, 0),
            bias=taken(self.bias, 0),
            modulation_scale=taken(self.modulation_scale, 1),
            modulation_shift=taken(self.modulation_shift, 1),
        )

    def with_spec(self, **changes: object) -> "Call":
        return replace(self, spec=replace(self.spec, **changes))  # type: ignore[arg-type]


Formula = Callable[[Call], F64]
Needs = Callable[[GroupNormSpec, Sequence[int]], Decision]
"""Whether a fault can act on a GroupNorm with an x of that shape."""


@dataclass(frozen=True, slots=True, eq=False)
class Fault:
    """A GroupNorm with one thing wrong.

    1. ``compute`` answers in float64, not yet rounded to the output's dtype. Faults of arithmetic (``Kind.PRECISION``
       and the one-pass variance) round inside, to what the faulty implementation would have had.
    2. ``says`` is one sentence about what went wrong, for a report.
    """

    name: str
    kind: Kind
    says: str
    formula: Formula
    needs: Needs

    def compute(
        self,
        x: ArrayLike,
        spec: GroupNormSpec,
        scale: ArrayLike | None = None,
        bias: ArrayLike | None = None,
        *,
        residual: ArrayLike | None = None,
        modulation_scale: ArrayLike | None = None,
        modulation_shift: ArrayLike | None = None,
    ) -> F64:
        """The wrong answer, of x's shape; arguments as ``reference.group_norm``. Ask ``applies`` first."""
        with np.errstate(all="ignore"):  # NaN and Inf are answers here
            return self.formula(Call(x, spec, scale, bias, residual, modulation_scale, modulation_shift))


def anywhere(spec: GroupNormSpec, shape: Sequence[int]) -> Decision:
    return Accepted()


def group_size(spec: GroupNormSpec, shape: Sequence[int]) -> int:
    """Elements of one group of one sample."""
    return math.prod(shape) // (shape[0] * spec.num_groups)


def spread(spec: GroupNormSpec, shape: Sequence[int]) -> Decision:
    """More than one value per group."""
    return Accepted() if group_size(spec, shape) > 1 else Rejected("a group of one value is its own mean: z is 0")


def several_groups(spec: GroupNormSpec, shape: Sequence[int]) -> Decision:
    return Accepted() if spec.num_groups > 1 else Rejected("there is one group")


def several_per_group(spec: GroupNormSpec, shape: Sequence[int]) -> Decision:
    return Accepted() if spec.channels_per_group > 1 else Rejected("a group has one channel")


def several_channels(spec: GroupNormSpec, shape: Sequence[int]) -> Decision:
    return Accepted() if spec.num_channels > 1 else Rejected("there is one channel")


def both(*needs: Needs) -> Needs:
    """All of ``needs``; the first that is not met gives the reason."""

    def ask(spec: GroupNormSpec, shape: Sequence[int]) -> Decision:
        return next((no for need in needs if not (no := need(spec, shape))), Accepted())

    return ask
