"""The kernels compiled for the emulated GPU, and the functions of plugins/emulator/emulator.h from Python."""

import ctypes
import platform
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from gn_deploy.plugin.binding import CDevice, struct
from tests.plugins.compiled import PLUGINS, compiled

KERNELS, EMULATOR = PLUGINS / "kernels", PLUGINS / "emulator"
SCHEDULES = ("in order", "reversed", "random", "skewed")
"""gn_schedule, in its order."""
INPUT, OUTPUT, WORKSPACE, COUNTERS = 1, 2, 4, 8
"""gn_emulator_use."""
PATTERN = 0xA5  # of memory that nobody has written: a NaN in every format of 8 and 16 bits but int8, tiny in float32


def flags(optimization: str = "-O2") -> tuple[str, ...]:
    """For g++; where the processor has them, fused multiply-add and the like save calls into the C library.

    Kernels are compiled with -O1: two thirds of the time, and they run as fast, since what costs is the emulator.
    """
    found: set[str] = set()
    if platform.machine() == "x86_64" and (cpu := Path("/proc/cpuinfo")).exists():
        line = next((line for line in cpu.read_text().splitlines() if line.startswith("flags")), "")
        found = {"fma", "avx2"} & set(line.split())
    return (
        *("-std=c++17", optimization, "-DGN_EMULATOR", "-fPIC", "-fno-semantic-interposition"),
        *("-Wall", "-Wextra", "-Wno-unknown-pragmas"),
        *(f"-m{name}" for name in sorted(found)),
    )


CUDA = "launch.cu"  # the one source that asks CUDA for something; plugins/emulator/answers.cpp stands for it
INSTRUMENTED = "-fsanitize=thread"  # its calls are answered by plugins/emulator/instrumented.cpp


def headers(*folders: Path) -> list[Path]:
    return sorted(path for folder in folders for path in folder.glob("*.h"))


def emulator_objects() -> list[Path]:
    reads = headers(EMULATOR, KERNELS)
    return _parallel([(path, flags(), reads) for path in sorted(EMULATOR.glob("*.cpp"))])


def kernel_objects(kernels: Path = KERNELS, only: Sequence[str] | None = None) -> dict[str, Path]:
    """The object of each source of plugins/kernels, or of another version of that folder, by name."""
    found = sorted(p for p in kernels.iterdir() if p.suffix in (".cu", ".cpp") and p.name != CUDA)
    sources = [path for path in found if only is None or path.name in only]
    reads = [*headers(EMULATOR), *headers(kernels)]
    objects = _parallel([(path, (*flags("-O1"), INSTRUMENTED, "-x", "c++"), reads) for path in sources])
    return dict(zip((path.name for path in sources), objects, strict=True))


def linked(name: str, objects: Sequence[Path]) -> Path:
    return compiled(name, [*objects], "-shared", "-Wl,-z,defs", "-Wl,-Bsymbolic")


@cache
def library() -> Path:
    """All kernels, the choice, the launch and the emulator."""
    return linked("libgn_emulated", [*kernel_objects().values(), *emulator_objects()])


def _parallel(jobs: Sequence[tuple[Path, tuple[str, ...], Sequence[Path]]]) -> list[Path]:
    """On two cores: a test run has no more."""
    with ThreadPoolExecutor(2) as pool:
        made = [pool.submit(compiled, p.stem, [p], *more, "-c", reads=r) for p, more, r in jobs]
        return [job.result() for job in made]


class Traffic(ctypes.Structure):
    """gn_traffic."""

    _fields_ = tuple(
        (name, ctypes.c_int64)
        for name in (
            *("loaded", "stored", "loads", "stores", "wide_loads", "wide_stores"),
            *("launches", "blocks", "barriers", "switches"),
        )
    )


class Machine:
    """The emulated GPU inside a loaded library; one for each library, since its state is the library's."""

    def __init__(self, path: Path) -> None:
        self.c = ctypes.CDLL(str(path))
        self.moved: dict[str, Traffic] = {}
        """Name of a buffer, or "total", -> what went through it while ``buffers`` was entered last."""
        self.c.gn_emulator_error.restype = ctypes.c_char_p
        self.c.gn_emulator_reserve.restype = ctypes.c_void_p

    def device(self, device: CDevice | Mapping[str, int]) -> None:
        self.c.gn_emulator_device(ctypes.byref(struct(CDevice, device)))

    def schedule(self, schedule: str, seed: int = 0) -> None:
        self.c.gn_emulator_schedule(SCHEDULES.index(schedule), ctypes.c_uint64(seed))

    @contextmanager
    def buffers(self, **buffers: tuple[Any, int]) -> Iterator[None]:
        """Launches inside may touch these arrays only, as they are used; then ``moved`` is the traffic of each."""
        self.c.gn_emulator_forget_buffers()
        self.c.gn_emulator_reset_traffic()
        numbers = {name: self._register(name, *buffer) for name, buffer in buffers.items()}
        try:
            yield
        finally:
            self.moved = {name: self._traffic(number) for name, number in {**numbers, "total": -1}.items()}
            self.c.gn_emulator_forget_buffers()

    def _register(self, name: str, array: Any, use: int) -> int:
        address, size = ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes)
        number = int(self.c.gn_emulator_buffer(address, size, use, name.encode()))
        assert number >= 0, f"{name} overlaps another buffer"
        return number

    def only_blocks(self, first: int, end: int) -> None:
        self.c.gn_emulator_only_blocks(ctypes.c_int64(first), ctypes.c_int64(end))

    def _traffic(self, buffer: int) -> Traffic:
        found = Traffic()
        self.c.gn_emulator_traffic(buffer, ctypes.byref(found))
        return found

    def error(self) -> str:
        return str(self.c.gn_emulator_error().decode())


def aligned(size: int, dtype: Any, *, offset: int = 0) -> np.ndarray[Any, Any]:
    """Memory of PATTERN whose address is ``offset`` elements beyond a multiple of 256 bytes, as CUDA's are."""
    kind = np.dtype(dtype)
    raw = np.full(size * kind.itemsize + 512, PATTERN, np.uint8)
    begin = -raw.ctypes.data % 256 + offset * kind.itemsize
    return raw[begin : begin + size * kind.itemsize].view(kind)
