"""A machine for scripts.gpu whose memory is the host's: the whole benchmark runs where there is no GPU."""

import ctypes
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gn_deploy.plugin.binding import Library
from scripts.gpu.cases import Case
from scripts.gpu.memory import HostMemory

TINY = (
    Case("SD1.5", (1, 32, 8, 8)),
    Case("3-D U-Net", (1, 16, 4, 4, 4), "film", "float32", "nhwc", 4),
    Case("ResNet-50", (2, 16, 7, 7), "skip+sum", "bfloat16", groups=8),
)
"""Layers that take a CPU no time."""


class HostMachine:
    """What ``scripts.gpu.machine.CudaMachine`` is, for a library that runs on the CPU; torch runs there as well."""

    torch_device = "cpu"

    def __init__(self, library: Path) -> None:
        self.library = Library(library)
        self.device = self.library.query_device(0)
        self.device.l2 = 1 << 16  # a ring beyond it is small

    def memory(self) -> HostMemory:
        return HostMemory()

    def stream(self) -> None:
        return None

    def free_memory(self) -> int:
        return 64 << 20

    def wait(self) -> None:
        pass

    def record(self, launches: Sequence[Callable[[], object]]) -> Callable[[], object]:
        return lambda: [launch() for launch in launches]

    def elapsed(self, replay: Callable[[], object]) -> float:
        begun = time.perf_counter()
        replay()
        return time.perf_counter() - begun

    def own_copy(self) -> Callable[[int, int, int], object]:
        return ctypes.memmove

    def empty(self) -> Callable[[], object]:
        return lambda: None

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return function

    def forget_compiled(self) -> None:
        pass

    def clock_mhz(self) -> int:
        return 1000

    def facts(self) -> dict[str, Any]:
        return {
            "device": {
                "name": "Host",
                "compute_capability": "9.0",
                "multiprocessors": self.device.multiprocessors,
                "memory": 1 << 30,
                "l2": self.device.l2,
                "driver": "none",
            },
            "versions": {"torch": "any", "cuda of torch": None, "triton": None, "python": "3"},
        }


class EmulatedMachine(HostMachine):
    """The same for the kernels themselves in plugins/emulator, on a small Hopper; slow, so that rings are short."""

    def __init__(self, library: Path) -> None:
        super().__init__(library)
        from tests.plugins.cases import DEVICES
        from tests.plugins.emulated import Machine

        Machine(library).device(DEVICES["hopper"])
        self.device = self.library.query_device(0)
        self.device.l2 = 1 << 12
