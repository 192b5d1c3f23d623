"""What a kernel of the plugin is asked and what it runs on: gn_problem and gn_device of plugins/kernels/gn.h."""

from dataclasses import dataclass, replace

from gn_deploy.errors import InputError

KB, MB = 1 << 10, 1 << 20


@dataclass(frozen=True, slots=True)
class Problem:
    """y = act((x [+ residual] - mean) / sqrt(var + epsilon) * scale * (1 + s) + bias * (1 + s) + t).

    1. x is (samples, channels, positions), "nchw", or (samples, positions, channels), "nhwc", whose positions are
       ``pitch`` elements apart; 0 stands for ``channels``. ``output_pitch`` is the same of a quantized y.
    2. Names of types and activations are those of ``binding``; "" stands for x's type.
    """

    samples: int
    channels: int
    positions: int
    groups: int
    layout: str = "nchw"
    dtype: str = "float16"
    pitch: int = 0
    output_pitch: int = 0
    epsilon: float = 1e-5
    parameter_dtype: str = ""
    output_dtype: str = ""
    activation: str = "none"
    output_scale: float = 1.0
    has_residual: int = 0
    has_sum: int = 0
    has_affine: int = 3
    """Bit 0: scale, bit 1: bias."""
    has_modulation: int = 0
    """Bit 0: s, bit 1: t."""

    def __post_init__(self) -> None:
        for name, usual in (
            ("pitch", self.channels),
            ("output_pitch", self.pitch or self.channels),
            ("parameter_dtype", self.dtype),
            ("output_dtype", self.dtype),
        ):
            if not getattr(self, name):
                object.__setattr__(self, name, usual)


@dataclass(frozen=True, slots=True)
class Device:
    """What the choice of a kernel asks of a GPU; sizes in bytes."""

    compute_capability: int
    """10 * major + minor."""
    multiprocessors: int
    shared_per_block: int
    """Opt-in."""
    shared: int
    """Of one multiprocessor."""
    threads: int
    """Resident on one multiprocessor, at most."""
    l2: int
    cluster_blocks: int = 1
    """Largest portable cluster: 8 on compute capability 9.0 and later, 1 before."""
    registers: int = 65536
    """32-bit, of one multiprocessor: the same since compute capability 7.0."""
    cooperative: int = 1


def _device(capability: int, multiprocessors: int, l2: float) -> Device:
    """CUDA C++ Programming Guide, table "Technical Specifications per Compute Capability"."""
    shared, threads = {
        75: (64, 1024),
        80: (164, 2048),
        86: (100, 1536),
        89: (100, 1536),
        90: (228, 2048),
        100: (228, 2048),
        120: (100, 1536),
    }[capability]
    a_block = shared - (0 if capability == 75 else 1)  # from 8.0 on CUDA keeps 1 KB of a block's for itself
    clusters = 8 if capability >= 90 else 1
    return Device(capability, multiprocessors, a_block * KB, shared * KB, threads, int(l2 * MB), clusters)


DEVICES = {
    "T4": _device(75, 40, 4),
    "A100": _device(80, 108, 40),
    "A10": _device(86, 72, 6),
    "3090": _device(86, 82, 6),
    "L4": _device(89, 58, 48),
    "4090": _device(89, 128, 72),
    "H100": _device(90, 132, 50),
    "H200": _device(90, 132, 60),
    "B200": _device(100, 148, 126),
    "5090": _device(120, 170, 96),
}
"""Multiprocessors and second-level cache as NVIDIA's white papers give them; H200 as CUDA reports it."""


def device(name: str) -> Device:
    """Raises InputError for a GPU that is not in DEVICES."""
    if name not in DEVICES:
        raise InputError(f"no description of a GPU called {name!r}", f"one of {', '.join(DEVICES)}")
    return DEVICES[name]


def without(device: Device, *, clusters: bool = True, cooperative: bool = True) -> Device:
    """The same GPU where clusters or cooperative launches cannot be had, in a slice of it say."""
    return replace(
        device,
        cluster_blocks=device.cluster_blocks if clusters else 1,
        cooperative=device.cooperative if cooperative else 0,
    )
