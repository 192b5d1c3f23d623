"""The memory checks run in: a GPU's through its driver alone, or the host's for the emulator."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gn_deploy.runtimes.cuda_driver import Device

ALIGNMENT = 256


class DriverMemory:
    """The first GPU, without torch: what the driver allocates is aligned to 256 bytes."""

    def __init__(self) -> None:
        self._device = Device()
        self.stream: int | None = self._device.stream

    def put(self, data: NDArray[Any]) -> int:
        address = self._device.allocate(data.nbytes)
        self._device.upload(address, data)
        return address

    def replace(self, address: int, data: NDArray[Any]) -> None:
        self._device.upload(address, data)

    def get(self, address: int, size: int) -> NDArray[Any]:
        data = np.empty(size, np.uint8)
        if size:
            self._device.download(data, address)
        return data

    def free(self) -> None:
        self._device.free()


class HostMemory:
    """NumPy arrays, for a library that runs on the host."""

    def __init__(self) -> None:
        self.stream: int | None = None
        self._held: dict[int, NDArray[Any]] = {}

    def put(self, data: NDArray[Any]) -> int:
        held = np.empty(data.nbytes + ALIGNMENT, np.uint8)
        address = -(-held.ctypes.data // ALIGNMENT) * ALIGNMENT
        self._held[address] = held[address - held.ctypes.data :][: data.nbytes]
        self.replace(address, data)
        return address

    def replace(self, address: int, data: NDArray[Any]) -> None:
        self._held[address][:] = data.reshape(-1).view(np.uint8)

    def get(self, address: int, size: int) -> NDArray[Any]:
        return self._held[address][:size].copy()

    def free(self) -> None:
        self._held.clear()
