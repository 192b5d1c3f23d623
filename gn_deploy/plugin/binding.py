"""The C functions of plugins/kernels/gn.h, called from Python: on a GPU, or on the CPU in the emulator's library."""

import ctypes
import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, TypeVar

from gn_deploy.decision import Accepted, Decision, Rejected
from gn_deploy.errors import ExitCode, GnDeployError, InputError, UnavailableError

DTYPES = ("float32", "float16", "bfloat16", "int8", "float8_e4m3fn")
"""gn_dtype, in its order; the names are those of NumPy with ml_dtypes, and of torch."""
ACTIVATIONS = ("none", "relu", "silu", "hardswish", "gelu", "gelu_tanh", "mish")
"""gn_activation, in its order; the names are those of ``spec.Activation``."""
LAYOUTS = ("nchw", "nhwc")
"""gn_layout, in its order."""
VARIANTS = ("warp", "block", "cluster", "team", "split")
"""gn_variant, in its order."""
NUMBERED = {
    "layout": LAYOUTS,
    "dtype": DTYPES,
    "parameter_dtype": DTYPES,
    "output_dtype": DTYPES,
    "activation": ACTIVATIONS,
    "variant": VARIANTS,
}
"""Fields that C numbers and Python may name."""

_MESSAGE = 1024  # bytes; longer ones are cut by the library
_I32, _I64, _F32, _ADDRESS = ctypes.c_int32, ctypes.c_int64, ctypes.c_float, ctypes.c_void_p


class CProblem(ctypes.Structure):
    """gn_problem."""

    _fields_ = (
        ("samples", _I64),
        ("channels", _I64),
        ("positions", _I64),
        ("pitch", _I64),
        ("output_pitch", _I64),
        ("groups", _I32),
        ("epsilon", _F32),
        ("layout", _I32),
        ("dtype", _I32),
        ("parameter_dtype", _I32),
        ("output_dtype", _I32),
        ("activation", _I32),
        ("output_scale", _F32),
        ("has_residual", _I32),
        ("has_sum", _I32),
        ("has_affine", _I32),
        ("has_modulation", _I32),
    )


class CDevice(ctypes.Structure):
    """gn_device."""

    _fields_ = (
        ("compute_capability", _I32),
        ("multiprocessors", _I32),
        ("registers", _I32),
        ("shared_per_block", _I32),
        ("shared", _I32),
        ("threads", _I32),
        ("l2", _I64),
        ("cluster_blocks", _I32),
        ("cooperative", _I32),
    )


class CChoice(ctypes.Structure):
    """gn_choice."""

    _fields_ = (
        ("variant", _I32),
        ("vectors", _I32),
        ("threads", _I32),
        ("slices", _I32),
        ("slab", _I32),
        ("units", _I64),
        ("blocks", _I64),
        ("shared", _I32),
        ("ahead", _I32),
        ("counters", _I32),
        ("workspace", _I64),
    )


class CBuffers(ctypes.Structure):
    """gn_buffers: addresses, None or 0 for what the problem does not have."""

    _fields_ = (
        ("x", _ADDRESS),
        ("residual", _ADDRESS),
        ("scale", _ADDRESS),
        ("bias", _ADDRESS),
        ("modulation_scale", _ADDRESS),
        ("modulation_shift", _ADDRESS),
        ("y", _ADDRESS),
        ("sum", _ADDRESS),
        ("workspace", _ADDRESS),
        ("counters", _ADDRESS),
    )


STRUCTS: Mapping[str, type[ctypes.Structure]] = {
    "gn_problem": CProblem,
    "gn_device": CDevice,
    "gn_choice": CChoice,
    "gn_buffers": CBuffers,
}
"""Name in C -> here; a test holds the sizes and offsets of both against each other."""

S = TypeVar("S", bound=ctypes.Structure)


class Status(IntEnum):
    """gn_status."""

    OK = 0
    BAD_PROBLEM = 1
    NOT_SUITED = 2
    BAD_POINTER = 3
    LAUNCH_FAILED = 4


class LaunchError(GnDeployError):
    """CUDA refused to launch a kernel that the device was chosen for."""

    exit_code = ExitCode.BUG


@dataclass(frozen=True, slots=True)
class Selected:
    """How a problem is run, and why so: why this variant, and why none of those before it."""

    choice: CChoice
    reason: str

    @property
    def variant(self) -> str:
        return VARIANTS[self.choice.variant]


def struct(kind: type[S], source: Any) -> S:
    """A C struct from one, from a mapping, or from any object with attributes of the names of its fields.

    Names, as of NUMBERED, become C's numbers, True and False 1 and 0. Fields that a mapping lacks are 0. Raises
    InputError for a name that C has no number for, and for a key that is no field.
    """
    if isinstance(source, kind):
        return source
    fields = [field[0] for field in kind._fields_]
    if isinstance(source, Mapping):
        unknown = sorted(set(source) - set(fields))
        if unknown:
            raise InputError(f"'{unknown[0]}' is no field of {kind.__name__}", f"one of {', '.join(fields)}")
        given = dict(source)
    else:
        given = {name: getattr(source, name) for name in fields}
    return kind(**{name: _number(name, value) for name, value in given.items()})


