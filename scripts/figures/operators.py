"""Single GroupNorms to seed faults into: every rank, layout and neighbour, and the data they are judged on."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from gn_deploy.parity.cases import FAMILIES
from gn_deploy.parity.families import Draw
from gn_deploy.parity.metrics import ulp
from gn_deploy.parity.tolerance import Bounds, bounds
from gn_deploy.reference import F64, activate
from gn_deploy.spec import HALF_DTYPES, Activation, GroupNormSpec
from tests.parity.implementations import RIGHT, Implementation

DTYPES = ("float32", "float16", "bfloat16")
OPERATORS: dict[str, tuple[GroupNormSpec, tuple[int, ...]]] = {
    "U-Net": (GroupNormSpec(8, 32), (2, 32, 16, 16)),
    "VAE, n = 32768": (GroupNormSpec(2, 16), (1, 16, 64, 64)),
    "odd sizes": (GroupNormSpec(2, 12, 1e-6), (3, 12, 7, 9)),
    "1 x 1": (GroupNormSpec(4, 32), (4, 32, 1, 1)),
    "two axes": (GroupNormSpec(3, 12), (5, 12)),
    "volume, SiLU, modulation": (GroupNormSpec(3, 24, activation=Activation.SILU, scale_shift=True), (2, 24, 6, 5, 4)),
    "sound, GELU, residual": (GroupNormSpec(2, 16, activation=Activation.GELU, residual=True), (3, 16, 45)),
    "channels last, ReLU": (GroupNormSpec(4, 32, channel_axis=-1, activation=Activation.RELU), (2, 10, 12, 32)),
    "instance norm": (GroupNormSpec(12, 12), (2, 12, 9, 11)),
    "layer norm": (GroupNormSpec(1, 12), (3, 12, 9, 11)),
}
"""Name -> spec and the shape of x; every fault of the table acts on some of them."""


def kappa(mean: float, rng: np.random.Generator, shape: tuple[int, int], epsilon: float, dtype: str) -> F64:
    return mean + rng.standard_normal(shape)


def uniform(rng: np.random.Generator, shape: tuple[int, int], epsilon: float, dtype: str) -> F64:
    return rng.uniform(0, 1, shape)


def epsilon_only(rng: np.random.Generator, shape: tuple[int, int], epsilon: float, dtype: str) -> F64:
    """A hundredth of sqrt(eps): epsilon is all of the denominator."""
    return 0.01 * np.sqrt(epsilon) * rng.standard_normal(shape)


def image(rng: np.random.Generator, shape: tuple[int, int], epsilon: float, dtype: str) -> F64:
    """A ramp with a little noise: neighbours are alike."""
    return np.linspace(-1, 1, shape[1]) * rng.uniform(0.5, 2, (shape[0], 1)) + 0.01 * rng.standard_normal(shape)


def sparse(rng: np.random.Generator, shape: tuple[int, int], epsilon: float, dtype: str) -> F64:
    return np.where(rng.uniform(size=shape) < 0.05, rng.standard_normal(shape), 0.0)


def lognormal(rng: np.random.Generator, shape: tuple[int, int], epsilon: float, dtype: str) -> F64:
    return rng.lognormal(0, 1, shape)


def nearly_constant(rng: np.random.Generator, shape: tuple[int, int], epsilon: float, dtype: str) -> F64:
    return 1 + 1e-3 * rng.standard_normal(shape)


def scales(rng: np.random.Generator, shape: tuple[int, int], epsilon: float, dtype: str) -> F64:
    """Every group of another size, from 1e-3 to 1e3."""
    return 10 ** rng.uniform(-3, 3, (shape[0], 1)) * rng.standard_normal(shape)


def special(value: float, rng: np.random.Generator, shape: tuple[int, int], epsilon: float, dtype: str) -> F64:
    x = rng.standard_normal(shape)
    x[rng.integers(0, shape[0]), rng.integers(0, shape[1])] = value
    return x


DATA: dict[str, Draw] = {name: family.draw for name, family in FAMILIES.items()} | {
    "epsilon_only": epsilon_only,
    "kappa10": partial(kappa, 10.0),
    "uniform": uniform,
    "image": image,
    "sparse": sparse,
    "lognormal": lognormal,
    "nearly_constant": nearly_constant,
    "scales": scales,
    "one_nan": partial(special, np.nan),
    "one_inf": partial(special, np.inf),
}
"""What whole tensors are drawn from: the harness's families, and what else networks are fed."""


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """One input of one operator, its parameters re-drawn, and what is right."""

    operator: str
    data: str
    spec: GroupNormSpec
    x: NDArray[np.generic]
    around: dict[str, NDArray[np.generic]]
    """Scale, bias, residual, modulation as ``reference.group_norm`` takes them."""
    limits: Bounds

    def right(self) -> Iterator[NDArray[np.generic]]:
        """What right implementations in float32 answer, each with its own rounding; in half precision both those that
        round at the end and those that store every step."""
        for name, implementation in RIGHT.items():
            if name == "torch" and self.x[0].size == self.spec.num_groups:
                continue  # it refuses one value per group
            yield self._by(implementation, stored=False)
            if self.spec.dtype in HALF_DTYPES:
                yield self._by(implementation, stored=True)

    def rounded(self, y: F64) -> NDArray[np.generic]:
        with np.errstate(over="ignore"):
            return y.astype(self.spec.dtype)

    def is_moved(self, y: F64) -> bool:
        """By more than 1e-6 of the largest value, or in half precision by more than half a unit in the last place."""
        want = self.limits.reference
        if (np.isnan(y) != np.isnan(want)).any() or (np.isinf(y) & (y != want)).any():
            return True
        known = np.isfinite(y) & np.isfinite(want)
        error = np.abs(np.where(known, y, 0) - np.where(known, want, 0))
        if self.spec.dtype in HALF_DTYPES:
            return bool((error > ulp(want, self.spec.dtype) / 2)[known].any())
        return bool(error.max() > 1e-6 * np.abs(want[known]).max(initial=0.0))

    def _by(self, implementation: Implementation, *, stored: bool) -> NDArray[np.generic]:
        """Channels first, in float32 from the sum with the residual to the activation."""
        spec, at = self.spec, self.spec.channel_axis

        def held(array: NDArray[np.generic]) -> NDArray[np.float32]:
            return (array.astype(spec.dtype) if stored else array).astype(np.float32)

        around = {name: array.astype(np.float32) for name, array in self.around.items()}
        plain = replace(spec, dtype="float32", channel_axis=1)
        with np.errstate(all="ignore"):
            x = self.x.astype(np.float32)
            if "residual" in around:
                x = held(x + around["residual"])
            x = np.ascontiguousarray(np.moveaxis(x, at, 1))
            y = held(implementation(x, plain, around["scale"], around["bias"]))
            if "modulation_scale" in around:
                inner = [1] * (x.ndim - 2)
                s, t = (around[f"modulation_{name}"].reshape(*x.shape[:2], *inner) for name in ("scale", "shift"))
                y = held(held(y * held(1 + s)) + t)
            y = held(activate(y.astype(np.float64), spec.activation))
            return np.moveaxis(y, 1, at).astype(spec.dtype)


