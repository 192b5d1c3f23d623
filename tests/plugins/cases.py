"""One problem for the kernels: its data, the emulated run of it, and how far y may be from the float64 oracle."""

import zlib
from dataclasses import dataclass, field, fields, replace
from functools import cache
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from gn_deploy.decision import Rejected
from gn_deploy.parity.tolerance import LIPSCHITZ
from gn_deploy.plugin.binding import CChoice, Library
from gn_deploy.reference import activate, affine, normalize
from gn_deploy.spec import Activation, GroupNormSpec
from tests.plugins.emulated import COUNTERS, INPUT, OUTPUT, WORKSPACE, Machine, Traffic, aligned, library

Array = NDArray[Any]
TYPES: dict[str, Any] = {
    "float32": np.float32,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "int8": np.int8,
    "float8_e4m3fn": ml_dtypes.float8_e4m3fn,
}
_GPU = {"registers": 65536, "threads": 2048, "cooperative": 1, "l2": 4 << 20}
DEVICES = {  # real multiprocessors, but few of them: teams and clusters are reached with shapes that are quick to emulate
    "hopper": _GPU
    | {"compute_capability": 90, "multiprocessors": 4, "shared_per_block": 232448, "shared": 233472, "cluster_blocks": 8},
    "ampere": _GPU
    | {"compute_capability": 80, "multiprocessors": 3, "shared_per_block": 166912, "shared": 167936, "cluster_blocks": 1},
    "turing": _GPU
    | {"compute_capability": 75, "multiprocessors": 2, "threads": 1024, "shared_per_block": 65536, "shared": 65536}
    | {"cluster_blocks": 1},
    "one": _GPU
    | {"compute_capability": 120, "multiprocessors": 1, "shared_per_block": 101376, "shared": 102400}
    | {"threads": 1536, "cluster_blocks": 8},
    "many": _GPU
    | {"compute_capability": 90, "multiprocessors": 24, "shared_per_block": 232448, "shared": 233472}
    | {"cluster_blocks": 8},
}


@dataclass(frozen=True)
class Case:
    """x is (samples, groups * group_channels, positions), or channels last with ``pad`` more channels in each row."""

    samples: int
    groups: int
    group_channels: int
    positions: int
    layout: str = "nchw"
    dtype: str = "float16"
    parameter_dtype: str = "float32"
    output_dtype: str = ""
    """Of y; empty is dtype."""
    activation: str = "none"
    affine: int = 3
    modulation: int = 0
    residual: bool = False
    sum: bool = False
    pad: int = 0
    output_pad: int = 0
    skew: tuple[int, int, int, int] = (0, 0, 0, 0)
    """Elements from a multiple of 256 bytes to the first one of x, residual, sum, y."""
    data: str = "normal"
    epsilon: float = 1e-5
    device: str = "hopper"
    variant: str = ""
    """Empty: the one that is selected."""

    def __str__(self) -> str:
        shape = f"{self.samples}x{self.groups}x{self.group_channels}x{self.positions}"
        others = [f for f in fields(self)[4:] if getattr(self, f.name) != f.default]
        told = [str(v) if isinstance(v := getattr(self, f.name), str) else f"{f.name}={v}" for f in others]
        return "-".join([shape, *told]).replace(" ", "")

    @property
    def channels(self) -> int:
        return self.groups * self.group_channels

    @property
    def problem(self) -> dict[str, Any]:
        rows = self.layout == "nhwc"
        return {
            **{"samples": self.samples, "channels": self.channels, "positions": self.positions, "groups": self.groups},
            "pitch": self.channels + self.pad if rows else 0,
            "output_pitch": self.channels + (self.output_pad if self.output_dtype else self.pad) if rows else 0,
            **{"epsilon": self.epsilon, "layout": self.layout, "dtype": self.dtype, "activation": self.activation},
            **{"parameter_dtype": self.parameter_dtype, "output_dtype": self.output_dtype or self.dtype},
            **{"output_scale": self.output_scale, "has_residual": self.residual, "has_sum": self.sum},
            **{"has_affine": self.affine, "has_modulation": self.modulation},
        }

    @property
    def output_scale(self) -> float:
        """Neither saturates everything nor rounds it all away."""
        return float(np.float32({"int8": 0.03, "float8_e4m3fn": 0.011}.get(self.output_dtype, 0)))

    @property
    def spec(self) -> GroupNormSpec:
        return GroupNormSpec(
            self.groups,
            self.channels,
            float(np.float32(self.epsilon)),
            dtype=self.dtype,
            activation=Activation(self.activation),
        )


