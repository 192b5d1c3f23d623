"""Input families: each draws values for one group at a time and exists because it exposes a certain bug."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gn_deploy.reference import F64
from gn_deploy.rounding import FORMATS

Draw = Callable[[np.random.Generator, tuple[int, int], float, str], F64]


@dataclass(frozen=True, slots=True)
class Family:
    """Values for ``slots`` groups of ``n`` elements each.

    1. ``draw(rng, (slots, n), epsilon, dtype)`` gives float64 values that are finite in ``dtype``.
    2. ``exposes`` is the first line of its docstring.
    3. ``conditioned`` families are what a trained network could meet: end to end judgement on them has a meaning.
    """

    name: str
    draw: Draw
    exposes: str
    conditioned: bool
    needs_epsilon: bool = False
    """Without an epsilon the answer is 0 / 0, or all rounding: nobody's to judge."""


FAMILIES: dict[str, Family] = {}
"""Name -> family, in the order they are dealt; the first few find most faults, so that small tensors get them."""


def family(*, conditioned: bool = False, needs_epsilon: bool = False) -> Callable[[Draw], Draw]:
    """Adds a function to FAMILIES under its own name."""

    def add(draw: Draw) -> Draw:
        name = draw.__name__
        exposes = (draw.__doc__ or "").strip().splitlines()[0]
        FAMILIES[name] = Family(name, draw, exposes, conditioned, needs_epsilon)
        return draw

    return add


@family()
def epsilon_dominated(rng: np.random.Generator, shape: tuple[int, int], epsilon: float, dtype: str) -> F64:
    """sqrt(eps) N(0,1): a wrong epsilon, its wrong place, wrong groups, an unbiased variance."""
    return math.sqrt(epsilon) * rng.standard_normal(shape)


@family(conditioned=True)
def normal(rng: np.random.Generator, shape: tuple[int, int], epsilon: float, dtype: str) -> F64:
    """N(0,1): wrong groups or parameters, low-precision arithmetic; what everybody tests with."""
    return rng.standard_normal(shape)


@family()
def offset(rng: np.random.Generator, shape: tuple[int, int], epsilon: float, dtype: str) -> F64:
    """N(100,1): a variance taken in one pass, a mean that is not subtracted, zero padding counted in the mean."""
    return 100 + rng.standard_normal(shape)


@family(needs_epsilon=True)
def constant(rng: np.random.Generator, shape: tuple[int, int], epsilon: float, dtype: str) -> F64:
    """One value per group: NaN from a negative variance, noise blown up by 1/sqrt(eps); a blank image does this."""
    return np.broadcast_to(rng.uniform(0.1, 10, (shape[0], 1)), shape).copy()


@family()
def kappa1000(rng: np.random.Generator, shape: tuple[int, int], epsilon: float, dtype: str) -> F64:
    """N(1000,1): one-pass variance, where its result is still a number and so looks plausible."""
    return 1000 + rng.standard_normal(shape)


@family()
def small(rng: np.random.Generator, shape: tuple[int, int], epsilon: float, dtype: str) -> F64:
    """N(0,1e-3): epsilon 1e-6 for 1e-5, epsilon outside the root, squares lost in half precision."""
    return 1e-3 * rng.standard_normal(shape)


@family()
def outlier(rng: np.random.Generator, shape: tuple[int, int], epsilon: float, dtype: str) -> F64:
    """N(0,1) and one value of 1000: clipped or half-precision sums, an element left out of the statistics."""
    x = rng.standard_normal(shape)
    x[np.arange(shape[0]), rng.integers(0, shape[1], shape[0])] = 1000.0
    return x


@family()
def spikes(rng: np.random.Generator, shape: tuple[int, int], epsilon: float, dtype: str) -> F64:
    """N(0,1) and one value in fifty near +300 or -300: values clipped before the sums, sums with few accumulators."""
    x = rng.standard_normal(shape)
    at = rng.random(shape) < 1 / 50
    at[:, : min(2, shape[1])] |= ~at.any(1, keepdims=True)  # several in every group
    return np.where(at, 300 * np.sign(x) + x, x)


@family()
def checkerboard(rng: np.random.Generator, shape: tuple[int, int], epsilon: float, dtype: str) -> F64:
    """+1 and -1 in turn, nearly: statistics of every other value, lanes of a sum left out or counted twice."""
    signs = 1 - 2 * (np.arange(shape[1]) % 2)
    return signs + 1e-3 * rng.standard_normal(shape)


@family()
def trend(rng: np.random.Generator, shape: tuple[int, int], epsilon: float, dtype: str) -> F64:
    """A slope over each group and another level in the next: groups that begin or end elsewhere, parts left out."""
    level = 3.0 * (np.arange(shape[0]) % 4)[:, None]
    return level + np.linspace(-2, 2, shape[1]) + 0.1 * rng.standard_normal(shape)


@family()
def kappa10000(rng: np.random.Generator, shape: tuple[int, int], epsilon: float, dtype: str) -> F64:
    """N(1e4,1): a pivot that is not near the mean, pieces of a variance that are merged in one pass."""
    return 1e4 + rng.standard_normal(shape)


@family()
def large_mean(rng: np.random.Generator, shape: tuple[int, int], epsilon: float, dtype: str) -> F64:
    """N(1e4, 1e-2): cancellation at the edge of float32; only a two-pass or pivoted variance survives."""
    return 1e4 + 1e-2 * rng.standard_normal(shape)


@family()
def near_max(rng: np.random.Generator, shape: tuple[int, int], epsilon: float, dtype: str) -> F64:
    """Magnitudes near the dtype's maximum: statistics kept in float16, which overflows when it squares.

    float16 gets half of its maximum. No runtime squares float32's or bfloat16's maximum without overflow in its
    float32 statistics, so these (and float64) get the largest magnitude whose sum of squares is still finite.
    """
    largest = FORMATS[dtype].largest
    top = largest / 2 if dtype == "float16" else np.sqrt(largest / shape[1]) / 4  # 4: room for (x - mean)^2
    return top * rng.uniform(-1, 1, shape)


@family()
def post_relu(rng: np.random.Generator, shape: tuple[int, int], epsilon: float, dtype: str) -> F64:
    """max(N(0,1), 0): half of the values exactly zero; roundings line up, shortcuts for zeros show."""
    return np.maximum(rng.standard_normal(shape), 0.0)


@family(needs_epsilon=True)
def tiny(rng: np.random.Generator, shape: tuple[int, int], epsilon: float, dtype: str) -> F64:
    """Values whose squares underflow: subnormals taken for zero, a guard that calls a small variance none.

    float16 gets subnormals, which it holds to few digits: that is where 1e-5 and activations of trained networks lie.
    In wider types no runtime on an accelerator promises them, so values are normal there and only squares are not.
    """
    if dtype == "float16":
        return 2.0**-17 * rng.standard_normal(shape)  # an eighth of its least normal number, 2^-14
    return 1e-20 * rng.standard_normal(shape) if dtype != "float64" else 1e-160 * rng.standard_normal(shape)
