"""The plugin's library for the tests that take TensorRT's part."""

from collections.abc import Iterator

import pytest

from tests.plugins.adapter import SMALL, Host, recording_library


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
