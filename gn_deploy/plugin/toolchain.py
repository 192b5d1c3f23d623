"""Where NVIDIA's compilers are: CUDA_HOME, PATH, the usual folder, or the packages of PyPI in this environment."""

import os
import re
import shutil
import site
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gn_deploy.decision import Rejected
from gn_deploy.errors import UnavailableError

PACKAGES = "nvidia-cuda-nvcc"
"""The rest of a compiler comes with it: nvidia-nvvm, nvidia-cuda-crt, nvidia-cuda-runtime."""
INSTALL = f"pip install {PACKAGES}, or put NVIDIA's CUDA toolkit on PATH or its folder into CUDA_HOME"

LIBRARIES = ("lib64", "lib", "targets/x86_64-linux/lib", "targets/sbsa-linux/lib")
"""Folders of a toolkit that may hold its libraries, by who packed it."""
USUAL = Path("/usr/local/cuda")
"""Where NVIDIA's own installers leave a link to the toolkit."""


@dataclass(frozen=True, slots=True)
class Toolchain:
    """A CUDA C++ compiler that can make a shared library."""

    nvcc: Path
    release: tuple[int, int]
    """(13, 0); a library built by it needs a driver of the same major release or a later one."""
    toolkit: Path
    """Holds ``bin``, ``include`` and the static CUDA runtime."""
    host: Path
    """The C++ compiler nvcc hands host code to."""
    origin: str
    """Where it was found: "CUDA_HOME", "PATH", "the usual folder", "PyPI"."""

    @property
    def text(self) -> str:
        return f"nvcc {self.release[0]}.{self.release[1]}"


def find() -> Toolchain:
    """The first compiler that works. Raises UnavailableError, which names what to install, when there is none."""
    found = search()
    if isinstance(found, Rejected):
        raise UnavailableError(found.reason, INSTALL)
    return found


def search() -> Toolchain | Rejected:
    """The same, or every place that was looked at and why it would not do."""
    host = shutil.which(os.environ.get("NVCC_CCBIN") or "g++")
    if host is None:
        return Rejected("no C++ compiler: g++ is not on PATH")
    reasons = []
    for nvcc, origin in _compilers():
        found = _looked_at(nvcc, origin, Path(host))
        if isinstance(found, Toolchain):
            return found
        reasons.append(found.reason)
    return Rejected(
        "; ".join(dict.fromkeys(reasons)) or "no CUDA compiler: nvcc is not on PATH, nor installed from PyPI"
    )


def architectures(toolchain: Toolchain) -> tuple[int, ...]:
    """Compute capabilities the compiler can make code for, as 10 * major + minor, ascending."""
    told = _output(toolchain.nvcc, "--list-gpu-code")
    return tuple(sorted(int(number) for number in set(re.findall(r"\bsm_(\d+)\b", told))))


def toolkits() -> Iterator[tuple[Path, str]]:
    """Folders that hold a CUDA toolkit or a part of one, best first, and where each was found."""
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        if os.environ.get(variable):
            yield Path(os.environ[variable]), variable
    on_path = shutil.which("nvcc")
    if on_path is not None and (root := _toolkit(Path(on_path))) is not None:
        yield root, "PATH"
    yield USUAL, "the usual folder"
    for packages in _site_packages():
        for root in sorted(packages.glob("nvidia/cu[0-9]*"), reverse=True):
            yield root, "PyPI"


def tool(name: str) -> Path | None:
    """A program of the toolkit, such as "cuobjdump" or "nvdisasm", from PATH, a toolkit or PyPI's packages."""
    on_path = shutil.which(name)
    places = [Path(on_path)] if on_path else [root / "bin" / name for root, _ in toolkits()]
    return next((place for place in places if os.access(place, os.X_OK)), None)


def shared_library(name: str) -> Path | None:
    """A library of the toolkit, "nvrtc" say, under the name its users load, from the first place that has one."""
    for root, _ in toolkits():
        for folder in LIBRARIES:
            found = sorted((root / folder).glob(f"lib{name}.so.[0-9]*"), key=lambda file: (len(file.name), file.name))
            if found:
                return found[0]  # libnvrtc.so.13 before libnvrtc.so.13.0.88: the name that its own users look for
    return None


def _compilers() -> Iterator[tuple[Path, str]]:
    for root, origin in toolkits():
        nvcc = root / "bin" / "nvcc"
        if origin in ("CUDA_HOME", "CUDA_PATH") or nvcc.is_file():  # what was asked for is told when it is not there
            yield nvcc, origin


def _looked_at(nvcc: Path, origin: str, host: Path) -> Toolchain | Rejected:
    if not os.access(nvcc, os.X_OK):
        return Rejected(f"{origin} names a folder without bin/nvcc")
    release = re.search(r"release (\d+)\.(\d+)", _output(nvcc, "--version"))
    root = _toolkit(nvcc)
    if release is None or root is None:
        return Rejected(f"the nvcc of {origin} does not run")
    for header, package in (("cuda_runtime.h", "nvidia-cuda-runtime"), ("crt/host_config.h", "nvidia-cuda-crt")):
        if not (root / "include" / header).is_file():
            return Rejected(f"the nvcc of {origin} has no {header} ({package})")
    if not any((root / "nvvm" / "bin").glob("cicc*")):
        return Rejected(f"the nvcc of {origin} has no cicc (nvidia-nvvm)")
    return Toolchain(nvcc, (int(release[1]), int(release[2])), root, host, origin)


def _toolkit(nvcc: Path) -> Path | None:
    """The folder an nvcc works from, which a wrapper script or a link does not tell by its place."""
    told = re.search(r"^#\$ TOP=(.+)$", _output(nvcc, "--dryrun", "-E", "-x", "cu", os.devnull), re.MULTILINE)
    return Path(told[1]).resolve() if told else None


def _output(program: Path, *arguments: str) -> str:
    try:
        done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout + done.stderr


def _site_packages() -> list[Path]:
    places = [*site.getsitepackages(), site.getusersitepackages() if site.ENABLE_USER_SITE else "", *sys.path]
    return [Path(place) for place in dict.fromkeys(places) if place]
