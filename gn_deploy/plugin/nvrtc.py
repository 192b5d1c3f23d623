"""CUDA's run-time compiler, from PyPI's ``nvidia-cuda-nvrtc`` or a CUDA toolkit: kernels become PTX without any GPU."""

import ctypes
import ctypes.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from gn_deploy.errors import GnDeployError, UnavailableError
from gn_deploy.plugin import toolchain

PACKAGE = "nvidia-cuda-nvrtc"
_OUT_OF_DATE = "CUDA 12 or later is needed"
# The headers of C and C++ that the kernels include, as far as they use them: the compiler brings none.
_STANDARD = {
    "math.h": "#pragma once\n#define INFINITY __int_as_float(0x7f800000)\n",  # its functions are known without
    "stddef.h": "#pragma once\n",
    "stdint.h": "#pragma once\ntypedef unsigned long long uintptr_t;\n"
    + "".join(
        f"typedef signed {kind} int{bits}_t;\ntypedef unsigned {kind} uint{bits}_t;\n"
        for bits, kind in ((8, "char"), (16, "short"), (32, "int"), (64, "long long"))
    ),
    "algorithm": """#pragma once
namespace std {
template <class T> constexpr T min(T a, T b) { return b < a ? b : a; }
template <class T> constexpr T max(T a, T b) { return a < b ? b : a; }
template <class T> constexpr T min(initializer_list<T> all) {
    T least = *all.begin();
    for (T each : all) least = min<T>(least, each);
    return least;
}
}
""",
    "numeric": """#pragma once
namespace std {
template <class T> constexpr T gcd(T a, T b) { return b == 0 ? a : gcd<T>(b, a % b); }
template <class T> constexpr T lcm(T a, T b) { return a / gcd<T>(a, b) * b; }
}
""",
}


class CompilationError(GnDeployError):
    """The compiler refused the source; the message is its first complaint, ``log`` all of them."""

    def __init__(self, log: str) -> None:
        complaints = [line for line in log.splitlines() if "error" in line] or log.splitlines() or ["no message"]
        super().__init__(f"NVRTC: {complaints[0].strip()}", "the kernels and gn_deploy must be of the same version")
        self.log = log


@dataclass(frozen=True, slots=True)
class Compiled:
    """What came of a source.

    1. ``code`` is PTX text for a virtual architecture, a cubin for a real one.
    2. ``log`` holds what the compiler said, with ``--ptxas-options=-v`` the registers, stack and spills of a kernel.
    """

    code: bytes
    log: str

    @property
    def ptx(self) -> str:
        return self.code.rstrip(b"\0").decode()


def compile_ptx(source: str, capability: int, include: Path, options: Sequence[str] = ()) -> Compiled:
    """PTX for compute capability ``capability`` (10 * major + minor) and, by the driver, whatever follows it."""
    return _compile(source, f"compute_{capability}", include, options)


def compile_cubin(source: str, capability: int, include: Path, options: Sequence[str] = ()) -> Compiled:
    """Machine code for compute capability ``capability`` alone."""
    return _compile(source, f"sm_{capability}", include, ("--ptxas-options=-v", *options))


def version() -> tuple[int, int]:
    """Of CUDA; a driver reads the PTX of compilers up to its own version."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    _call("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
    return major.value, minor.value


def capabilities() -> tuple[int, ...]:
    """All compute capabilities that this compiler knows."""
    count = ctypes.c_int()
    _call("nvrtcGetNumSupportedArchs", ctypes.byref(count))
    known = (ctypes.c_int * count.value)()
    _call("nvrtcGetSupportedArchs", known)
    return tuple(known)


def _compile(source: str, architecture: str, include: Path, options: Sequence[str]) -> Compiled:
    # functions for both sides of a launch carry no mark of the device's
    usual = ("--std=c++17", "--device-as-default-execution-space")
    given = [f"--gpu-architecture={architecture}", f"--include-path={include}", *usual, *options]
    program = ctypes.c_void_p()
    text, names = (_strings(list(s)) for s in (_STANDARD.values(), _STANDARD))
    _call("nvrtcCreateProgram", ctypes.byref(program), source.encode(), b"kernel.cu", len(_STANDARD), text, names)
    try:
        status = _library().nvrtcCompileProgram(program, len(given), _strings(given))
        log = _bytes("nvrtcGetProgramLog", program).rstrip(b"\0").decode(errors="replace")
        if status:
            raise CompilationError(log)
        return Compiled(_bytes("nvrtcGetCUBIN" if architecture[0] == "s" else "nvrtcGetPTX", program), log)
    finally:
        _library().nvrtcDestroyProgram(ctypes.byref(program))


def _bytes(function: str, program: ctypes.c_void_p) -> bytes:
    size = ctypes.c_size_t()
    _call(f"{function}Size", program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    _call(function, program, buffer)
    return buffer.raw


def _strings(values: Sequence[str]) -> "ctypes.Array[ctypes.c_char_p]":
    return (ctypes.c_char_p * len(values))(*(value.encode() for value in values))


def _call(function: str, *arguments: object) -> None:
    try:
        status = getattr(_library(), function)(*arguments)
    except AttributeError:
        raise UnavailableError(f"this NVRTC has no {function}", f"{_OUT_OF_DATE}: pip install {PACKAGE}") from None
    if status:
        _library().nvrtcGetErrorString.restype = ctypes.c_char_p
        raise GnDeployError(f"{function} failed: {_library().nvrtcGetErrorString(status).decode()}")


@cache
def _library() -> ctypes.CDLL:
    failed: dict[str, str] = {}
    for place in _places():
        try:
            return ctypes.CDLL(place)
        except OSError as error:
            failed[place] = str(error)
    why = "; ".join(failed.values()) or "the library libnvrtc was not found"
    raise UnavailableError(f"no CUDA run-time compiler: {why}", f"pip install {PACKAGE}")


def _places() -> Iterator[str]:
    """PyPI's package first: it is what an environment pins; a toolkit's; the system's."""
    yield from map(str, nvidia_files("lib/libnvrtc.so.*"))
    yield from filter(None, [str(toolchain.shared_library("nvrtc") or ""), ctypes.util.find_library("nvrtc")])


def nvidia_files(pattern: str) -> list[Path]:
    """Files of NVIDIA's packages in this environment, the newest CUDA first: their folders are ``nvidia/cu13/...``."""
    spec = find_spec("nvidia")
    roots = (spec.submodule_search_locations if spec else None) or []
    return [file for root in roots for file in sorted(Path(root).glob(f"*/{pattern}"), reverse=True)]
