"""What a kernel is checked on: numbers that upset one, and everything around them. The same for the same generator."""

import math
from typing import Any, NamedTuple

import ml_dtypes  # noqa: F401  (registers bfloat16 and float8_e4m3fn with NumPy)
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

FAR = {"float32": (1e4, 1e-2), "float16": (1000, 2), "bfloat16": (100, 2)}
"""Mean and spread of "offset": as far as the format can tell the numbers apart."""
LARGE = {"float32": 1e18, "float16": 6e4, "bfloat16": 1e18}  # squares of these are not finite any more, or hardly
TINY = {"float32": 1e-30, "float16": 2e-7, "bfloat16": 1e-30}  # squares of these are zero
SPIKE = {"float32": 1e4, "float16": 3e4, "bfloat16": 1e5}


class Inputs(NamedTuple):
    """As the kernel is given them, rounded; x and residual (N, C, ...), scale and bias (C,), s and t (N, C)."""

    x: Array
    residual: Array | None
    scale: Array | None
    bias: Array | None
    modulation_scale: Array | None
    modulation_shift: Array | None

    @property
    def total(self) -> Array:
        """What is normalized: the sum with the residual, rounded to the type of x as an Add before would."""
        if self.residual is None:
            return self.x
        with np.errstate(all="ignore"):
            return (self.x.astype(np.float32) + self.residual.astype(np.float32)).astype(self.x.dtype)


def draw(
    rng: np.random.Generator,
    shape: tuple[int, ...],
    groups: int,
    *,
    data: str,
    dtype: str,
    parameter_dtype: str,
    residual: bool,
    affine: int,
    modulation: int,
) -> Inputs:
    """``shape`` is (N, C, ...), ``data`` a case of ``numbers``, ``affine`` and ``modulation`` bits as in gn_problem."""
    n, c = shape[:2]
    kind, parameters = np.dtype(dtype), np.dtype(parameter_dtype)
    x = numbers(rng, shape, groups, data, dtype).astype(kind)
    return Inputs(
        x,
        (0.7 * rng.standard_normal(shape)).astype(kind) if residual else None,
        rng.normal(1, 0.5, c).astype(parameters) if affine & 1 else None,
        rng.normal(0, 0.5, c).astype(parameters) if affine & 2 else None,
        rng.normal(0, 0.3, (n, c)).astype(parameters) if modulation & 1 else None,
        rng.normal(0, 0.3, (n, c)).astype(parameters) if modulation & 2 else None,
    )


def numbers(
    rng: np.random.Generator, shape: tuple[int, ...], groups: int, data: str, dtype: str
) -> NDArray[np.float64]:
    """x before it is rounded."""
    x = rng.standard_normal(shape)
    flat = x.reshape(*shape[:2], math.prod(shape[2:]))
    match data:
        case "normal":
            return x * 1.5 + 0.3
        case "offset":
            mean, std = FAR[dtype]
            return mean + std * x
        case "small":  # where epsilon is most of the variance
            return x * 1e-3
        case "constant":
            flat[:] = 3.14159 if dtype == "float32" else 97.4375  # rounds to an odd number of last places in either
        case "large":
            return LARGE[dtype] * (1 + 0.05 * np.clip(x, -1.8, 1.8))
        case "tiny":
            return x * TINY[dtype]
        case "spike":  # the first element, which may be the pivot, is far from all others
            flat[:, :: shape[1] // groups, 0] = SPIKE[dtype]
        case "nan" | "inf" | "-inf":
            flat[shape[0] // 2, groups // 2 * (shape[1] // groups), -1] = float(data)
        case _:
            raise AssertionError(data)
    return x
