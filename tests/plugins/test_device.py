"""What the driver says of a GPU reaches the choice of a kernel."""

import ctypes

import pytest

from gn_deploy.errors import UnavailableError
from gn_deploy.plugin import device

# CUdevice_attribute: what an H200 answers
H200 = {16: 132, 82: 65536, 97: 232448, 81: 233472, 39: 2048, 38: 62914560, 75: 9, 76: 0, 95: 1}


class Driver:
    """As ctypes calls it, with one GPU."""

    def __init__(self, attributes: dict[int, int]) -> None:
        self.attributes = attributes

    def cuDeviceGetCount(self, count: object) -> int:  # noqa: N802
        return _answer(count, 1)

    def cuDeviceGet(self, handle: object, ordinal: int) -> int:  # noqa: N802
        return _answer(handle, 77)

    def cuDeviceGetAttribute(self, value: object, number: int, handle: ctypes.c_int) -> int:  # noqa: N802
        assert handle.value == 77
        return _answer(value, self.attributes[number])


def _answer(reference: object, value: int) -> int:
    reference._obj.value = value  # type: ignore[attr-defined]
    return 0


def test_every_field_is_what_the_driver_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_driver", lambda: Driver(H200))
    found = device.query()
    assert {name: getattr(found, name) for name, *_ in found._fields_} == {
        "compute_capability": 90,
        "multiprocessors": 132,
        "registers": 65536,
        "shared_per_block": 232448,
        "shared": 233472,
        "threads": 2048,
        "l2": 62914560,
        "cluster_blocks": 8,
        "cooperative": 1,
    }
    monkeypatch.setattr(device, "_driver", lambda: Driver({**H200, 75: 8, 76: 6}))
    assert (device.query().compute_capability, device.query().cluster_blocks) == (86, 1)


def test_a_gpu_that_is_not_there_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_driver", lambda: Driver(H200))
    with pytest.raises(UnavailableError, match="no CUDA device 3: this machine has 1"):
        device.query(3)


def test_without_a_driver_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> ctypes.CDLL:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", absent)
    device._driver.cache_clear()
    with pytest.raises(UnavailableError, match=r"no CUDA driver: libcuda\.so"):
        device.query()
