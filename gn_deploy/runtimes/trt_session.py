"""Runs a TensorRT or TensorRT-RTX plan on the first GPU. Never executed yet on a machine of this project."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from gn_deploy.runtimes.base import Array, Runtime, RuntimeFailure, cast_feeds, precision_name, with_tf32
from gn_deploy.runtimes.cuda_driver import Device
from gn_deploy.runtimes.handover import as_file, model_path
from gn_deploy.runtimes.trt_network import last_error, load_plugins, recording_logger
from gn_deploy.runtimes.trt_plugin import for_plan

if TYPE_CHECKING:
    import onnx_ir as ir

NUMPY = {
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "BOOL": np.dtype(np.bool_),
    "FLOAT": np.dtype(np.float32),
    "HALF": np.dtype(np.float16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "INT8": np.dtype(np.int8),
    "UINT8": np.dtype(np.uint8),
}
"""TensorRT's DataType -> NumPy's."""


def open_model(runtime: Runtime, trt: Any, model: "ir.Model | Path", options: Mapping[str, Any]) -> "EngineSession":
    """A session on a plan; an ONNX file or ``ir.Model`` is built into a temporary plan first."""
    path = model_path(model)
    if path is not None and path.suffix != ".onnx":
        plan = path.read_bytes()
        plugins = options.get("plugins", for_plan(plan))
        return EngineSession(trt, runtime.name, plan, plugins)  # nobody knows whether it takes TF32
    with TemporaryDirectory(prefix="gn-deploy-") as folder, as_file(model) as file:
        engine = Path(folder, "model.engine")
        runtime.build(file, engine, **options)
        plan = engine.read_bytes()
        plugins = options.get("plugins", for_plan(plan))
        return EngineSession(trt, runtime.name, plan, plugins, tf32=bool(options.get("tf32", True)))


class EngineSession:
    """One execution context; ``precision`` names the floating-point types of the plan's inputs and outputs."""

    def __init__(
        self, trt: Any, runtime: str, plan: bytes, plugins: Sequence[Path] = (), *, tf32: bool = True
    ) -> None:
        self.runtime = runtime
        self._logger = recording_logger(trt)
        load_plugins(trt, self._logger, plugins)
        self._device: Device | None = Device()
        self._engine = trt.Runtime(self._logger).deserialize_cuda_engine(plan)
        if self._engine is None:
            raise RuntimeFailure(f"{runtime} cannot load the engine: {last_error(self._logger)}")
        self._context = self._engine.create_execution_context()
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        dtypes = {name: NUMPY[self._engine.get_tensor_dtype(name).name] for name in names}
        reads = {name for name in names if self._engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT}
        self._inputs = {name: dtype for name, dtype in dtypes.items() if name in reads}
        self._outputs = {name: dtype for name, dtype in dtypes.items() if name not in reads}
        written = precision_name(str(dtype) for dtype in dtypes.values())
        self.precision = with_tf32(written) if tf32 else written

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        if self._device is None:
            raise RuntimeFailure(f"the {self.runtime} session is closed")
        given = cast_feeds(feeds, self._inputs)
        try:
            for name, array in given.items():
                if not self._context.set_input_shape(name, array.shape):
                    raise RuntimeFailure(
                        f"the engine was not built for {name} of shape {array.shape}: {last_error(self._logger)}",
                        "build it with --shapes that cover this size",
                    )
                address = self._device.allocate(array.nbytes)
                self._device.upload(address, array)
                self._context.set_tensor_address(name, address)
            results: dict[str, tuple[Array, int]] = {}
            for name, dtype in self._outputs.items():
                shape = tuple(self._context.get_tensor_shape(name))
                if -1 in shape:
                    raise RuntimeFailure(f"the size of output '{name}' depends on the data, which is not supported")
                array = np.empty(shape, dtype)
                results[name] = array, self._device.allocate(array.nbytes)
                self._context.set_tensor_address(name, results[name][1])
            if not self._context.execute_async_v3(self._device.stream):
                raise RuntimeFailure(f"{self.runtime} failed: {last_error(self._logger)}")
            for array, address in results.values():
                self._device.download(array, address)
            return {name: array for name, (array, _) in results.items()}
        finally:
            self._device.free()

    def close(self) -> None:
        if self._device is not None:
            self._context = self._engine = None  # before the CUDA context they live in
            self._device.close()
            self._device = None
