"""The few calls of the CUDA driver that running an engine takes, through ctypes: wherever a GPU is, libcuda is."""

import ctypes
import sys
from functools import cache

import numpy as np

from gn_deploy.decision import Accepted, Decision, Rejected
from gn_deploy.errors import UnavailableError
from gn_deploy.runtimes.base import Array, RuntimeFailure

_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR


@cache
def _driver() -> ctypes.CDLL:
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        library = ctypes.CDLL(name)
    except OSError:
        raise UnavailableError(f"no NVIDIA driver: {name} cannot be loaded") from None
    code = library.cuInit(0)
    if code:
        raise UnavailableError(f"the NVIDIA driver does not start (cuInit returned {code})")
    return library


def _call(function: str, *arguments: object) -> None:
    code = getattr(_driver(), function)(*arguments)
    if code:
        text = ctypes.c_char_p()
        _driver().cuGetErrorString(code, ctypes.byref(text))
        raise RuntimeFailure(f"{function} failed: {text.value.decode() if text.value else code}")


def gpu() -> Decision:
    """Accepted("compute capability 8.9") for the first GPU, or why there is none."""
    try:
        count, device, major, minor = (ctypes.c_int() for _ in range(4))
        _call("cuDeviceGetCount", ctypes.byref(count))
        if not count.value:
            return Rejected("no NVIDIA GPU in this machine")
        _call("cuDeviceGet", ctypes.byref(device), 0)
        _call("cuDeviceGetAttribute", ctypes.byref(major), _MAJOR, device)
        _call("cuDeviceGetAttribute", ctypes.byref(minor), _MINOR, device)
    except (UnavailableError, RuntimeFailure) as error:
        return Rejected(error.message)
    return Accepted(f"compute capability {major.value}.{minor.value}")


class Device:
    """The first GPU's primary context and a stream; buffers live until ``close``."""

    def __init__(self) -> None:
        self._device, self._context, self._stream = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p()
        self._buffers: list[ctypes.c_uint64] = []
        _call("cuDeviceGet", ctypes.byref(self._device), 0)
        _call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), self._device)
        _call("cuCtxSetCurrent", self._context)
        _call("cuStreamCreate", ctypes.byref(self._stream), 0)

    @property
    def stream(self) -> int:
        return self._stream.value or 0

    def allocate(self, size: int) -> int:
        """Address of ``size`` bytes, at least one, on the GPU."""
        pointer = ctypes.c_uint64()
        _call("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(max(size, 1)))
        self._buffers.append(pointer)
        return pointer.value

    def upload(self, address: int, array: Array) -> None:
        array = np.ascontiguousarray(array)
        source, size = ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes)
        _call("cuMemcpyHtoD_v2", ctypes.c_uint64(address), source, size)

    def download(self, array: Array, address: int) -> None:
        """Waits for the stream, then fills the contiguous ``array``."""
        _call("cuStreamSynchronize", self._stream)
        target, size = ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes)
        _call("cuMemcpyDtoH_v2", target, ctypes.c_uint64(address), size)

    def free(self) -> None:
        """Gives all buffers back."""
        while self._buffers:
            _call("cuMemFree_v2", self._buffers.pop())

    def close(self) -> None:
        if self._context:
            self.free()
            _call("cuStreamDestroy_v2", self._stream)
            _call("cuDevicePrimaryCtxRelease_v2", self._device)
            self._context = ctypes.c_void_p()
