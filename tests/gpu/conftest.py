"""The GPU, its library built once for all processes of the run, and memory that is given back."""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gn_deploy.decision import Rejected
from gn_deploy.errors import UnavailableError
from gn_deploy.plugin import build as builder
from gn_deploy.plugin import toolchain
from gn_deploy.plugin.binding import CDevice, Library
from gn_deploy.plugin.location import ENVIRONMENT
from scripts.gpu.machine import CudaMachine, missing


@pytest.fixture(scope="session")
def gpu() -> Any:
    """torch, on a machine where it has a GPU."""
    reason = missing()
    if reason:
        pytest.skip(reason)
    return pytest.importorskip("torch")


@pytest.fixture(scope="session")
def library_file(gpu: Any) -> Path:
    """The whole plugin for this GPU; a minute or two the first time, nothing as long as no source changes."""
    if os.environ.get(ENVIRONMENT):
        return Path(os.environ[ENVIRONMENT])
    if isinstance(compiler := toolchain.search(), Rejected):
        pytest.skip(f"{compiler.reason}; {ENVIRONMENT} may name a library built elsewhere")
    here = builder.architecture("native")
    made = Path(tempfile.gettempdir()) / f"gn_deploy-gpu-{os.getuid()}" / f"libgn_deploy_plugin_{here}.so"
    made.parent.mkdir(exist_ok=True)
    with made.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return builder.build(made, architectures=[here]).path


@pytest.fixture(scope="session")
def machine(library_file: Path) -> CudaMachine:
    try:
        return CudaMachine(library_file)
    except UnavailableError as error:
        pytest.skip(error.message)


@pytest.fixture(scope="session")
def library(machine: CudaMachine) -> Library:
    return machine.library


@pytest.fixture(scope="session")
def device(machine: CudaMachine) -> CDevice:
    return machine.device


@pytest.fixture(autouse=True)
def _empty(request: pytest.FixtureRequest) -> Iterator[None]:
    """torch keeps what it was given; tests beside this one need it too."""
    yield
    if "gpu" in request.fixturenames:
        request.getfixturevalue("gpu").cuda.empty_cache()
