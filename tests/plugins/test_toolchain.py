"""Finding NVIDIA's compiler: each place it may be in, and what is said where it is not or is not whole."""

import os
from pathlib import Path

import pytest

from gn_deploy.errors import UnavailableError
from gn_deploy.plugin import toolchain
from gn_deploy.plugin.toolchain import PACKAGES, Toolchain

NVCC = """#!/bin/sh
case "$*" in
    --version) echo "Cuda compilation tools, release 13.5, V13.5.37" ;;
    --list-gpu-code) printf 'sm_75\\nsm_90\\nsm_120\\nsm_90\\n' ;;
    *) echo "#\\$ TOP=$(dirname "$0")/.." >&2 ;;
esac
"""


@pytest.fixture
def toolkit(tmp_path: Path) -> Path:
    """A folder with everything that a toolkit is recognised by."""
    root = tmp_path / "toolkit"
    for name in ("bin/nvcc", "nvvm/bin/cicc", "include/cuda_runtime.h", "include/crt/host_config.h"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(NVCC)
        (root / name).chmod(0o755)
    return root


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No toolkit but those of a test: nothing on PATH except a C++ compiler, no usual folder, no packages."""
    (tmp_path / "path").mkdir()
    for program in ("g++", "dirname"):
        (tmp_path / "path" / program).symlink_to(f"/usr/bin/{program}")
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    for variable in ("CUDA_HOME", "CUDA_PATH", "NVCC_CCBIN"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(toolchain, "_site_packages", lambda: [tmp_path / "site"])
    monkeypatch.setattr(toolchain, "USUAL", tmp_path / "usual")


pytestmark = pytest.mark.usefixtures("nowhere")


@pytest.mark.parametrize("origin", ["CUDA_HOME", "CUDA_PATH", "PATH", "the usual folder", "PyPI"])
def test_every_place_is_looked_at(origin, toolkit, tmp_path, monkeypatch) -> None:
    if origin.startswith("CUDA"):
        monkeypatch.setenv(origin, str(toolkit))
    elif origin == "PATH":  # a wrapper elsewhere: the toolkit is not the folder above it
        wrapper = tmp_path / "path" / "nvcc"
        wrapper.write_text(f'#!/bin/sh\nexec {toolkit}/bin/nvcc "$@"\n')
        wrapper.chmod(0o755)
    else:
        link = tmp_path / ("usual" if origin == "the usual folder" else "site/nvidia/cu13")
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(toolkit)
    found = toolchain.find()
    assert isinstance(found, Toolchain)
    assert (found.origin, found.release, found.toolkit.resolve()) == (origin, (13, 5), toolkit.resolve())
    assert found.text == "nvcc 13.5"
    assert toolchain.architectures(found) == (75, 90, 120)


@pytest.mark.parametrize(
    ("missing", "named"),
    [
        ("include/cuda_runtime.h", "nvidia-cuda-runtime"),
        ("include/crt/host_config.h", "nvidia-cuda-crt"),
        ("nvvm/bin/cicc", "nvidia-nvvm"),
        ("bin/nvcc", "CUDA_HOME names a folder without bin/nvcc"),
    ],
)
def test_a_toolkit_that_is_not_whole_is_told(missing, named, toolkit, monkeypatch) -> None:
    (toolkit / missing).unlink()
    monkeypatch.setenv("CUDA_HOME", str(toolkit))
    with pytest.raises(UnavailableError, match=named):
        toolchain.find()


def test_a_broken_place_does_not_hide_a_good_one(toolkit, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "empty"))
    monkeypatch.setenv("CUDA_PATH", str(toolkit))
    assert toolchain.find().origin == "CUDA_PATH"


def test_where_there_is_none_the_packages_are_named() -> None:
    with pytest.raises(UnavailableError, match="no CUDA compiler: nvcc is not on PATH") as refused:
        toolchain.find()
    assert PACKAGES in refused.value.hint


def test_a_host_compiler_is_needed_too(toolkit, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("CUDA_HOME", str(toolkit))
    os.unlink(tmp_path / "path" / "g++")
    with pytest.raises(UnavailableError, match=r"g\+\+ is not on PATH"):
        toolchain.find()


def test_tools_and_libraries_are_found_where_the_toolkit_is(toolkit, monkeypatch) -> None:
    assert toolchain.tool("cuobjdump") is None
    assert toolchain.shared_library("nvrtc") is None
    monkeypatch.setenv("CUDA_HOME", str(toolkit))
    (toolkit / "lib64").mkdir()
    for name in ("libnvrtc.so.13", "libnvrtc.so.13.0.88", "libnvrtc-builtins.so.13.0", "libnvrtc.so"):
        (toolkit / "lib64" / name).touch()
    (toolkit / "bin" / "cuobjdump").symlink_to(toolkit / "bin" / "nvcc")
    assert toolchain.shared_library("nvrtc") == toolkit / "lib64" / "libnvrtc.so.13"
    assert toolchain.tool("cuobjdump") == toolkit / "bin" / "cuobjdump"
