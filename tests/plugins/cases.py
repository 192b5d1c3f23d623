"""One problem for the kernels, its data, and the emulated run of it."""

import zlib
from dataclasses import dataclass, field, fields, replace
from functools import cache
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from gn_deploy.decision import Rejected
from gn_deploy.plugin.binding import CChoice, Library
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
DEVICES = {
    name: dict(
        zip(("compute_capability", "multiprocessors", "shared", "threads", "cluster_blocks"), numbers, strict=True)
    )
    | {"registers": 65536, "shared_per_block": numbers[2] - 1024, "cooperative": 1, "l2": 4 << 20}
    for name, numbers in {
        "hopper": (90, 4, 233472, 2048, 8),
        "ampere": (80, 3, 167936, 2048, 1),
        "turing": (75, 2, 65536, 1024, 1),
        "blackwell": (120, 1, 102400, 1536, 8),
        "many": (90, 24, 233472, 2048, 8),
    }.items()
}
"""Real multiprocessors, but few of them: teams and clusters are reached with shapes that are quick to emulate."""


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
    place: str = ""
    """Where the sum is written, if not in memory of its own: over x or residual."""
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
        names = ("samples", "channels", "positions", "groups", "epsilon", "layout", "dtype", "parameter_dtype")
        return {name: getattr(self, name) for name in (*names, "activation", "output_scale")} | {
            "pitch": self.channels + self.pad if rows else 0,
            "output_pitch": self.channels + (self.output_pad if self.output_dtype else self.pad) if rows else 0,
            "output_dtype": self.output_dtype or self.dtype,
            "has_residual": self.residual,
            "has_sum": self.sum,
            "has_affine": self.affine,
            "has_modulation": self.modulation,
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


def run(
    case: Case,
    inputs: Inputs,
    schedule: str = "in order",
    seed: int = 0,
    *,
    launches: int = 1,
    on: tuple[Library, Machine] | None = None,
) -> Run | Rejected:
    """Raises LaunchError with what the emulator found; counters are checked to be zero again.

    ``launches`` is how often the same is computed into the same buffers, ``on`` another library than the one of the
    sources.
    """
    kernels, gpu = on or emulator()
    selected = kernels.select(case.problem, DEVICES[case.device], case.variant or None)
    if isinstance(selected, Rejected):
        return selected
    choice = selected.choice
    kind, output = TYPES[case.dtype], TYPES[case.output_dtype or case.dtype]
    held: dict[str, tuple[Array, int]] = {}
    for i, name in enumerate(("x", "residual", "sum", "y")):
        if name == "y":
            held["y"] = (_tensor(case, output, case.skew[i], case.problem["output_pitch"]), OUTPUT)
        elif name == "sum" and case.sum and not case.place:
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
    if case.place:
        held[case.place] = (held[case.place][0], INPUT | OUTPUT)
    addresses = {name: array.ctypes.data if array.size else None for name, (array, _) in held.items()}
    if case.place:
        addresses["sum"] = addresses[case.place]
    gpu.device(DEVICES[case.device])
    gpu.schedule(schedule, seed)
    with gpu.buffers(**held):
        for _ in range(launches):
            kernels.enqueue(case.problem, choice, addresses)
            assert not held["counters"][0].any(), "a counter is not zero again"
    y, total = held["y"][0], held[case.place or "sum"][0] if case.sum else None
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
