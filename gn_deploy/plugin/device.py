"""The GPU in this machine as the choice of a kernel needs to know it, asked of the CUDA driver: no toolkit needed."""

import ctypes
import sys
from functools import cache
from typing import Any

from gn_deploy.errors import GnDeployError, UnavailableError
from gn_deploy.plugin.binding import CDevice

# CUdevice_attribute, cuda.h
_MULTIPROCESSORS, _REGISTERS, _THREADS, _L2 = 16, 82, 39, 38
_SHARED, _SHARED_OPT_IN, _MAJOR, _MINOR, _COOPERATIVE = 81, 97, 75, 76, 95
PORTABLE_CLUSTER = 8
"""Blocks of a cluster that every GPU with clusters runs (CUDA C++ Programming Guide, "Thread Block Clusters")."""
FIRST_WITH_CLUSTERS = 90


def query(ordinal: int = 0) -> CDevice:
    """Raises ``UnavailableError`` where there is no driver or no such GPU."""
    driver = _driver()
    handle, count = ctypes.c_int(), ctypes.c_int()
    _call(driver, "cuDeviceGetCount", ctypes.byref(count))
    if not 0 <= ordinal < count.value:
        raise UnavailableError(f"no CUDA device {ordinal}: this machine has {count.value}")
    _call(driver, "cuDeviceGet", ctypes.byref(handle), ordinal)

    def attribute(number: int) -> int:
        value = ctypes.c_int()
        _call(driver, "cuDeviceGetAttribute", ctypes.byref(value), number, handle)
        return value.value

    capability = 10 * attribute(_MAJOR) + attribute(_MINOR)
    return CDevice(
        compute_capability=capability,
        multiprocessors=attribute(_MULTIPROCESSORS),
        registers=attribute(_REGISTERS),
        shared_per_block=attribute(_SHARED_OPT_IN),
        shared=attribute(_SHARED),
        threads=attribute(_THREADS),
        l2=attribute(_L2),
        cluster_blocks=PORTABLE_CLUSTER if capability >= FIRST_WITH_CLUSTERS else 1,
        cooperative=attribute(_COOPERATIVE),
    )


@cache
def _driver() -> ctypes.CDLL:
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError as error:
        raise UnavailableError(f"no CUDA driver: {error}", "an NVIDIA GPU and its driver are needed") from None
    _call(driver, "cuInit", 0)
    return driver


def _call(driver: ctypes.CDLL, function: str, *arguments: Any) -> None:
    status = getattr(driver, function)(*arguments)
    if status:
        text = ctypes.c_char_p()
        driver.cuGetErrorString(status, ctypes.byref(text))
        kind = UnavailableError if function == "cuInit" else GnDeployError
        raise kind(f"{function}: {(text.value or b'error %d' % status).decode()}")
