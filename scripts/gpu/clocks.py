"""The clock of the multiprocessors, as NVIDIA's management library tells it."""

import ctypes

_SM = 1  # NVML_CLOCK_SM


class Clock:
    """``mhz`` is None wherever the library is missing or does not say."""

    def __init__(self, uuid: str) -> None:
        """``uuid`` names the GPU as torch does, without "GPU-"; the first one when it is not known."""
        self._library = None
        self._device = ctypes.c_void_p()
        try:
            library = ctypes.CDLL("libnvidia-ml.so.1")
        except OSError:
            return
        if library.nvmlInit_v2():
            return
        name = f"GPU-{uuid}".encode()
        found = library.nvmlDeviceGetHandleByUUID(name, ctypes.byref(self._device)) == 0
        if found or library.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(self._device)) == 0:
            self._library = library

    def mhz(self) -> int | None:
        if self._library is None:
            return None
        value = ctypes.c_uint()
        failed = self._library.nvmlDeviceGetClockInfo(self._device, _SM, ctypes.byref(value))
        return None if failed else value.value
