"""How a model gets into a runtime: as a self-contained proto, as bytes when they fit, or as a file."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, TypeVar

from gn_deploy.errors import InputError
from gn_deploy.graph.slots import is_external, slots

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

T = TypeVar("T")
PROTOBUF_LIMIT = 2**31 - 2**24
"""Bytes of weights beyond which a model cannot be one protobuf message (2 GiB), 16 MiB left for the graph itself."""


def model_path(model: "ir.Model | Path | str") -> Path | None:
    """The path when the model is given as one; None for an ``ir.Model``. InputError when there is no such file."""
    if not isinstance(model, (str, Path)):
        return None
    path = Path(model)
    if not path.is_file():
        raise InputError(f"no such file: {path}", "give the path of an ONNX model")
    return path


def opened(model: "ir.Model | Path | str") -> "ir.Model":
    """The model itself; a path is read, its weights staying on disk until they are asked for."""
    import onnx_ir as ir

    path = model_path(model)
    if path is None:
        assert isinstance(model, ir.Model)
        return model
    return _read(path, ir.load)


def stored_dtypes(model: "ir.Model | Path | str") -> set[str]:
    """Names of the element types of the model's inputs, outputs and weights ("float16", "int64", ...)."""
    path = model_path(model)
    if path is not None:
        return _stored_dtypes(path)
    assert not isinstance(model, (str, Path))
    values = [*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()]
    types = [value.const_value.dtype if value.const_value is not None else value.dtype for value in values]
    return {str(dtype.numpy()) for dtype in types if dtype is not None}


def _stored_dtypes(path: Path) -> set[str]:
    """Without onnx_ir, whose import takes longer than all else that a worker process does before it opens a model."""
    import onnx

    def element(kind: onnx.TypeProto) -> int:
        match kind.WhichOneof("value"):
            case "tensor_type":
                return kind.tensor_type.elem_type
            case "sequence_type" | "optional_type" as holder:
                return element(getattr(kind, holder).elem_type)
        return onnx.TensorProto.UNDEFINED

    graph = _read(path, lambda file: onnx.load(file, load_external_data=False)).graph
    kinds = {element(value.type) for value in (*graph.input, *graph.output)}
    kinds |= {tensor.data_type for tensor in graph.initializer}
    return {str(onnx.helper.tensor_dtype_to_np_dtype(kind)) for kind in kinds - {onnx.TensorProto.UNDEFINED}}


def _read(path: Path, load: Callable[[Path], T]) -> T:
    try:
        return load(path)
    except Exception as error:  # protobuf, onnx_ir and the file system each raise their own
        raise InputError(f"cannot read {path} as ONNX: {type(error).__name__}") from error


def weight_bytes(model: "ir.Model") -> int:
    """Bytes of all initializers, subgraphs included."""
    tensors = (value.const_value for graph in model.graphs() for value in graph.initializers.values())
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)


def self_contained(model: "ir.Model") -> "ir.Model":
    """The model itself, to be read only, or when weights of it are external a shallow clone that has them in memory."""
    import onnx_ir as ir

    if not any(is_external(slot.get()) for slot in slots(model)):
        return model
    clone = model.clone()
    ir.external_data.load_to_model(clone)
    return clone


def to_proto(model: "ir.Model | Path | str") -> "onnx.ModelProto":
    """A ModelProto that holds every weight."""
    import onnx_ir as ir

    return ir.to_proto(self_contained(opened(model)))


@contextmanager
def as_file(model: "ir.Model | Path | str") -> Iterator[Path]:
    """The model as a file: the path it was given as, or a temporary one (weights beside it when they are too large)."""
    path = model_path(model)
    if path is not None:
        yield path
        return
    import onnx_ir as ir

    assert isinstance(model, ir.Model)
    with TemporaryDirectory(prefix="gn-deploy-") as folder:
        path = Path(folder, "model.onnx")
        if weight_bytes(model) > PROTOBUF_LIMIT:
            ir.save(model, path, external_data="model.onnx.data")
        else:
            ir.save(self_contained(model), path)
        yield path
