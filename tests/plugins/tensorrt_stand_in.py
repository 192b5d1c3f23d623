"""The part of ``tensorrt`` that NVIDIA's own ``tensorrt.plugin`` rests on, so that its real Python code runs here.

PyPI's ``tensorrt-cu13-bindings`` holds ``tensorrt.plugin`` as Python source beside a compiled module that needs
libraries of NVIDIA's own index. The classes of the compiled module that the source touches stand here instead, and
``build`` calls a plugin in the order in which TensorRT does.
"""

import importlib.util
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Dims3 = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]


class DataType(IntEnum):
    FLOAT, HALF, INT8, INT32, BOOL, UINT8, FP8, BF16, INT64, INT4, FP4 = range(11)


class TensorFormat(IntEnum):
    LINEAR, CHW2, HWC8, CHW4, CHW16, CHW32, DHWC8, CDHW32, HWC, DLA_LINEAR, DLA_HWC4, HWC16, DHWC = range(13)


class PluginFieldType(IntEnum):
    FLOAT16, FLOAT32, FLOAT64, INT8, INT16, INT32, CHAR, DIMS, UNKNOWN, BF16, INT64, FP8, INT4, FP4 = range(14)


class DimensionOperation(Enum):
    SUM = "+"
    PROD = "*"
    MAX = "max"
    MIN = "min"
    SUB = "-"
    EQUAL = "=="
    LESS = "<"
    FLOOR_DIV = "//"
    CEIL_DIV = "ceil"


_COMPUTED = {
    DimensionOperation.SUM: lambda a, b: a + b,
    DimensionOperation.PROD: lambda a, b: a * b,
    DimensionOperation.MAX: max,
    DimensionOperation.MIN: min,
    DimensionOperation.SUB: lambda a, b: a - b,
    DimensionOperation.EQUAL: lambda a, b: int(a == b),
    DimensionOperation.LESS: lambda a, b: int(a < b),
    DimensionOperation.FLOOR_DIV: lambda a, b: a // b,
    DimensionOperation.CEIL_DIV: lambda a, b: -(-a // b),
}


class IDimensionExpr:
    """A size that is known, or computed from dimensions that will be: (input, axis)."""

    def __init__(self, compute: Any, constant: bool) -> None:
        self._compute, self._constant = compute, constant

    def is_constant(self) -> bool:
        return self._constant

    def get_constant_value(self) -> int:
        assert self._constant, "TensorRT returns a meaningless number here"
        return self.value(())

    def value(self, shapes: Sequence[Sequence[int]]) -> int:
        return int(self._compute(shapes))


class ExprBuilder:
    def constant(self, value: int) -> IDimensionExpr:
        assert -(2**31) <= value < 2**31, "kept as an int32 by the binding"
        return IDimensionExpr(lambda shapes: value, True)

    def operation(self, kind: DimensionOperation, a: IDimensionExpr, b: IDimensionExpr) -> IDimensionExpr:
        compute = lambda shapes: _COMPUTED[kind](a.value(shapes), b.value(shapes))  # noqa: E731
        return IDimensionExpr(compute, a.is_constant() and b.is_constant())


class Dims(list[int]):
    MAX_DIMS = 8


class DimsExprs(list[Any]):
    def __init__(self, length: int) -> None:
        super().__init__([None] * length)


@dataclass
class PluginTensorDesc:
    dims: Any = None
    type: DataType | None = None
    format: TensorFormat | None = None
    scale: float = 1.0


@dataclass
class DynamicPluginTensorDesc:
    desc: PluginTensorDesc
    min: Dims
    opt: Dims
    max: Dims


class PluginField:
    def __init__(self, name: str, data: Any, type: PluginFieldType) -> None:
        self.name, self.type = name, type
        self.data = np.frombuffer(data, np.uint8) if isinstance(data, bytes) else np.asarray(data)


class ISymExpr:
    """type, dtype and expr are set by who derives from it."""


class Registry:
    def __init__(self) -> None:
        self.creators: dict[tuple[str, str, str], Any] = {}

    def register_creator(self, creator: Any, namespace: str) -> bool:
        key = (creator.name, creator.plugin_version, namespace)
        assert key not in self.creators, "TensorRT refuses a second one"
        self.creators[key] = creator
        return True

    def get_creator(self, name: str, version: str, namespace: str) -> Any:
        return self.creators.get((name, version, namespace))


class Logger:
    WARNING = 2

    def log(self, severity: int, message: str) -> None:
        pass


@contextmanager
def installed() -> Iterator[types.ModuleType]:
    """``import tensorrt.plugin`` gives NVIDIA's code, freshly loaded, for as long as this lasts."""
    found = importlib.util.find_spec("tensorrt_bindings")
    if found is None or found.origin is None:
        pytest.skip("tensorrt-cu13-bindings is not installed")
    registry = Registry()
    module = types.ModuleType("tensorrt")
    empty = (
        "IPluginV3 IPluginV3QuickCore IPluginV3QuickBuild IPluginV3QuickRuntime IPluginV3QuickAOTBuild "
        "IPluginCreatorV3Quick ITensor"
    )
    for name in empty.split():
        setattr(module, name, type(name, (), {}))
    for known in (DataType, TensorFormat, PluginFieldType, DimensionOperation, IDimensionExpr, Dims, DimsExprs, Logger):
        setattr(module, known.__name__, known)
    for other in (PluginTensorDesc, DynamicPluginTensorDesc, PluginField, ISymExpr):
        setattr(module, other.__name__, other)
    given: Mapping[str, Any] = {
        "PluginFieldCollection": list,
        "PluginArgType": Enum("PluginArgType", "INT"),
        "PluginArgDataType": Enum("PluginArgDataType", "INT8 INT16 INT32"),
        "TensorRTPhase": Enum("TensorRTPhase", "BUILD RUNTIME"),
        "QuickPluginCreationRequest": Enum(
            "QuickPluginCreationRequest", "UNKNOWN PREFER_JIT PREFER_AOT STRICT_JIT STRICT_AOT"
        ),
        "get_plugin_registry": lambda: registry,
        "int32": DataType.INT32,
        "int8": DataType.INT8,
        "fp8": DataType.FP8,
        "__path__": [str(Path(found.origin).parent)],
        "__version__": "11.4",
    }
    for name, value in given.items():
        setattr(module, name, value)
    before = {name: m for name, m in sys.modules.items() if name.split(".")[0] == "tensorrt"}
    for name in before:
        del sys.modules[name]
    sys.modules["tensorrt"] = module
    try:
        yield module
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == "tensorrt"]:
            del sys.modules[name]
        sys.modules.update(before)


