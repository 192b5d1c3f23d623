"""ONNX Runtime on its CPU, CUDA and TensorRT execution providers, never on another one than was asked for."""

import ctypes
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gn_deploy.decision import Accepted, Rejected
from gn_deploy.errors import GnDeployError, InputError, UnavailableError
from gn_deploy.runtimes.base import (
    Array,
    BuildResult,
    NoKernelError,
    Probe,
    RuntimeFailure,
    cast_feeds,
    installed,
    one_line,
    precision_name,
    with_tf32,
)
from gn_deploy.runtimes.handover import (
    PROTOBUF_LIMIT,
    as_file,
    model_path,
    opened,
    stored_dtypes,
    to_proto,
    weight_bytes,
)

if TYPE_CHECKING:
    import onnx_ir as ir

DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml", "onnxruntime-qnn")
OPTIMIZATIONS = {
    "none": "DISABLE_ALL",
    "basic": "ENABLE_BASIC",
    "extended": "ENABLE_EXTENDED",
    "layout": "ENABLE_LAYOUT",
    "all": "ENABLE_ALL",
}
BFLOAT16 = 16
"""onnx.TensorProto.BFLOAT16: carried by OrtValue as its bits, because NumPy has no such type."""


class OrtSession:
    """One InferenceSession.

    ``written`` is the type the model is written in, and ``precision`` the same but for TF32 on a GPU, which the CUDA
    provider takes for products of float32 unless told otherwise: here only when asked. The CPU provider has no float16
    kernels for most operators: it computes them in float32 between casts that it inserts, which also
    hides an overflow inside a chain of nodes.
    """

    def __init__(
        self,
        runtime: str,
        provider: str,
        model: "ir.Model | Path",
        optimization: str,
        threads: int | None,
        disabled_optimizers: Sequence[str] = (),
        config: Mapping[str, str] | None = None,
        tf32: bool = False,
    ) -> None:
        import onnxruntime as ort

        pinned = {"use_tf32": str(int(tf32))} if provider == CUDA.provider else {}
        self.runtime = runtime
        self.written = precision_name(stored_dtypes(model))
        self.precision = with_tf32(self.written) if tf32 or provider == TENSORRT.provider else self.written
        options = ort.SessionOptions()
        options.log_severity_level = 4  # fatal: an error is raised anyway, and 3 would print it to stderr as well
        if optimization not in OPTIMIZATIONS:
            raise InputError(f"unknown graph optimization '{optimization}'", f"one of {', '.join(OPTIMIZATIONS)}")
        level = getattr(ort.GraphOptimizationLevel, f"ORT_{OPTIMIZATIONS[optimization]}", None)
        if level is None:
            raise InputError(f"this ONNX Runtime has no level '{optimization}'", "it came with release 1.23")
        options.graph_optimization_level = level
        for key, value in (config or {}).items():
            options.add_session_config_entry(key, value)
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            self._session = _session(model, options, (provider, pinned), disabled_optimizers)
        except Exception as error:  # ONNX Runtime raises a dozen unrelated classes
            raise _refusal(error, provider) from error
        active = self._session.get_providers()
        if provider not in active:
            raise UnavailableError(
                f"ONNX Runtime fell back to {active[0]} where {provider} was asked for",
                "its CUDA or TensorRT libraries could not be loaded",
            )
        self._dtypes = {node.name: _dtype(node.type) for node in self._session.get_inputs()}
        self._names = [node.name for node in self._session.get_outputs()]

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        if self._session is None:
            raise RuntimeFailure(f"the {self.runtime} session is closed")
        given = {name: _to_ort(array) for name, array in cast_feeds(feeds, self._dtypes).items()}
        try:
            values = self._session.run_with_ort_values(None, given)
        except Exception as error:
            raise RuntimeFailure(f"ONNX Runtime failed: {one_line(error)}") from error
        return {name: _from_ort(value) for name, value in zip(self._names, values, strict=True)}

    def close(self) -> None:
        self._session = None