def given(operator: str, data: str, dtype: str) -> Given:
    """``data`` in every group of the operator."""
    spec, shape = OPERATORS[operator]
    spec = replace(spec, dtype=dtype)
    x = drawn(data, spec, shape)
    return judged(operator, data, spec, x)


def judged(operator: str, data: str, spec: GroupNormSpec, x: NDArray[np.generic]) -> Given:
    around = parameters(spec, x)
    return Given(operator, data, spec, x, around, bounds(x, spec, **around))  # type: ignore[arg-type]


def drawn(data: str, spec: GroupNormSpec, shape: tuple[int, ...]) -> NDArray[np.generic]:
    rng = np.random.default_rng([len(shape), *shape, *data.encode()])
    first = (shape[0], spec.num_channels, *(shape[2:] if spec.channel_axis == 1 else shape[1:-1]))
    rows = shape[0] * spec.num_groups
    n = int(np.prod(shape)) // rows
    x = DATA[data](rng, (rows, n), spec.epsilon, spec.dtype).reshape(first)
    return np.moveaxis(x, 1, spec.channel_axis).astype(spec.dtype)


def parameters(spec: GroupNormSpec, x: NDArray[np.generic]) -> dict[str, NDArray[np.generic]]:
    """Re-drawn N(0,1); the residual is half of x the other way round, as the harness draws it."""
    rng = np.random.default_rng(0)
    around = {"scale": rng.standard_normal(spec.num_channels), "bias": rng.standard_normal(spec.num_channels)}
    if spec.scale_shift:
        around |= {
            f"modulation_{name}": rng.standard_normal((len(x), spec.num_channels)) for name in ("scale", "shift")
        }
    if spec.residual:
        around["residual"] = np.flip(x.astype(np.float64), tuple(range(2, x.ndim))) / 2
    return {name: array.astype(spec.dtype) for name, array in around.items()}
