"""The plugin's library for the tests that take TensorRT's part."""

import ctypes
from collections.abc import Iterator

import pytest

from gn_deploy.plugin.binding import CDevice, struct
from tests.plugins.adapter import SMALL, Host, emulated_library, recording_library


@pytest.fixture(scope="session")
def loaded() -> Host:
    return Host(recording_library())


@pytest.fixture
def host(loaded: Host) -> Iterator[Host]:
    """On a small GPU that launches nothing."""
    loaded.device(SMALL)
    yield loaded
    loaded.refuse_memory(False)
    loaded.refuse_launches(0)


@pytest.fixture(scope="session")
def emulated() -> Host:
    """On a small GPU, emulated, whose threads run in random order."""
    host = Host(emulated_library())
    host.device(SMALL)
    host.c.gn_emulator_device(ctypes.byref(struct(CDevice, SMALL)))
    host.c.gn_emulator_schedule(2, ctypes.c_uint64(1))
    return host
