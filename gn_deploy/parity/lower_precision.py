"""Whether what is outside the bound is the right function in a lower precision than promised, and in which."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gn_deploy.parity.metrics import by_slot, classify
from gn_deploy.parity.status import Status
from gn_deploy.parity.tolerance import Bounds, bounds
from gn_deploy.reference import F64, activate, affine, normalize
from gn_deploy.rounding import FORMATS, below, rounded
from gn_deploy.spec import GroupNormSpec

Array = NDArray[Any]
_FAR = 8.0  # bounds: from float32 to TF32 it is 8192 of them; less proves little, where data are badly conditioned
_WIDE = 4.0  # by how much a bound may be wider than the error: from float16 to bfloat16 it is eight times at most
_STORES = 4  # difference, quotient, product, sum: what a kernel in a lower precision may store on its way
_DISTINCT = 8  # numbers: that so many float32 have thirteen zeros at their end by chance is one in 2^104
_SPREAD = 0.25  # of the elements: rounding moves nearly all, a stale or a changed one is alone
_LEFT = 0.05  # of the squared error, after the fit: a function leaves rounding of the promised precision, 1e-6 and less
_ROUGH = 0.3  # von Neumann's ratio (Ann. Math. Statist. 12, 1941) of sorted residuals: noise has 1, a function near 0
_OFTEN = 0.25  # of what is outside: noise of arithmetic is on most (12 of 15), a function looks rough on one by chance
NOISE = 2  # the rank of a mark that is a matter of degree
_PICKED = 512  # elements for that: few enough that neighbours are many roundings apart


class Shown(NamedTuple):
    """A lower precision, and what in the numbers gives it away; a lower ``rank`` is surer."""

    rank: int
    precision: str
    words: str


@dataclass(frozen=True, slots=True)
class Lower:
    """What lower precisions have to do with one piece of evidence that is outside the bound.

    1. ``explains`` are those in whose bounds all of it lies: an overflow of float16 is float16's doing.
    2. ``shows`` are those of which it bears the marks, the surest first: every output is a number of that type; it is
       right for the rounded input or parameters; or the error is spread over the elements, is no slope and offset of
       groups or channels, and no smooth function of the answer.
    """

    explains: tuple[str, ...] = ()
    shows: tuple[Shown, ...] = ()


NOTHING = Lower()


def surest(evidence: Sequence[Lower], promised: str) -> Shown | None:
    """The mark of the lower precision that explains all the evidence; of equally sure ones the finest, but of types
    that the outputs are numbers of the coarsest, which has the least chance to be so by accident."""
    finest = [name for name in below(promised) if all(name in lower.explains for lower in evidence)]
    noisy = sum(any(shown.rank == NOISE for shown in lower.shows) for lower in evidence)
    for rank in range(NOISE + (noisy >= _OFTEN * len(evidence))):
        for name in reversed(finest) if rank == 0 else finest:
            for shown in (s for lower in evidence for s in lower.shows if (s.rank, s.precision) == (rank, name)):
                return shown
    return None


class Suspicion:
    """The lower precisions in which ``y`` may have been computed, as arrays with one row per (sample, group)."""

    def __init__(
        self,
        x: Array,
        y: Array,
        spec: GroupNormSpec,
        scale: Array | None,
        bias: Array | None,
        limits: Bounds,
        around: Mapping[str, Any],
        options: Mapping[str, Any],
    ) -> None:
        """``limits`` are the promised bounds, ``options`` those of ``tolerance.bounds`` they were made with."""
        dtype = str(options["dtype"])
        self._spec, self._dtype = spec, dtype
        self._y, self._limits = by_slot(y, spec), _rows(limits, spec)
        self._low = {
            name: _rows(_bounds_in(name, x, spec, scale, bias, around, options), spec) for name in below(dtype)
        }
        self._replayed = [
            (Shown(1, name, f"it is right for {what} rounded to {name}"), _rows(told, spec))
            for name in self._low
            for what, told in _replays(name, x, spec, scale, bias, around, options)
        ]
        self._at_once, self._by_channel, self._order = _functions(x, spec, scale, bias, around)

    def of(self, rows: Sequence[int] | slice = slice(None)) -> Lower:
        y = self._y[rows]
        limits = _at(self._limits, rows)

        def right(told: Bounds) -> bool:
            return classify(y, _at(told, rows), dtype=self._dtype) is Status.PASS

        explains = tuple(name for name, low in self._low.items() if right(low))
        least = {name: min(_FAR, FORMATS[name].u / FORMATS[self._dtype].u / _WIDE) for name in explains}
        apart = self._apart(y, limits)
        far = [name for name in explains if apart >= least[name]]
        shows = [Shown(0, name, f"every output is a {name} number") for name in _stored(y, self._dtype) if name in far]
        shows += [
            shown
            for shown, told in self._replayed
            if shown.precision in far and right(told) and _decides(_at(told, rows), limits)
        ]
        unstable = classify(y, limits, dtype=self._dtype) is Status.UNSTABLE  # a slope and offset, so no rounding
        if far and not unstable and self._is_rounding(y, limits, rows):
            words = "the error is that of rounding to {}, not of another function"
            shows += [Shown(NOISE, name, words.format(name)) for name in far]
        return Lower(explains, tuple(shows))

    def _apart(self, y: Array, limits: Bounds) -> float:
        """How many bounds off; what is finite decides, if anything is."""
        with np.errstate(all="ignore"):
            ratio = np.abs(y.astype(np.float64) - limits.reference) / limits.two_pass
        return float(ratio[np.isfinite(ratio)].max(initial=0.0))

    def _is_rounding(self, y: Array, limits: Bounds, rows: Sequence[int] | slice) -> bool:
        with np.errstate(all="ignore"):
            error = y.astype(np.float64) - limits.reference
            kept = np.isfinite(error) & np.isfinite(limits.two_pass)
            outside = kept & (np.abs(error) > limits.two_pass)
        wrong = outside.any(axis=1)
        if kept[wrong].sum() == 0 or outside[wrong].sum() < _SPREAD * kept[wrong].sum():
            return False
        scale = np.sqrt(np.square(np.where(kept, error, 0)).mean(axis=1, keepdims=True))
        error = np.where(kept, error, 0)[wrong] / scale[wrong]  # every group has the same say
        group = [np.where(kept, f[rows], 0)[wrong] for f in self._at_once]
        left = _without(error[:, None, :], [f[:, None, :] for f in group])[:, 0]
        numbers = np.arange(len(self._y))[rows][wrong] % self._spec.num_groups
        channel = [np.where(kept, f[rows], 0)[wrong] for f in self._by_channel]
        for g in np.unique(numbers):
            one = numbers == g
            parts = [_channels(f[one], self._spec) for f in (error, *(c / scale[wrong] for c in channel))]
            if parts[0].shape[2] >= _DISTINCT:  # fewer are fitted whatever they are
                again = _without(parts[0], parts[1:])
                if np.square(again).sum() < _LEFT * np.square(parts[0]).sum():
                    return False
        if y.shape[1] < _DISTINCT or np.square(left).sum() < _LEFT * np.square(error).sum():
            return False
        return _roughness(left[kept[wrong]], self._order[rows][wrong][kept[wrong]]) >= _ROUGH


def _decides(told: Bounds, limits: Bounds) -> bool:
    """Whether two answers are so far apart that being right for one says something."""
    with np.errstate(all="ignore"):
        return float((np.abs(told.reference - limits.reference) > _WIDE * told.two_pass).mean()) >= _SPREAD


def _bounds_in(
    name: str, x: Array, spec: GroupNormSpec, scale: Array | None, bias: Array | None, around: Mapping[str, Any],
    options: Mapping[str, Any],
) -> Bounds:  # fmt: skip
    """How far off a kernel may be that computes and stores in ``name`` all that it can."""
    epsilon = float(rounded(np.float32(spec.epsilon), name))
    return bounds(
        x, spec, scale, bias,
        dtype=options["dtype"] if name == "tf32" else name, arithmetic=name, stores=_STORES, input_dtype=name,
        parameter_rounding=FORMATS[name].u,
        epsilon_rounding=abs(epsilon - spec.epsilon) / spec.epsilon if spec.epsilon else 0.0,
        serial=bool(options.get("serial")),
        **around,
    )  # fmt: skip


def _replays(
    name: str, x: Array, spec: GroupNormSpec, scale: Array | None, bias: Array | None, around: Mapping[str, Any],
    options: Mapping[str, Any],
) -> "list[tuple[str, Bounds]]":  # fmt: skip
    """The promised bounds around the answer to the rounded input, the rounded parameters, and both."""
    few = rounded(x, name)
    w, b = (None if p is None else rounded(p, name) for p in (scale, bias))
    told = [("its input", bounds(few, spec, scale, bias, **options, **around))]
    if scale is not None or bias is not None:
        told += [
            ("its parameters", bounds(x, spec, w, b, **options, **around)),
            ("its input and parameters", bounds(few, spec, w, b, **options, **around)),
        ]
    return told


def _stored(y: Array, dtype: str) -> list[str]:
    """Lower precisions whose numbers all of ``y`` are, the coarsest first."""
    numbers = np.unique(y[np.isfinite(y) & (y != 0)])
    if len(numbers) < _DISTINCT:
        return []
    return [name for name in reversed(list(below(dtype))) if np.array_equal(rounded(numbers, name), numbers)]


def _functions(
    x: Array, spec: GroupNormSpec, scale: Array | None, bias: Array | None, around: Mapping[str, Any]
) -> tuple[list[F64], list[F64], F64]:
    """What a wrong standard deviation and mean of a group, and a wrong scale and bias of a channel, make of the answer,
    to first order; and the answer before the activation, by which smooth functions of it are told."""
    parts = normalize(x, spec, residual=around.get("residual"))
    modulation = (around.get("modulation_scale"), around.get("modulation_shift"))
    weight, offset = affine(spec, parts.x.shape[0], scale, bias, *modulation)
    with np.errstate(all="ignore"):
        y = parts.z * weight + offset
        step = 1e-6 * (1 + np.abs(y))  # central difference: error 1e-12 relative
        slope = (activate(y + step, spec.activation) - activate(y - step, spec.activation)) / (2 * step)
        whole = [slope * weight * parts.z, slope * weight + 0 * parts.z]
        each = [slope * parts.z, slope + 0 * parts.z]
    flat = [np.nan_to_num(f).reshape(-1, f.shape[2] * f.shape[3]) for f in (*whole, *each, y)]
    return flat[:2], flat[2:4], flat[4]


def _without(error: F64, functions: Sequence[F64]) -> F64:
    """What the best sum of two functions leaves of the error, over the last axis."""
    a, b = functions
    products = ((a, a), (a, b), (b, b), (error, a), (error, b))
    aa, ab, bb, ea, eb = (np.einsum("...i,...i->...", p, q)[..., None] for p, q in products)
    with np.errstate(all="ignore"):
        determinant = aa * bb - ab * ab
        solvable = determinant > 1e-9 * aa * bb  # else one is a multiple of the other, or nothing
        s = np.where(solvable, (ea * bb - eb * ab) / determinant, np.where(aa > 0, ea / aa, 0))
        t = np.where(solvable, (eb * aa - ea * ab) / determinant, np.where((aa > 0) | (bb == 0), 0, eb / bb))
    left: F64 = error - np.nan_to_num(s) * a - np.nan_to_num(t) * b
    return left


def _channels(rows: F64, spec: GroupNormSpec) -> F64:
    """(samples, D P) of one group -> (1, D, samples P)."""
    split = rows.reshape(len(rows), spec.channels_per_group, -1)
    return np.moveaxis(split, 1, 0).reshape(1, spec.channels_per_group, -1)


def _roughness(error: F64, order: F64) -> float:
    picked = np.random.default_rng(0).permutation(len(error))[:_PICKED]
    picked = picked[np.argsort(order[picked], kind="stable")]
    values = error[picked]
    spread = float(values.var())
    return float(np.square(np.diff(values)).mean() / (2 * spread)) if len(values) > 1 and spread else 0.0


def _rows(limits: Bounds, spec: GroupNormSpec) -> Bounds:
    return Bounds(*(by_slot(a, spec) for a in (limits.reference, limits.two_pass, limits.one_pass)))


def _at(limits: Bounds, rows: Sequence[int] | slice) -> Bounds:
    return Bounds(limits.reference[rows], limits.two_pass[rows], limits.one_pass[rows])