def as_dict(value: ctypes.Structure) -> dict[str, Any]:
    """The fields in their order, with names where C has numbers."""
    found = {field[0]: getattr(value, field[0]) for field in value._fields_}
    return {name: NUMBERED[name][v] if name in NUMBERED else v for name, v in found.items()}


def _number(name: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    names = NUMBERED.get(name, ())
    if value.lower() not in names:
        raise InputError(f"{name}={value!r} has no number in gn.h", f"one of {', '.join(names)}")
    return names.index(value.lower())


class Library:
    """A shared library that exports the functions of gn.h.

    1. Problems and devices are given as ``struct`` takes them.
    2. Addresses belong to where the library runs: a GPU's memory, or the host's for the emulator.
    3. ``GN_BAD_PROBLEM`` and ``GN_BAD_POINTER`` become InputError, ``GN_LAUNCH_FAILED`` LaunchError, with C's message.
    """

    def __init__(self, path: Path) -> None:
        """Raises InputError where there is no such file, UnavailableError where it cannot be loaded, or is another."""
        self.path = path
        if not path.is_file():
            raise InputError(f"no such library: {path}", "gn-deploy plugin build writes one")
        try:
            loaded = ctypes.CDLL(os.fspath(path.resolve()))
        except OSError as error:
            raise UnavailableError(f"cannot load {path}: {error}") from None
        problem, device, choice, buffers = (ctypes.POINTER(kind) for kind in STRUCTS.values())
        told = (ctypes.c_char_p, ctypes.c_size_t)
        self._check = _function(loaded, path, "gn_check", problem, *told)
        self._select = _function(loaded, path, "gn_select", problem, device, ctypes.c_int, choice, *told)
        self._enqueue = _function(loaded, path, "gn_enqueue", problem, choice, buffers, _ADDRESS, *told)
        self._query_device = _function(loaded, path, "gn_query_device", ctypes.c_int, device, *told)
        room = ctypes.POINTER(_I64), ctypes.POINTER(_I32)
        self._room = _function(loaded, path, "gn_room", problem, device, *room)
        self._room.restype = None
        self._variant_name = _function(loaded, path, "gn_variant_name", ctypes.c_int)
        self._variant_name.restype = ctypes.c_char_p

    def check(self, problem: Any) -> Decision:
        """Whether the problem is one at all, and is supported."""
        status, message = _call(self._check, struct(CProblem, problem))
        return Rejected(message) if status else Accepted(message)

    def select(self, problem: Any, device: Any, variant: str | int | None = None) -> Selected | Rejected:
        """The best variant, or the one asked for; Rejected with the reason where it is not suited (or none is)."""
        choice = CChoice()
        forced = -1 if variant is None else _number("variant", variant)
        given = struct(CProblem, problem), struct(CDevice, device), forced, choice
        status, message = _call(self._select, *given)
        if status == Status.NOT_SUITED:
            return Rejected(message)
        _raise_for(status, message)
        return Selected(choice, message)

    def enqueue(self, problem: Any, choice: CChoice, buffers: Any, stream: int | None = None) -> None:
        """Launches on ``stream`` (a cudaStream_t; None is the default stream) and returns before the kernels ran."""
        given = struct(CProblem, problem), choice, struct(CBuffers, buffers), stream
        _raise_for(*_call(self._enqueue, *given))

    def query_device(self, ordinal: int = 0) -> CDevice:
        """Raises UnavailableError where there is no such device."""
        device = CDevice()
        status, message = _call(self._query_device, ordinal, device)
        if status:
            raise UnavailableError(message or f"no CUDA device {ordinal}")
        return device

    def room(self, largest: Any, device: Any) -> tuple[int, int]:
        """Bytes of workspace and counters, enough for all problems with no more samples and positions."""
        workspace, counters = _I64(), _I32()
        given = struct(CProblem, largest), struct(CDevice, device), workspace, counters
        self._room(*(ctypes.byref(value) for value in given))
        return workspace.value, counters.value

    def variant_name(self, variant: int) -> str:
        """As C says it."""
        return str(self._variant_name(variant).decode())


def _function(library: ctypes.CDLL, path: Path, name: str, *arguments: Any) -> Any:
    try:
        function = getattr(library, name)
    except AttributeError:
        raise UnavailableError(f"{path} does not export {name}", "build it anew: gn-deploy plugin build") from None
    function.argtypes, function.restype = arguments, ctypes.c_int
    return function


def _call(function: Any, *arguments: Any) -> tuple[int, str]:
    """Status and message; structs go by reference."""
    told = ctypes.create_string_buffer(_MESSAGE)
    passed = [ctypes.byref(a) if isinstance(a, ctypes.Structure) else a for a in arguments]
    status = function(*passed, told, _MESSAGE)
    return status, told.value.decode(errors="replace")


def _raise_for(status: int, message: str) -> None:
    if status == Status.OK:
        return
    if status == Status.LAUNCH_FAILED:
        raise LaunchError(message)
    raise InputError(message)
