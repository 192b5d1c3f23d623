"""How far y may be from the float64 oracle: the kernels' own contract, which no runtime else promises."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gn_deploy.parity.tolerance import LIPSCHITZ
from gn_deploy.reference import activate, affine, normalize
from scripts.gpu.inputs import Inputs
from tests.plugins.cases import TYPES, Array, Case, Run

U = 2.0**-24  # unit roundoff of float32
ROUNDINGS = 8  # of m2 / n, epsilon, rsqrt, 1 + s, its product, slope, offset and the multiply-add, half a unit each
# Relative errors of the activations in U, as plugins/kernels/activation.h states them; for negative y they grow with
# the argument of exp, whose own rounding is multiplied by its size.
_ACTIVATION = {
    "none": lambda y: 0.0,
    "relu": lambda y: 0.0,
    "silu": lambda y: 6 + y,
    "hardswish": lambda y: 3.0,
    "gelu": lambda y: 8 + y**2,
    "gelu_tanh": lambda y: 8 + 2 * y + 0.1427 * y**3,  # 2 t log2(e) of t = 0.7979 (y + 0.0447 y^3), roundings of both
    "mish": lambda y: 8 + y,
}


class Allowed(NamedTuple):
    """y, and its float32 error before it is rounded to the stored type; float64, (N, C, P)."""

    y: NDArray[np.float64]
    error: NDArray[np.float64]


def allowed(case: Case, inputs: Inputs) -> Allowed:
    """The kernels' own contract, much tighter than the parity tolerance where the mean is large.

    What is summed is float32, d = x - pivot: exact in 16 bit, where the pivot is 0, and else off by U |d| at most. With
    D the largest |d| of the group, mean and standard deviation are off by a few U D, so y by a few U |w| D / std, plus
    the roundings of the multiply-add. The pivot is some element, so D is the largest distance of two.
    """
    spec, added = case.spec, inputs.total
    shape = (case.samples, case.groups, case.group_channels, case.positions)
    with np.errstate(all="ignore"):
        parts = normalize(added, spec)
        weight, bias = affine(spec, case.samples, inputs.scale, inputs.bias, inputs.modulation_scale)
        _, shift = affine(spec, case.samples, modulation_shift=inputs.modulation_shift)
        offset, parts_of_offset = bias + shift, np.abs(bias) + np.abs(shift)
        y = parts.z * weight + offset
        r = 1 / np.sqrt(parts.var + spec.epsilon)
        x = added.astype(np.float64).reshape(shape)
        far = np.ptp(x, axis=(2, 3), keepdims=True) if case.dtype == "float32" else np.abs(x).max((2, 3), keepdims=True)
        # 4: mean of d, its share in the standard deviation, d itself, their combination over threads and blocks.
        before = U * np.abs(weight) * (4 * far * r + ROUNDINGS * np.abs(parts.z)) + ROUNDINGS * U * parts_of_offset
        before = before + 2.0**-126 * (1 + np.abs(weight))
        activated = activate(y, spec.activation)
        own = _ACTIVATION[case.activation](np.abs(y)) * U * np.abs(activated)
        error = LIPSCHITZ[spec.activation] * before + own + 2.0**-126
    whole = (case.samples, case.channels, case.positions)
    return Allowed(activated.reshape(whole), np.broadcast_to(error, shape).reshape(whole))


def rounded(case: Case, y: NDArray[np.float64]) -> Array:
    """As y is stored: the quantized types saturate, NaN is 0 in int8."""
    kind = case.output_dtype or case.dtype
    with np.errstate(all="ignore"):
        if kind == "int8":
            return np.nan_to_num(np.clip(np.rint(y / case.output_scale), -128, 127), nan=0).astype(np.float64)
        if kind == "float8_e4m3fn":
            return np.clip(y / case.output_scale, -448, 448).astype(TYPES[kind]).astype(np.float64)
        return y.astype(TYPES[kind]).astype(np.float64)


def check(case: Case, inputs: Inputs, result: Run) -> float:
    """Every element of y lies between the roundings of the least and the largest allowed number. The worst error there
    was, in allowed ones, of what is not quantized; for telling how tight the bound is."""
    exact, error = allowed(case, inputs)
    got = result.y.astype(np.float64)
    low, high = rounded(case, exact - error), rounded(case, exact + error)
    nan = np.isnan(exact)
    if (case.output_dtype or case.dtype) != "int8":
        assert np.array_equal(np.isnan(got), nan), "NaN is not where it belongs"
    assert (np.isnan(got) | (got == 0))[nan].all()
    with np.errstate(all="ignore"):
        outside = ~nan & ~((low <= got) & (got <= high))
        if outside.any():
            at = tuple(int(i) for i in np.argwhere(outside)[0])
            told = f"{int(outside.sum())} of {outside.size} numbers are wrong, first at {at}: {got[at]} is not in "
            raise AssertionError(f"{told}[{low[at]}, {high[at]}]; {result.variant}: {result.reason}")
        if result.sum is not None:
            assert np.array_equal(result.sum, inputs.total, equal_nan=True), "the sum is wrong"
        assert not result.padding.any(), "the padding is not zero"
        if case.dtype != "float32" or case.output_dtype:
            return 0.0
        return float(np.nanmax(np.where(error > 0, np.abs(got - exact) / error, 0.0), initial=0.0))