@dataclass(frozen=True)
class Input:
    """Of a layer: -1 in ``shape`` where the profile, smallest, usual and largest, tells the size."""

    dtype: DataType
    shape: tuple[int, ...]
    profile: Dims3 | None = None

    @property
    def bounds(self) -> Dims3:
        return self.profile or (self.shape, self.shape, self.shape)


@dataclass(frozen=True)
class Kernel:
    """What an engine keeps of a layer that was built ahead of time."""

    name: str
    code: str
    tactic: int
    types: tuple[DataType, ...]
    formats: tuple[TensorFormat, ...]
    _launch: Any
    _scalars: tuple[Any, ...]

    def launch(self, shapes: Sequence[Sequence[int]]) -> dict[str, int]:
        """grid_x ... shared_mem for inputs of these shapes, as the runtime computes them."""
        return {name: self._launch[name].expr.value(shapes) for name in self._launch}

    def scalars(self, shapes: Sequence[Sequence[int]]) -> tuple[int, ...]:
        return tuple(scalar.expr.value(shapes) for scalar in self._scalars)


class _Setter:
    nbSymExprs = 0  # noqa: N815

    def __init__(self) -> None:
        self.given: dict[int, Any] = {}

    def __setitem__(self, index: int, expression: Any) -> None:
        assert index < self.nbSymExprs
        self.given[index] = expression


class _LaunchParams:
    pass


