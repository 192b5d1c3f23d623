"""The TensorRT adapter compiled with g++: over the emulated kernels, or over what only takes down the launches."""

import ctypes
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from gn_deploy.plugin.binding import CBuffers, CChoice, CDevice, CProblem, struct
from tests.plugins.compiled import PLUGINS, ROOT, compiled
from tests.plugins.vtable import Creator, creators

ADAPTER = PLUGINS / "tensorrt"
FLAGS = ("-std=c++17", "-O1", "-fPIC", "-Wall", "-Wextra", "-Werror", "-DGN_OWN_ABI")
H100 = {
    "compute_capability": 90,
    "multiprocessors": 132,
    "registers": 65536,
    "shared_per_block": 232448,
    "shared": 233472,
    "threads": 2048,
    "l2": 50 << 20,
    "cluster_blocks": 8,
    "cooperative": 1,
}
SMALL = H100 | {"multiprocessors": 4, "compute_capability": 80, "cluster_blocks": 1}
"""So few multiprocessors that small problems need every variant, and so few blocks that the emulator is quick."""


def objects() -> list[Path]:
    """The adapter but for what it asks of CUDA."""
    sources = [path for path in sorted(ADAPTER.glob("*.cpp")) if path.name != "memory.cpp"]
    return _compiled([*sources, ROOT / "tests" / "plugins" / "host_memory.cpp"])


def _compiled(sources: list[Path]) -> list[Path]:
    reads = [path for folder in ("kernels", "tensorrt") for path in sorted((PLUGINS / folder).glob("*.h"))]
    with ThreadPoolExecutor(2) as pool:  # a test run has two cores
        made = [pool.submit(compiled, path.stem, [path], *FLAGS, "-c", reads=reads) for path in sources]
        return [job.result() for job in made]


@cache
def launch_objects() -> list[Path]:
    """The choice of a kernel is real, its launch is taken down."""
    sources = [PLUGINS / "kernels" / name for name in ("check.cpp", "select.cpp")]
    return _compiled([*sources, ROOT / "tests" / "plugins" / "recorded_launch.cpp"])


@cache
def recording_library() -> Path:
    flags = ("-shared", "-Wl,-z,defs", "-Wl,-Bsymbolic", "-ldl")
    return compiled("libgn_plugin_recorded", [*objects(), *launch_objects()], *flags)


@cache
def emulated_library() -> Path:
    from tests.plugins.emulated import emulator_objects, kernel_objects, linked

    return linked("libgn_plugin_emulated", [*objects(), *kernel_objects().values(), *emulator_objects()])


class Host:
    """Takes TensorRT's part: the loaded library, its creators by name, and the GPU it believes to be on."""

    def __init__(self, path: Path) -> None:
        self.c = ctypes.CDLL(str(path))
        self.creators: dict[str, Creator] = {creator.name: creator for creator in creators(self.c)}

    def device(self, device: dict[str, int] | None) -> None:
        """None: there is no GPU."""
        if device is None:
            self.c.test_device(None)
        else:
            self.c.test_device(ctypes.byref(struct(CDevice, device)))

    def refuse_memory(self, yes: bool) -> None:
        self.c.test_refuse(int(yes))

    def allocations(self) -> tuple[int, int]:
        """Buffers of counters made so far, and those not yet given back."""
        made, held = ctypes.c_int(), ctypes.c_int()
        self.c.test_allocations(ctypes.byref(made), ctypes.byref(held))
        return made.value, held.value

    def refuse_launches(self, status: int) -> None:
        self.c.test_status(status)

    def launch(self) -> tuple[int, CProblem, CChoice, CBuffers, int | None]:
        """How many launches there were, and the last one; the stream comes last."""
        problem, choice, buffers, stream = CProblem(), CChoice(), CBuffers(), ctypes.c_void_p()
        count = self.c.test_launches(*map(ctypes.byref, (problem, choice, buffers, stream)))
        return count, problem, choice, buffers, stream.value
