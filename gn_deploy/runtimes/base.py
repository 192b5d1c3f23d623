"""What a runtime is: something that says what it can do here, opens a model, and maybe builds an engine from it."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from gn_deploy.decision import Decision
from gn_deploy.errors import ExitCode, GnDeployError, UnavailableError

Array = NDArray[Any]


class RuntimeFailure(GnDeployError):  # noqa: N818 -- the verdict of a run, not a mistake in one
    """A runtime refused, failed or crashed on a valid model; the verdict is CRASH, the exit code 1."""

    exit_code = ExitCode.PARITY_BROKEN


class TimeLimitExceeded(RuntimeFailure):
    """A runtime took longer than it was given and was stopped; the verdict is TIMEOUT."""


class NoKernelError(UnavailableError):
    """A runtime has nothing that computes an operator of the model; the verdict is NOTRUN, the exit code 3."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What one runtime can do on this machine, as ``gn-deploy doctor`` shows it."""

    name: str
    version: str | None
    """Version of the installed package; None when it is absent."""
    run: Decision
    """Whether ``open`` can work here, with the reason."""
    build: Decision
    """Whether ``build`` can work here, with the reason."""
    detail: str = ""
    """Providers, devices, compute capabilities: whatever tells the user more."""


@runtime_checkable
class Session(Protocol):
    """A model opened by a runtime.

    1. ``run`` takes one array per model input, by name, in the model's own dtypes, and returns every output by name.
    2. ``precision`` is the arithmetic that really runs, read back from the runtime where it can be ("float32").
    3. ``close`` frees everything and may be called twice.
    """

    runtime: str
    precision: str

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Kernel:
    """One compiled kernel of an engine."""

    name: str
    kind: str
    origin: tuple[str, ...] = ()
    """Names of the ONNX nodes it computes, where the compiler tells."""


@dataclass(frozen=True, slots=True)
class BuildResult:
    """An engine written to disk."""

    path: Path
    runtime: str
    version: str
    size: int
    """Bytes."""
    kernels: tuple[Kernel, ...] = ()
    detail: str = ""


class Runtime(Protocol):
    """One file in this folder; stateless.

    1. Importing the module never imports the runtime's package; every method that needs it does, inside.
    2. ``open`` and ``build`` raise UnavailableError(reason) when ``probe`` rejects them.
    3. ``open`` takes what ``accepts`` says: an ``onnx_ir.Model`` or a path for most, an ``nn.Module`` for torch.
    4. In a process of its own (``isolated``) ``open_here`` and ``build_here`` are called where there are such; an
       attribute ``packages`` names what is imported before a memory limit comes into force there.
    5. ``open`` computes in the types the model is written in, whatever the runtime would rather do, and in another
       ``precision`` only when asked. A class attribute ``precisions`` names those it can be asked for; in any other the
       model has to be written first.
    """

    name: str

    def probe(self) -> Probe: ...

    def open(self, model: Any, *, precision: str | None = None) -> Session: ...

    def build(self, model: Path, out: Path, **options: Any) -> BuildResult: ...


class Opener(Protocol):
    """A Runtime, or one whose every choice has been made."""

    def open(self, model: Any) -> Session: ...


@dataclass(frozen=True, slots=True)
class Pinned:
    """A runtime that opens every model in the precision it was asked for, which is one of its ``precisions``."""

    runtime: Runtime
    precision: str

    def open(self, model: Any) -> Session:
        return self.runtime.open(model, precision=self.precision)


def cast_feeds(feeds: Mapping[str, Array], dtypes: Mapping[str, np.dtype[Any]]) -> dict[str, Array]:
    """The feeds a model takes, contiguous and in its dtypes; extra names are dropped, missing ones raise KeyError."""
    return {name: np.ascontiguousarray(feeds[name], dtype=dtype) for name, dtype in dtypes.items()}


def installed(*distributions: str) -> str | None:
    """Version of the first of these distributions that is installed, without importing it; None when none is."""
    for name in distributions:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None


def one_line(error: BaseException | str, limit: int = 300) -> str:
    """What a C++ library said, on one line: source paths, stack frames and blank space taken out."""
    text = str(error) or type(error).__name__
    text = re.sub(r"(Exception from|\bat) \S+\.(cpp|cc|h|hpp):\d+:?", " ", text)  # OpenVINO: where it was thrown
    text = re.sub(r"(/[\w.+-]+)+\.(cpp|cc|h|hpp):\d+ ([^\n]*?\) )?", " ", text)  # ONNX Runtime: file, line, signature
    text = re.sub(r"\[ONNXRuntimeError\] : \d+ : \w+ : |Load model from \S+ failed: ?", "", text)
    text = re.sub(r"\s+", " ", text).strip()
    return text if len(text) <= limit else text[: limit - 1] + "…"


def in_bytes(count: int) -> str:
    """Bytes as the largest binary unit that leaves at most one decimal: "8GiB", "1.5MiB", "100B"."""
    for power, unit in ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")):
        if count >= 1 << power:
            return f"{count / (1 << power):.1f}".removesuffix(".0") + unit
    return f"{count}B"


def with_tf32(precision: str) -> str:
    """On NVIDIA's tensor cores, unless told otherwise, products of float32 are taken in TF32: "float32+tf32"."""
    return f"{precision}+tf32" if "float32" in precision.split("+") else precision


def precision_name(dtypes: Iterable[str]) -> str:
    """The floating-point types of a model as one word, widest first: "float32", "float32+float16"."""
    floats = {str(d) for d in dtypes} & {"float64", "float32", "float16", "bfloat16"}
    order = ("float64", "float32", "float16", "bfloat16")
    return "+".join(d for d in order if d in floats) or "float32"
