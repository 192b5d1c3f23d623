"""The GPU that is timed, through torch: its memory, streams, CUDA graphs, events and facts."""

import ctypes
import platform
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from gn_deploy.errors import GnDeployError, UnavailableError
from gn_deploy.plugin.binding import CDevice, Library
from scripts.gpu.checks import Memory
from scripts.gpu.clocks import Clock
from scripts.gpu.driver import COPY, THREADS, Module, copy_grid
from scripts.gpu.memory import DriverMemory

QUEUED_CYCLES = 1_000_000  # about 0.5 ms: before the device has slept so long, a graph of 256 nodes is in its queue
COMPILE_MODE = "max-autotune-no-cudagraphs"  # everything torch.compile can do; the graphs are ours, as for all others

Launch = Callable[[], object]


class CudaMachine:
    """The first GPU. Everything is launched on ``stream()``, the current one of torch."""

    torch_device = "cuda"

    def __init__(self, library: Path) -> None:
        """Raises UnavailableError without torch, without CUDA in it, or without a GPU."""
        reason = missing()
        if reason:
            raise UnavailableError(reason)
        import torch

        self._torch = torch
        torch.cuda.init()
        torch.zeros(1, device="cuda")  # makes the primary context, which the library and the driver then find
        self.library = Library(library)
        self.device: CDevice = self.library.query_device(0)
        self._properties = torch.cuda.get_device_properties(0)
        self._clock = Clock(str(getattr(self._properties, "uuid", "")))
        self._copies = _module()
        self._memory: DriverMemory | None = None

    def memory(self) -> Memory:
        """For the checks; one, as each has a stream."""
        self._memory = self._memory or DriverMemory()
        return self._memory

    def stream(self) -> int | None:
        return int(self._torch.cuda.current_stream().cuda_stream)

    def free_memory(self) -> int:
        self._torch.cuda.empty_cache()
        return int(self._torch.cuda.mem_get_info()[0])

    def wait(self) -> None:
        self._torch.cuda.synchronize()

    def record(self, launches: Sequence[Launch]) -> Launch:
        """One call replays them all, in order. The first ones run once before, for whatever is loaded on first use."""
        torch = self._torch
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for launch in launches[:2]:
                launch()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.stream(stream):  # torch.cuda.graph would empty torch's cache first, which takes its time
            graph.capture_begin()
            try:
                for launch in launches:
                    launch()
            finally:
                graph.capture_end()
        graph.replay()
        torch.cuda.synchronize()
        return graph.replay

    def elapsed(self, replay: Launch) -> float:
        """Seconds on the device from the first launch to the end of the last."""
        torch = self._torch
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda._sleep(QUEUED_CYCLES)
        begin.record()
        replay()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1e3

    def own_copy(self) -> Callable[[int, int, int], None] | None:
        """(target, source, bytes), or None where the driver would not take the PTX."""
        if self._copies is None:
            return None
        module = self._copies

        def copy(target: int, source: int, size: int) -> None:
            blocks, vectors = copy_grid(size)
            module.launch("gn_copy", blocks, THREADS, self.stream() or 0, (target, source, vectors))

        return copy

    def empty(self) -> Launch | None:
        """A kernel that does nothing: what a launch costs in a graph."""
        module = self._copies
        return None if module is None else lambda: module.launch("gn_empty", 1, 32, self.stream() or 0)

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        compiled: Callable[..., Any] = self._torch.compile(function, dynamic=False, mode=COMPILE_MODE)
        return compiled

    def forget_compiled(self) -> None:
        """Between shapes: a function compiled too often falls back to eager without a word."""
        self._torch._dynamo.reset()

    def clock_mhz(self) -> int | None:
        return self._clock.mhz()

    def facts(self) -> dict[str, Any]:
        torch, properties = self._torch, self._properties
        return {
            "device": {
                "name": properties.name,
                "compute_capability": f"{properties.major}.{properties.minor}",
                "multiprocessors": properties.multi_processor_count,
                "memory": properties.total_memory,
                "l2": int(self.device.l2),
                "driver": driver_version(),
            },
            "versions": {
                "torch": str(torch.__version__),
                "cuda of torch": torch.version.cuda,
                "triton": _installed("triton"),
                "python": platform.python_version(),
            },
        }


def missing() -> str:
    """What this machine lacks for timing, in one line; empty when nothing."""
    try:
        import torch
    except ImportError as error:
        return f"torch cannot be imported ({error})"
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA"
    if not torch.cuda.is_available():
        return "torch sees no NVIDIA GPU"
    return ""


def driver_version() -> str:
    """As NVIDIA's management library tells it, else the CUDA release that the driver supports."""
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
        text = ctypes.create_string_buffer(96)
        if library.nvmlInit_v2() == 0 and library.nvmlSystemGetDriverVersion(text, 96) == 0:
            return text.value.decode()
        number = ctypes.c_int()
        ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(number))
    except OSError:
        return "unknown"
    return f"for CUDA {number.value // 1000}.{number.value % 1000 // 10}"


def _module() -> Module | None:
    try:
        return Module(COPY.read_text())
    except (GnDeployError, OSError):
        return None


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