def build(trt: Any, op: str, attributes: Mapping[str, Any], inputs: Sequence[Input]) -> list[Kernel]:
    """Every kernel among which TensorRT would choose for a node of an ONNX model, in the order of its calls."""
    creator = trt.get_plugin_registry().get_creator(op, "1", "gn_deploy")
    assert creator is not None, f"no creator of {op}"
    known = {field.name for field in creator.field_names}
    fields = [_field(name, value) for name, value in attributes.items() if name in known]
    plugin = creator.create_plugin(
        op, "gn_deploy", fields, trt.TensorRTPhase.BUILD, trt.QuickPluginCreationRequest.STRICT_AOT
    )
    outputs = plugin.get_num_outputs()
    types_ = plugin.get_output_data_types([i.dtype for i in inputs], [len(i.shape) for i in inputs])
    assert len(types_) == outputs
    builder = ExprBuilder()
    shapes = [_expressions(builder, n, given) for n, given in enumerate(inputs)]
    made = plugin.get_output_shapes(shapes, [], builder)
    tensors = [_described(i.dtype, i.shape, i.bounds) for i in inputs]
    for dtype, dims in zip(types_, made, strict=True):
        evaluated = [tuple(d.value([b[n] for b in (i.bounds for i in inputs)]) for d in dims) for n in range(3)]
        shape = tuple(d.get_constant_value() if d.is_constant() else -1 for d in dims)
        tensors.append(_described(dtype, shape, (evaluated[0], evaluated[1], evaluated[2])))
    supported = plugin.get_supported_format_combinations(tensors, len(inputs))
    assert len(supported) % len(tensors) == 0
    kernels = []
    for start in range(0, len(supported), len(tensors)):
        combination = supported[start : start + len(tensors)]
        if [c.type for c in combination] != [t.desc.type for t in tensors]:
            continue  # a strongly typed network takes only its own types
        for tensor, chosen in zip(tensors, combination, strict=True):
            tensor.desc.format = chosen.format
        plugin.configure_plugin(tensors[: len(inputs)], tensors[len(inputs) :])
        for tactic in plugin.get_valid_tactics() or [0]:
            kernels.append(_kernel(plugin.clone(), tactic, tensors, len(inputs), shapes, builder))
    return kernels


def _kernel(plugin: Any, tactic: int, tensors: Any, inputs: int, shapes: Any, builder: ExprBuilder) -> Kernel:
    plugin.set_tactic(tactic)
    launch, scalars = _LaunchParams(), _Setter()
    plugin.get_launch_params(shapes, tensors, inputs, launch, scalars, builder)
    descriptions = [t.desc for t in tensors]
    name, code = plugin.get_kernel(descriptions[:inputs], descriptions[inputs:])
    assert sorted(scalars.given) == list(range(scalars.nbSymExprs))
    return Kernel(
        name,
        code.decode(),
        tactic,
        tuple(d.type for d in descriptions),
        tuple(d.format for d in descriptions),
        vars(launch),
        tuple(scalars.given[n] for n in range(scalars.nbSymExprs)),
    )


def _field(name: str, value: Any) -> PluginField:
    """As the ONNX parser hands an attribute over: narrowed to 32 bits, a text with a zero at its end."""
    if isinstance(value, str):
        return PluginField(name, value.encode() + b"\0", PluginFieldType.CHAR)
    if isinstance(value, float):
        return PluginField(name, np.array([value], np.float32), PluginFieldType.FLOAT32)
    return PluginField(name, np.array([value], np.int32), PluginFieldType.INT32)


def _expressions(builder: ExprBuilder, number: int, given: Input) -> DimsExprs:
    made = DimsExprs(len(given.shape))
    for axis, size in enumerate(given.shape):
        reads = IDimensionExpr(lambda shapes, axis=axis: shapes[number][axis], False)
        made[axis] = builder.constant(size) if size >= 0 else reads
    return made


def _described(dtype: DataType, shape: tuple[int, ...], bounds: Dims3) -> DynamicPluginTensorDesc:
    smallest, usual, largest = (Dims(b) for b in bounds)
    desc = PluginTensorDesc(Dims(shape), dtype, TensorFormat.LINEAR)
    return DynamicPluginTensorDesc(desc, smallest, usual, largest)
