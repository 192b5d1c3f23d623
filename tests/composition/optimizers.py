"""The graph optimizers and version converters of the field, each a function from a model to another."""

import contextlib
import io
import tempfile
from collections.abc import Callable
from pathlib import Path

import onnx

Optimizer = Callable[[onnx.ModelProto], onnx.ModelProto]


def onnxsim(model: onnx.ModelProto) -> onnx.ModelProto:
    import onnxsim

    simplified, equal = onnxsim.simplify(model)
    assert equal
    return simplified


def onnxslim(model: onnx.ModelProto) -> onnx.ModelProto:
    import onnxslim

    with contextlib.redirect_stdout(io.StringIO()):
        slim = onnxslim.slim(model)
    assert isinstance(slim, onnx.ModelProto)
    return slim


def onnxoptimizer(model: onnx.ModelProto) -> onnx.ModelProto:
    """All its passes but those that split a model in two or change what it computes."""
    import onnxoptimizer

    return onnxoptimizer.optimize(model, onnxoptimizer.get_fuse_and_elimination_passes())


def onnxscript(model: onnx.ModelProto) -> onnx.ModelProto:
    import onnxscript.optimizer

    return onnxscript.optimizer.optimize(model)


def onnxruntime(level: str) -> Optimizer:
    """What ONNX Runtime would run, written to a file; ``all`` adds layouts of the machine (NCHWc)."""

    def optimize(model: onnx.ModelProto) -> onnx.ModelProto:
        import onnxruntime as ort

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "optimized.onnx"
            options = ort.SessionOptions()
            options.log_severity_level = 4
            options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, f"ORT_ENABLE_{level.upper()}")
            options.optimized_model_filepath = str(path)
            ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
            return onnx.load(path)

    return optimize


OPTIMIZERS: dict[str, Optimizer] = {
    "onnxsim": onnxsim,
    "onnxslim": onnxslim,
    "onnxoptimizer": onnxoptimizer,
    "onnxscript": onnxscript,
    "ort-basic": onnxruntime("basic"),
    "ort-extended": onnxruntime("extended"),
    "ort-all": onnxruntime("all"),
}


def onnx_converter(opset: int) -> Optimizer:
    def convert(model: onnx.ModelProto) -> onnx.ModelProto:
        from onnx import version_converter

        return version_converter.convert_version(model, opset)

    return convert


def onnxscript_converter(opset: int) -> Optimizer:
    def convert(model: onnx.ModelProto) -> onnx.ModelProto:
        import onnx_ir as ir
        from onnxscript import version_converter

        converted = ir.from_proto(model)
        version_converter.convert_version(converted, opset)
        return ir.to_proto(converted)

    return convert


CONVERTERS: dict[str, Optimizer] = {
    f"{name}-{opset}": make(opset)
    for name, make in (("onnx", onnx_converter), ("onnxscript", onnxscript_converter))
    for opset in (21, 23)
}
