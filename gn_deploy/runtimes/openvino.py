"""OpenVINO on the CPU, float32 unless asked otherwise, in a process of its own because it may crash on a model."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from gn_deploy.decision import Accepted, Rejected
from gn_deploy.errors import InputError, UnavailableError
from gn_deploy.runtimes.base import Array, BuildResult, NoKernelError, Probe, RuntimeFailure, installed, one_line
from gn_deploy.runtimes.handover import PROTOBUF_LIMIT
from gn_deploy.runtimes.isolated import ChildSession
from gn_deploy.runtimes.worker import TIME_LIMIT

if TYPE_CHECKING:
    import onnx_ir as ir

HINTS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
"""Precision -> OpenVINO's INFERENCE_PRECISION_HINT; left alone, OpenVINO takes bf16 on CPUs that have it."""


class OpenVinoSession:
    """A compiled model in this process. bfloat16 inputs and outputs travel as bits."""

    runtime = "openvino"

    def __init__(self, path: Path, precision: str, properties: Mapping[str, Any] | None = None) -> None:
        import openvino as ov

        self._ov = ov
        device, properties = ov.Core(), {"INFERENCE_PRECISION_HINT": HINTS[precision]} | dict(properties or {})
        try:
            with _without_functions(path) as file:
                self._compiled = device.compile_model(device.read_model(str(file)), "CPU", properties)
        except Exception as error:
            if unknown := _unknown(str(error)):
                raise NoKernelError(f"OpenVINO has no conversion for {unknown}") from error
            raise RuntimeFailure(f"OpenVINO cannot compile the model: {one_line(error)}") from error
        ran = self._compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        self.precision = {hint: name for name, hint in HINTS.items()}.get(ran, ran)
        self._request = self._compiled.create_infer_request()

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        try:
            for port in self._compiled.inputs:  # an input that nothing uses has been removed
                name = next(name for name in port.get_names() if name in feeds)
                self._request.set_tensor(port, self._to_tensor(feeds[name], port.get_element_type()))
            self._request.infer()
            ports = self._compiled.outputs
            return {_onnx_name(port): _to_numpy(self._request.get_tensor(port)) for port in ports}
        except StopIteration:
            raise KeyError(port.get_any_name()) from None
        except Exception as error:
            raise RuntimeFailure(f"OpenVINO failed: {one_line(error)}") from error

    def layers(self) -> tuple[tuple[str, str, str], ...]:
        """(name, layer type, precision) of everything the compiled model executes."""
        ops = self._compiled.get_runtime_model().get_ordered_ops()
        told = [[op.get_rt_info()[key].astype(str) for key in ("layerType", "runtimePrecision")] for op in ops]
        return tuple((op.get_friendly_name(), str(kind), str(ran)) for op, (kind, ran) in zip(ops, told, strict=True))

    def close(self) -> None:
        self._request = self._compiled = None

    def _to_tensor(self, array: Array, kind: Any) -> Any:
        if kind.to_string() == "bf16":
            import ml_dtypes

            tensor = self._ov.Tensor(kind, self._ov.Shape(array.shape))
            tensor.data.view(ml_dtypes.bfloat16)[...] = array
            return tensor
        return self._ov.Tensor(np.ascontiguousarray(array, dtype=kind.to_dtype()))


class OpenVino:
    """``open`` takes an ``ir.Model`` or a path and answers from a child process."""

    name = "openvino"
    packages = ("openvino",)
    precisions = tuple(HINTS)

    def probe(self) -> Probe:
        found = installed("openvino")
        build = Rejected("OpenVINO compiles when it opens a model; nothing to build")
        if found is None:
            return Probe(self.name, None, Rejected("openvino is not installed: pip install openvino"), build)
        return Probe(self.name, found, Accepted(), build, "CPU, in a child process")

    def open(
        self,
        model: "ir.Model | Path",
        *,
        precision: str | None = None,
        time_limit: float = TIME_LIMIT,
        memory_limit: int | None = None,
        properties: Mapping[str, Any] | None = None,
    ) -> ChildSession:
        """``precision`` is float32 (default), bfloat16 or float16; limits as in ``worker.Worker``; ``properties`` are
        OpenVINO's own, and go before what ``precision`` says."""
        self._demand(precision)
        return ChildSession(
            self.name,
            model,
            precision=precision,
            time_limit=time_limit,
            memory_limit=memory_limit,
            properties=properties,
        )

    def open_here(
        self, model: Path, *, precision: str | None = None, properties: Mapping[str, Any] | None = None
    ) -> OpenVinoSession:
        """The same in this process, for the worker and for measurements: a crash takes the process down."""
        self._demand(precision)
        return OpenVinoSession(model, precision or "float32", properties)

    def build(self, model: Path, out: Path, **options: Any) -> BuildResult:
        raise UnavailableError(self.probe().build.reason)

    def _demand(self, precision: str | None) -> None:
        if not (probe := self.probe()).run:
            raise UnavailableError(probe.run.reason)
        if precision not in (None, *HINTS):
            raise InputError(f"OpenVINO cannot run in {precision}", f"one of {', '.join(HINTS)}")


@contextmanager
def _without_functions(path: Path) -> Iterator[Path]:
    """The file, or one in which its functions, which OpenVINO does not read, stand where they are called."""
    import onnx
    import onnx.inliner

    if not onnx.load(path, load_external_data=False).functions:
        yield path
        return
    with TemporaryDirectory(prefix="gn-deploy-") as folder:
        file = Path(folder, "model.onnx")
        inlined = onnx.inliner.inline_local_functions(onnx.load(path))
        onnx.save(inlined, file, save_as_external_data=inlined.ByteSize() > PROTOBUF_LIMIT)
        yield file


def _unknown(text: str) -> str:
    """The operators of a valid model that OpenVINO cannot convert; "" when there are none."""
    import onnx.defs

    told = re.search(r"No conversion rule found for operations:\s*([^\n]*)", text)
    names = told[1].strip() if told else ""
    plain = [re.sub(r"-\d+$", "", name.strip()) for name in names.split(",") if "." not in name]
    return names if all(onnx.defs.has(name) for name in plain) else ""


def _onnx_name(port: Any) -> str:
    """The name of a graph output in the ONNX file; OpenVINO calls its node NAME/sink_port_0."""
    name: str = port.get_node().get_friendly_name()
    return name.removesuffix("/sink_port_0")


def _to_numpy(tensor: Any) -> Array:
    data: Array = tensor.data
    if tensor.get_element_type().to_string() == "bf16":
        import ml_dtypes

        return np.array(data.view(ml_dtypes.bfloat16))
    return np.array(data)


OPENVINO = OpenVino()