class Inputs(NamedTuple):
    """As the kernel is given them, rounded; x and residual (N, C, P) whatever the layout."""

    x: Array
    residual: Array | None
    scale: Array | None
    bias: Array | None
    modulation_scale: Array | None
    modulation_shift: Array | None

    @property
    def added(self) -> Array:
        """What is normalized: the sum with the residual, rounded to the type of x as an Add before would."""
        if self.residual is None:
            return self.x
        with np.errstate(all="ignore"):
            return (self.x.astype(np.float32) + self.residual.astype(np.float32)).astype(self.x.dtype)


def draw(case: Case) -> Inputs:
    """The same for the same case."""
    rng = np.random.default_rng(zlib.crc32(str(replace(case, variant="", device="hopper")).encode()))
    kind, parameters = TYPES[case.dtype], TYPES[case.parameter_dtype]
    shape = (case.samples, case.channels, case.positions)
    x = rng.standard_normal(shape)
    match case.data:
        case "normal":
            x = x * 1.5 + 0.3
        case "offset":  # as far as the format can tell the numbers apart
            mean, std = {"float32": (1e4, 1e-2), "float16": (1000, 2), "bfloat16": (100, 2)}[case.dtype]
            x = mean + std * x
        case "constant":
            x[:] = 3.14159 if case.dtype == "float32" else 100.0
        case "large":
            x = {"float16": 6e4, "bfloat16": 1e18, "float32": 1e18}[case.dtype] * (1 + 0.05 * np.clip(x, -1.8, 1.8))
        case "tiny":
            x = x * {"float16": 2e-7, "bfloat16": 1e-30, "float32": 1e-30}[case.dtype]
        case "spike":  # the first element, which may be the pivot, is far from all others
            x[:, :: case.group_channels, 0] = {"float16": 3e4, "bfloat16": 1e5, "float32": 1e4}[case.dtype]
        case "nan" | "inf" | "-inf":
            x[case.samples // 2, (case.groups // 2) * case.group_channels, case.positions - 1] = float(case.data)
        case _:
            raise AssertionError(case.data)
    c, nc = (case.channels,), (case.samples, case.channels)
    return Inputs(
        x.astype(kind),
        (0.7 * rng.standard_normal(shape)).astype(kind) if case.residual else None,
        rng.normal(1, 0.5, c).astype(parameters) if case.affine & 1 else None,
        rng.normal(0, 0.5, c).astype(parameters) if case.affine & 2 else None,
        rng.normal(0, 0.3, nc).astype(parameters) if case.modulation & 1 else None,
        rng.normal(0, 0.3, nc).astype(parameters) if case.modulation & 2 else None,
    )


@dataclass
class Run:
    """What came of a case: y and sum (N, C, P); what lies in the padding of their rows; what was moved."""

    y: Array
    sum: Array | None
    padding: Array
    choice: CChoice
    variant: str
    reason: str
    moved: dict[str, Traffic] = field(default_factory=dict)


@cache
def emulator() -> tuple[Library, Machine]:
    return Library(library()), Machine(library())


def run(case: Case, inputs: Inputs, schedule: str = "in order", seed: int = 0, launches: int = 1) -> Run | Rejected:
    """Raises LaunchError with what the emulator found; counters are checked to be zero again."""
    return run_in(*emulator(), case, inputs, schedule, seed, launches)


def run_in(
    kernels: Library, gpu: Machine, case: Case, inputs: Inputs, schedule: str = "in order", seed: int = 0, launches: int = 1
) -> Run | Rejected:
    selected = kernels.select(case.problem, DEVICES[case.device], case.variant or None)
    if isinstance(selected, Rejected):
        return selected
    choice = selected.choice
    kind, output = TYPES[case.dtype], TYPES[case.output_dtype or case.dtype]
    held: dict[str, tuple[Array, int]] = {}
    for i, name in enumerate(("x", "residual", "sum", "y")):
        if name == "y":
            held["y"] = (_tensor(case, output, case.skew[i], case.problem["output_pitch"]), OUTPUT)
        elif name == "sum" and case.sum:
            held["sum"] = (_tensor(case, kind, case.skew[i], case.problem["pitch"]), OUTPUT)
        elif name in ("x", "residual") and (values := getattr(inputs, name)) is not None:
            held[name] = (_tensor(case, kind, case.skew[i], case.problem["pitch"]), INPUT)
            held[name][0][:] = np.nan  # also what lies between the rows
            _view(case, held[name][0])[:] = values
    for name in ("scale", "bias", "modulation_scale", "modulation_shift"):
        if (values := getattr(inputs, name)) is not None:
            held[name] = (aligned(values.size, values.dtype, offset=1), INPUT)
            held[name][0][:] = values.ravel()
    held["workspace"] = (aligned(choice.workspace, np.uint8), WORKSPACE)
    held["counters"] = (aligned(choice.counters, np.uint32), COUNTERS)
    held["counters"][0][:] = 0
    addresses = {name: array.ctypes.data if array.size else None for name, (array, _) in held.items()}
    gpu.device(DEVICES[case.device])
    gpu.schedule(schedule, seed)
    with gpu.buffers(**held):
        for _ in range(launches):
            kernels.enqueue(case.problem, choice, addresses)
            assert not held["counters"][0].any(), "a counter is not zero again"
    y, total = held["y"][0], held["sum"][0] if case.sum else None
    padding = [_padding(case, t).astype(np.float32).ravel() for t in (y, total) if t is not None]
    variant = kernels.variant_name(choice.variant)
    return Run(
        np.array(_view(case, y)),
        None if total is None else np.array(_view(case, total)),
        np.concatenate(padding),
        choice,
        variant,
        selected.reason,
        gpu.moved,
    )


def _tensor(case: Case, kind: Any, skew: int, pitch: int) -> Array:
    return aligned(case.samples * case.positions * (pitch or case.channels), kind, offset=skew)


def _view(case: Case, flat: Array) -> Array:
    """(N, C, P) of a tensor in memory."""
    if case.layout == "nchw":
        return flat.reshape(case.samples, case.channels, case.positions)
    return flat.reshape(case.samples, case.positions, -1)[..., : case.channels].transpose(0, 2, 1)


def _padding(case: Case, flat: Array) -> Array:
    if case.layout == "nchw":
        return flat[:0]
    return flat.reshape(case.samples, case.positions, -1)[..., case.channels :]


U = 2.0**-24  # unit roundoff of float32
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
    spec, added = case.spec, inputs.added
    shape = (case.samples, case.groups, case.group_channels, case.positions)
    with np.errstate(all="ignore"):
        parts = normalize(added, spec)
        weight, offset = affine(
            spec, case.samples, inputs.scale, inputs.bias, inputs.modulation_scale, inputs.modulation_shift
        )
        y = parts.z * weight + offset
        r = 1 / np.sqrt(parts.var + spec.epsilon)
        x = added.astype(np.float64).reshape(shape)
        far = np.ptp(x, axis=(2, 3), keepdims=True) if case.dtype == "float32" else np.abs(x).max((2, 3), keepdims=True)
        # 4: mean of d, its share in the standard deviation, d itself, their combination over threads and blocks.
        before = U * np.abs(weight) * (4 * far * r + ROUNDINGS * np.abs(parts.z)) + ROUNDINGS * U * np.abs(offset)
        before = before + 2.0**-126 * (1 + np.abs(weight))
        activated = activate(y, spec.activation)
        own = _ACTIVATION[case.activation](np.abs(y)) * U * np.abs(activated)
        error = LIPSCHITZ[spec.activation] * before + own + 2.0**-126
    whole = (case.samples, case.channels, case.positions)
    return Allowed(activated.reshape(whole), np.broadcast_to(error, shape).reshape(whole))


ROUNDINGS = 8  # rsqrt, epsilon, 1 + s, scale, bias, slope, offset and the multiply-add itself, half a unit each, and 4


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
    with np.errstate(all="ignore"):
        outside = ~nan & ~((low <= got) & (got <= high))
        if outside.any():
            at = tuple(int(i) for i in np.argwhere(outside)[0])
            told = f"{int(outside.sum())} of {outside.size} numbers are wrong, first at {at}: {got[at]} is not in "
            raise AssertionError(f"{told}[{low[at]}, {high[at]}]; {result.variant}: {result.reason}")
        if result.sum is not None:
            assert np.array_equal(result.sum, inputs.added, equal_nan=True), "the sum is wrong"
        assert not result.padding.any(), "the padding is not zero"
        if case.dtype != "float32" or case.output_dtype:
            return 0.0
        return float(np.nanmax(np.where(error > 0, np.abs(got - exact) / error, 0.0), initial=0.0))
