"""One problem for the kernels, its data, and the emulated run of it."""

import zlib
from dataclasses import dataclass, field, fields, replace
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from gn_deploy.decision import Rejected
from gn_deploy.plugin.binding import CChoice, Library, Selected, struct
from gn_deploy.plugin.problem import Device, Problem
from gn_deploy.plugin.select import select
from gn_deploy.spec import Activation, GroupNormSpec
from scripts.gpu import inputs
from scripts.gpu.inputs import Inputs
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
    slab: int = 0
    """Channels last: of a unit, one of ``slabs_of``. 0: as many as are selected."""

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


def draw(case: Case) -> Inputs:
    """x and residual (N, C, P) whatever the layout; the same for the same case."""
    return inputs.draw(
        np.random.default_rng(zlib.crc32(str(replace(case, variant="", device="hopper", slab=0)).encode())),
        (case.samples, case.channels, case.positions),
        case.groups,
        data=case.data,
        dtype=case.dtype,
        parameter_dtype=case.parameter_dtype,
        residual=case.residual,
        affine=case.affine,
        modulation=case.modulation,
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


def chosen(kernels: Library, case: Case) -> Selected | Rejected:
    """The kernels' choice; among those of one width, which they are not asked for, Python's, which is the same."""
    if not case.slab:
        return kernels.select(case.problem, DEVICES[case.device], case.variant or None)
    here = Device(**DEVICES[case.device])
    selection = select(Problem(**case.problem), here, case.variant or None, (case.slab,))
    if isinstance(selection, Rejected):
        return selection
    return Selected(struct(CChoice, selection.choice), selection.reason)


def run(
    case: Case,
    given: Inputs,
    schedule: str = "in order",
    seed: int = 0,
    *,
    launches: int = 1,
    on: tuple[Library, Machine] | None = None,
    how: CChoice | None = None,
) -> Run | Rejected:
    """Raises LaunchError with what the emulator found; counters are checked to be zero again.

    ``launches`` is how often the same is computed into the same buffers, ``on`` another library than the one of the
    sources, ``how`` another choice than the kernels'.
    """
    kernels, gpu = on or emulator()
    selected = chosen(kernels, case) if how is None else Selected(how, "as given")
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
        elif name in ("x", "residual") and (values := getattr(given, name)) is not None:
            held[name] = (_tensor(case, kind, case.skew[i], case.problem["pitch"]), INPUT)
            held[name][0][:] = np.nan  # also what lies between the rows
            _view(case, held[name][0])[:] = values
    for name in ("scale", "bias", "modulation_scale", "modulation_shift"):
        if (values := getattr(given, name)) is not None:
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
