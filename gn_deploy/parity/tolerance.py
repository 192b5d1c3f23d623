"""How far a right GroupNorm may be from the float64 oracle, element by element, from dtype, group size and data.

With n elements per group, u the unit roundoff of the arithmetic, u_o of the stored output, m and v the exact mean and
variance, r = 1/sqrt(v + eps), z = (x - m) r, and weight w, bias b per channel:

    E_m = max( ceil(log2 n) u mean|x| ,    2 max_L |fl_L(mean x) - m| )            error of the computed mean
    E_v = max( (ceil(log2 n) + 3) u v ,    2 max_L |fl_L(mean (x-m_L)^2) - v| )    error of the computed variance
    d = E_m r,   rho = E_v r^2 + d^2
    B = |w| d + |w z| rho / (2 max(1 - rho, 0.1)) + 2u (|w| r (|x|+|m|) + |w z| + |b|)
        + u_o |y| + k u_o (|w z| + |b|) + half the least subnormal

Where the terms come from. A pairwise sum errs by at most ceil(log2 n) u sum|x| (Higham, Accuracy and Stability of
Numerical Algorithms, 2002, ch. 4); real kernels sum with a handful of accumulators, whose error is far below their
worst case on random data (sqrt(n): Higham & Mary, SIAM J. Sci. Comput. 41, 2019) but not on constant, sparse or spiky
data, so fl_L replays the sum on the very data with L accumulators in the arithmetic's dtype. m_L is the mean that fl_L
found and, once more, m: where an image is constant, the roundings of the squares line up differently around each (ONNX
Runtime's InstanceNormalization on a grey image inside a diffusion U-Net, n = 8192: 1.45 bounds around m alone, 0.7
with m_L). Where the candidate's own graph sums over axes that are not the innermost (``serial``: ReduceMean over the
pixels of an image stored channels last), kernels keep one accumulator for each sum and go through memory once, so L = 1
is replayed too, in both orders of channels and pixels: on a constant image ONNX Runtime errs by exactly that, up to 64
units, 4.8 bounds without it. For everybody else it would blunt the bound. The two-pass variance takes the mean's error
only squared (Chan, Golub, LeVeque, The American Statistician 37, 1983), hence d^2 inside rho. To first order a relative
error rho of v + eps moves z by z rho / 2. The 2u term is the subtraction, or its fused x*s + t form, the products and
the bias. k counts low-precision tensors stored between normalization and y. An activation multiplies B by its Lipschitz
constant and adds its own arithmetic's error (_GATES).

A second bound takes E_v of the one-pass variance E[x^2] - E[x]^2, which loses u (m^2 + v) whatever v is: what is
outside the first and inside the second computes the right formula in an unsafe way.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gn_deploy.reference import F64, Normalized, activate, affine, normalize
from gn_deploy.rounding import FORMATS, Format
from gn_deploy.spec import Activation, GroupNormSpec

LANES = (8, 16, 32, 64)  # accumulators of real kernels: one SIMD register up to several of them
REPLAY_FACTOR = 2.0  # a kernel's order is not one of the four replayed; measured worst ratio 0.63 of the bound in fp32
LIPSCHITZ = {
    Activation.NONE: 1.0,
    Activation.RELU: 1.0,
    Activation.SILU: 1.0998393194584,  # |d/dy| at y = 2.3994
    Activation.HARDSWISH: 1.5,  # just below y = 3
    Activation.GELU: 1.1289041451852,  # at y = sqrt 2
    Activation.GELU_TANH: 1.1289930686588,  # at y = 1.4185
    Activation.MISH: 1.0884981612518,  # at y = 1.4906
}
"""The largest |d/dy| of each activation."""


class _Gate(NamedTuple):
    """Absolute errors of the gate of an activation, y * gate(y) with 0 <= gate <= 1."""

    arithmetic: float
    """In u: of the functions themselves."""
    stores: float
    """In u_o: of what is stored on the way to the gate. The gate itself, stored, is relative."""
    negative: float = 0.0
    """In u for each unit that y is below zero, at least 16 and, as exp underflows then, at most 88 of them."""


_EXP = 4.0  # exp to 2 ulp, one addition, one division; also covers rational approximations (absolute error)
_GATES = {
    Activation.SILU: _Gate(_EXP, 0.0),
    Activation.HARDSWISH: _Gate(_EXP, 1.0),  # 1/6 and y/6, which is at most 1/2 where the ramp is not flat
    Activation.GELU: _Gate(_EXP, 0.5 + 0.484),  # erf, halved; sqrt 2 and the quotient t, as t erf'(t) <= 0.484, halved
    Activation.GELU_TANH: _Gate(_EXP, 0.5 + 0.5 * 7 * 0.448),  # tanh; 4 products, 2 constants, 1 sum, t tanh' <= 0.448
    # OpenVINO's SoftPlus errs by an ulp of a negative argument, 2 u |y|; exp, 1 + exp, log through tanh': <= 1.491
    Activation.MISH: _Gate(_EXP, 1.5, 2.0),
}
_VACUOUS = 0.5  # one-pass relative error of v + eps from which on a negative variance, so NaN, is possible


@dataclass(frozen=True, slots=True)
class Bounds:
    """The exact answer and how far off it one may be; three float64 arrays of x's shape.

    1. ``two_pass`` <= ``one_pass`` everywhere.
    2. Infinite where the arithmetic or the stored dtype overflows, so nothing can be said; ``one_pass`` is infinite
       also where cancellation may leave nothing of the variance.
    3. NaN where the exact answer is NaN.
    """

    reference: F64
    two_pass: F64
    one_pass: F64


def bound(
    x: ArrayLike, spec: GroupNormSpec, scale: ArrayLike | None = None, bias: ArrayLike | None = None, **options: Any
) -> F64:
    """``bounds(...).two_pass``: max |actual - reference| / bound at most 1 is a pass."""
    return bounds(x, spec, scale, bias, **options).two_pass


def bounds(
    x: ArrayLike,
    spec: GroupNormSpec,
    scale: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    dtype: str | None = None,
    arithmetic: str | None = None,
    stores: int = 0,
    epsilon_rounding: float = 0.0,
    parameter_rounding: float = 0.0,
    input_dtype: str | None = None,
    serial: bool = False,
    residual: ArrayLike | None = None,
    modulation_scale: ArrayLike | None = None,
    modulation_shift: ArrayLike | None = None,
) -> Bounds:
    """The oracle and its bounds for x and parameters as the runtime received them, already rounded.

    ``dtype`` is the stored output's (default ``spec.dtype``), ``arithmetic`` the one sums are taken in (default
    ``spec.stash_dtype``), ``stores`` is k. ``epsilon_rounding`` and ``parameter_rounding`` are relative errors of
    epsilon, and of scale and bias, that are not the arithmetic's (a file holds them in float32). ``input_dtype`` tells
    that x was rounded to it and the runtime may have used the unrounded one, as when a fused kernel is tapped;
    ``serial`` that the graph sums over axes which are not the innermost. Shapes as ``reference.group_norm``. Two
    runtimes against each other: the sum of both bounds.
    """
    stored = dtype or spec.dtype
    parts = normalize(x, spec, residual=residual)
    modulated = modulation_scale is not None or modulation_shift is not None
    weight, offset = affine(spec, parts.x.shape[0], scale, bias, modulation_scale, modulation_shift)
    sums = arithmetic or spec.stash_dtype
    with np.errstate(all="ignore"):
        terms = _Terms(parts, weight, offset, spec, stored, sums, stores + 2 * modulated, serial)
        mean_error = terms.mean_error()
        extra = terms.rounded_parameters(parameter_rounding)
        for rounded in [input_dtype] + [stored] * (residual is not None):  # a sum with the residual is stored
            extra = extra + (terms.rounded_input(FORMATS[rounded]) if rounded else 0.0)
        inexact = epsilon_rounding * spec.epsilon
        safe = terms.bound(mean_error, terms.two_pass_error() + inexact, extra)
        one_pass = terms.one_pass_error(mean_error) + inexact
        unsafe = np.maximum(safe, terms.bound(mean_error, one_pass, extra, _VACUOUS))
        reference = activate(terms.y, spec.activation)
    return Bounds(parts.back(reference), parts.back(safe), parts.back(unsafe))


class _Terms:
    """The named terms of the formula above, each (N, G, D, P) or broadcasting to it."""

    def __init__(
        self,
        parts: Normalized,
        weight: F64,
        offset: F64,
        spec: GroupNormSpec,
        stored: str,
        arithmetic: str,
        stores: int,
        serial: bool,
    ) -> None:
        self.parts, self.spec, self.stores = parts, spec, stores
        self.u = FORMATS[arithmetic].u
        self.lost = FORMATS[arithmetic].least / 2  # what a product that underflows loses
        self.u_o, self.largest, least = FORMATS[stored]
        self.half_least = least / 2
        self.dtype = np.dtype("float32" if arithmetic == "tf32" else arithmetic)  # TF32 sums in float32
        self.n = parts.x.shape[2] * parts.x.shape[3]
        self.log_n = math.ceil(math.log2(self.n))
        self.r = 1 / np.sqrt(parts.var + spec.epsilon)
        self.w, self.b = np.abs(weight), np.abs(offset)
        self.wz = self.w * np.abs(parts.z)
        self.y = parts.z * weight + offset
        self.orders = [(lanes, False) for lanes in LANES] + [(1, False), (1, True)] * serial
        self.means = self._means(parts.x)

    def mean_error(self) -> F64:
        floor: F64 = self.log_n * self.u * np.abs(self.parts.x).mean(axis=(2, 3), keepdims=True) + self.lost
        return np.maximum(floor, _furthest(self.means, self.parts.mean))

    def two_pass_error(self) -> F64:
        floor = (self.log_n + 3) * self.u * self.parts.var + self.lost
        sums = self._means(self.parts.x - self.parts.mean, square=True)
        for order, mean in zip(self.orders, self.means, strict=True):  # a kernel subtracts the mean that it computed
            sums += self._means(self.parts.x - mean.astype(self.dtype), [order], square=True)
        return np.maximum(floor, _furthest(sums, self.parts.var))

    def one_pass_error(self, mean_error: F64) -> F64:
        mean = np.abs(self.parts.mean)
        second = np.square(mean) + self.parts.var
        floor = (3 * self.log_n + 4) * self.u * second
        replay = _furthest(self._means(self.parts.x, square=True), second) + (2 * mean + mean_error) * mean_error
        return np.maximum(floor, replay + 4 * self.u * second)  # two products, the difference, the division

    def bound(self, mean_error: F64, var_error: F64, extra: F64, vacuous: float = math.inf) -> F64:
        d = mean_error * self.r
        rho = var_error * self.r**2 + d**2
        x, u, u_o = np.abs(self.parts.x), self.u, self.u_o
        size = self.wz + self.b
        total = self.w * d + self.wz * rho / (2 * np.maximum(1 - rho, 0.1))  # 0.1: beyond it the expansion is void
        total = total + 2 * u * (self.w * self.r * (x + np.abs(self.parts.mean)) + size)
        total = total + u_o * np.abs(self.y) + self.stores * u_o * size + self.half_least + extra
        total = self._through_activation(total)
        unknown = ~np.isfinite(rho) | (rho >= vacuous) | (np.abs(self.y) + total > self.largest)
        return np.where(unknown & np.isfinite(self.y), np.inf, total)

    def rounded_parameters(self, u_in: float) -> F64:
        return u_in * (self.wz + self.b)

    def rounded_input(self, rounded: Format) -> F64:
        """What rounding each x may do: to itself, to the mean, and kappa times to the standard deviation."""
        size = rounded.u * np.abs(self.parts.x) + rounded.least / 2
        spread = self.r * np.sqrt(np.square(size).mean(axis=(2, 3), keepdims=True))
        moved = self.w * self.r * (size + size.mean(axis=(2, 3), keepdims=True)) + self.wz * spread
        return np.where(spread > 1, np.inf, moved)  # rounding is as large as what is normalized: nothing can be said

    def _through_activation(self, total: F64) -> F64:
        activation = self.spec.activation
        total = LIPSCHITZ[activation] * total
        if activation not in _GATES:
            return total  # exact
        size = np.abs(self.y)
        allowed = _GATES[activation]
        arithmetic = allowed.arithmetic + allowed.negative * np.clip(-self.y, 16.0, 88.0)
        gate = (arithmetic * self.u + allowed.stores * self.u_o) * size
        # The gate and the product are two stores more; a tiny y may be halved before it meets 1 + erf or 1 + tanh.
        return total + gate + 2 * self.u_o * np.abs(activate(self.y, activation)) + self.half_least * (2 + size)

    def _means(
        self, values: F64, orders: Sequence[tuple[int, bool]] | None = None, *, square: bool = False
    ) -> list[F64]:
        """fl_L(mean of each group) for every L, (N, G, 1, 1) each; pixel by pixel instead of channel by channel where
        the order says so."""
        found = []
        rows = self._rows(values)
        for lanes, by_pixel in self.orders if orders is None else orders:
            own = self._rows(np.swapaxes(values, 2, 3)) if by_pixel else rows
            own = own * own if square else own
            found.append(_sum(own, lanes).astype(np.float64).reshape(self.parts.mean.shape) / self.n)
        return found

    def _rows(self, values: F64) -> NDArray[Any]:
        """One for each group, with zeros to whole lanes of any number."""
        rows = values.reshape(-1, self.n).astype(self.dtype)
        short = -self.n % LANES[-1]
        return np.pad(rows, ((0, 0), (0, short))) if short else rows


def _sum(rows: NDArray[Any], lanes: int) -> NDArray[Any]:
    """Of each row in its own dtype, with so many running sums, each fed every so many elements; whole lanes."""
    if lanes == 1:
        return np.add.accumulate(rows, axis=1)[:, -1]
    total: NDArray[Any] = np.add.reduce(np.add.reduce(rows.reshape(len(rows), -1, lanes), axis=1), axis=1)
    return total


def _furthest(replayed: Sequence[F64], exact: F64) -> F64:
    """REPLAY_FACTOR max |replayed - exact|."""
    worst: F64 = np.abs(np.stack(replayed) - exact).max(axis=0)
    return REPLAY_FACTOR * worst