@dataclass(frozen=True, slots=True)
class OnnxRuntime:
    """``open`` takes an ``ir.Model`` or a path. What ONNX Runtime supports of the model decides, node by node, what a
    GPU provider runs; the rest goes to the CPU provider, as it does in production."""

    name: str
    provider: str
    packages: tuple[str, ...] = ("onnxruntime", "onnx")
    precisions: tuple[str, ...] = ()

    def probe(self) -> Probe:
        found = installed(*DISTRIBUTIONS)
        build = Rejected("ONNX Runtime compiles when it opens a model; nothing to build")
        if found is None:
            return Probe(self.name, None, Rejected("onnxruntime is not installed: pip install onnxruntime"), build)
        if self.provider == "CPUExecutionProvider":
            return Probe(self.name, found, Accepted(), build, self.provider)
        import onnxruntime as ort

        offered = ort.get_available_providers()
        if self.provider in offered:
            return Probe(self.name, found, Accepted(), build, self.provider)
        reason = f"{self.provider} is not in this build of ONNX Runtime: pip install onnxruntime-gpu"
        return Probe(self.name, found, Rejected(reason), build, f"offers {', '.join(offered)}")

    def open(
        self,
        model: "ir.Model | Path",
        *,
        precision: str | None = None,
        optimization: str = "all",
        threads: int | None = None,
        disabled_optimizers: Sequence[str] = (),
        config: Mapping[str, str] | None = None,
    ) -> OrtSession:
        """``precision`` is what the model is written in, or "tf32" on CUDA; ``optimization`` is none, basic, extended,
        layout or all; ``threads`` run one operator, None means all cores.

        ``disabled_optimizers`` are names of ONNX Runtime's graph transformers and rewrite rules ("Pad_Fusion"); a
        name it does not know has no effect. ``config`` are entries of its session configuration.
        """
        if not (probe := self.probe()).run:
            raise UnavailableError(f"{self.name}: {probe.run.reason}")
        tf32 = precision == "tf32" and "tf32" in self.precisions
        session = OrtSession(self.name, self.provider, model, optimization, threads, disabled_optimizers, config, tf32)
        if not tf32 and precision not in (None, session.written):
            raise InputError(
                f"the model is written in {session.written} and ONNX Runtime runs it as written, not in {precision}",
                "write the model in that type first: gn-deploy lower --target ort-cpu:fp16",
            )
        return session

    def build(self, model: Path, out: Path, **options: Any) -> BuildResult:
        raise UnavailableError(self.probe().build.reason)


def _session(
    model: "ir.Model | Path", options: Any, provider: tuple[str, dict[str, str]], disabled_optimizers: Sequence[str]
) -> Any:
    import onnxruntime as ort

    path, disabled = model_path(model), list(disabled_optimizers)
    if path is None and weight_bytes(opened(model)) <= PROTOBUF_LIMIT:
        content = to_proto(model).SerializeToString()
        return ort.InferenceSession(content, options, providers=[provider], disabled_optimizers=disabled)
    with as_file(model) as file:
        return ort.InferenceSession(str(file), options, providers=[provider], disabled_optimizers=disabled)


def _refusal(error: Exception, provider: str) -> GnDeployError:
    text = str(error)
    missing = re.search(r"Could not find an implementation for (\S+) node with name '([^']*)'", text)
    if missing:
        where = f" at node '{missing[2]}'" if missing[2] else ""
        return NoKernelError(f"{provider} of ONNX Runtime has no kernel for {missing[1]} on these element types{where}")
    if unknown := re.search(r"Fatal error: (\S+?)\(-?\d+\) is not a registered function/op", text):
        return NoKernelError(f"ONNX Runtime does not know {unknown[1]}")
    return RuntimeFailure(f"ONNX Runtime cannot open the model: {one_line(error)}")


def _dtype(text: str) -> np.dtype[Any]:
    """From "tensor(float16)"."""
    import ml_dtypes

    name = text.removeprefix("tensor(").removesuffix(")")
    known: dict[str, Any] = {
        "float": "float32",
        "double": "float64",
        "bfloat16": ml_dtypes.bfloat16,
        "string": "object",
    }
    try:
        dtype: np.dtype[Any] = np.dtype(known.get(name, name))
    except TypeError:
        raise RuntimeFailure(f"inputs of type {text} are not supported here") from None
    return dtype


def _to_ort(array: Array) -> Any:
    import onnxruntime as ort

    if array.dtype.name == "bfloat16":
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array.view(np.uint16), BFLOAT16)
    return ort.OrtValue.ortvalue_from_numpy(array)


def _from_ort(value: Any) -> Array:
    if value.data_type() != "tensor(bfloat16)":
        return np.asarray(value.numpy())
    import ml_dtypes

    if value.device_name() != "cpu":
        raise RuntimeFailure("a bfloat16 output stayed on the GPU, from where it cannot be read")
    count = value.tensor_size_in_bytes() // 2
    bits = np.ctypeslib.as_array((ctypes.c_uint16 * count).from_address(value.data_ptr())).copy()
    return np.asarray(bits.view(ml_dtypes.bfloat16).reshape(value.shape()))


CPU = OnnxRuntime("onnxruntime", "CPUExecutionProvider")
CUDA = OnnxRuntime("ort-cuda", "CUDAExecutionProvider", ("tf32",))
TENSORRT = OnnxRuntime("ort-tensorrt", "TensorrtExecutionProvider")
