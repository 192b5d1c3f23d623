"""PTX loaded and launched through the CUDA driver, in whatever context torch made current."""

import ctypes
from collections.abc import Sequence
from pathlib import Path

from gn_deploy.errors import UnavailableError

COPY = Path(__file__).with_name("copy.ptx")
THREADS = 256
VECTORS_PER_BLOCK = 4 * THREADS


class Module:
    """Functions of one PTX text; the driver compiles it for the device at hand."""

    def __init__(self, ptx: str) -> None:
        self._driver = ctypes.CDLL("libcuda.so.1")
        self._module = ctypes.c_void_p()
        self._call("cuModuleLoadData", ctypes.byref(self._module), ptx.encode() + b"\0")
        self._functions: dict[str, ctypes.c_void_p] = {}

    def launch(
        self, name: str, blocks: int, threads: int, stream: int, arguments: Sequence[int] = (), shared: int = 0
    ) -> None:
        """``arguments`` are addresses or numbers of up to 64 bits, of which a narrower parameter takes the lower ones;
        ``shared`` is bytes of dynamic shared memory."""
        if name not in self._functions:
            function = ctypes.c_void_p()
            self._call("cuModuleGetFunction", ctypes.byref(function), self._module, name.encode())
            self._functions[name] = function
        held = [ctypes.c_uint64(a) for a in arguments]
        addresses = (ctypes.c_void_p * max(len(held), 1))(*(ctypes.addressof(h) for h in held))
        sizes = [ctypes.c_uint(n) for n in (blocks, 1, 1, threads, 1, 1, shared)]
        where, nothing = ctypes.c_void_p(stream or None), ctypes.c_void_p()
        self._call("cuLaunchKernel", self._functions[name], *sizes, where, addresses, nothing)

    def _call(self, name: str, *arguments: object) -> None:
        code = getattr(self._driver, name)(*arguments)
        if code:
            raise UnavailableError(f"{name} failed with CUDA error {code}")


def copy_grid(size: int) -> tuple[int, int]:
    """(blocks, vectors) for so many bytes, a multiple of 16."""
    vectors = size // 16
    return -(-vectors // VECTORS_PER_BLOCK), vectors
