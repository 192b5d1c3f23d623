"""TensorRT as the plugin's library sees it: objects called through their tables of virtual functions, in ctypes.

The places in those tables and the layouts of structs are written down here a second time, as g++ lays out NVIDIA's own
headers of TensorRT 10.3, 10.9, 10.16 and 11.1: a mistake in plugins/tensorrt/abi.h calls the wrong function here.
"""

import ctypes
from collections.abc import Sequence
from ctypes import CFUNCTYPE, POINTER, Structure, byref, c_bool, c_char_p, c_int32, c_int64, c_size_t, c_void_p
from enum import IntEnum
from typing import Any

import numpy as np

PLUGIN = {"getCapabilityInterface": 4, "clone": 5}
CORE = {"getPluginName": 4, "getPluginVersion": 5, "getPluginNamespace": 6}
BUILD = {
    "configurePlugin": 4,
    "getOutputDataTypes": 5,
    "getOutputShapes": 6,
    "supportsFormatCombination": 7,
    "getNbOutputs": 8,
    "getWorkspaceSize": 9,
    "getValidTactics": 10,
    "getNbTactics": 11,
    "getTimingCacheID": 12,
    "getFormatCombinationLimit": 13,
    "getMetadataString": 14,
    "getAliasedInput": 15,
}
RUNTIME = {"setTactic": 4, "onShapeChange": 5, "enqueue": 6, "attachToContext": 7, "getFieldsToSerialize": 8}
CREATOR = {
    "createPlugin": 4,
    "getFieldNames": 5,
    "getPluginName": 6,
    "getPluginVersion": 7,
    "getPluginNamespace": 8,
}
GET_INTERFACE_INFO, DELETE = 1, 3


class Type(IntEnum):
    """DataType."""

    FLOAT, HALF, INT8, INT32, BOOL, UINT8, FP8, BF16, INT64, INT4 = range(10)


class Format(IntEnum):
    """TensorFormat."""

    LINEAR, CHW2, HWC8, CHW4, CHW16, CHW32, DHWC8, CDHW32, HWC, DLA_LINEAR, DLA_HWC4, HWC16, DHWC = range(13)


class FieldType(IntEnum):
    """PluginFieldType."""

    FLOAT16, FLOAT32, FLOAT64, INT8, INT16, INT32, CHAR, DIMS, UNKNOWN, BF16, INT64, FP8, INT4 = range(13)


class Dims(Structure):
    _fields_ = (("rank", c_int32), ("d", c_int64 * 8))


class TensorDesc(Structure):
    _fields_ = (("dims", Dims), ("type", c_int32), ("format", c_int32), ("scale", ctypes.c_float))


class DynamicTensorDesc(Structure):
    _fields_ = (("desc", TensorDesc), ("min", Dims), ("max", Dims), ("opt", Dims))


class Field(Structure):
    _fields_ = (("name", c_char_p), ("data", c_void_p), ("type", c_int32), ("length", c_int32))


class FieldCollection(Structure):
    _fields_ = (("count", c_int32), ("fields", POINTER(Field)))


class InterfaceInfo(Structure):
    _fields_ = (("kind", c_char_p), ("major", c_int32), ("minor", c_int32))


class DimsExprs(Structure):
    _fields_ = (("rank", c_int32), ("d", c_void_p * 8))


SIZES = {Dims: 72, TensorDesc: 88, DynamicTensorDesc: 304, Field: 24, FieldCollection: 16, DimsExprs: 72}


def call(this: int, slot: int, result: Any, *arguments: Any) -> Any:
    """The virtual function of the object at ``this``; ctypes values are passed as they are, the rest as pointers."""
    table = ctypes.cast(this, POINTER(POINTER(c_void_p)))[0]
    kinds = [type(a) if isinstance(a, ctypes._SimpleCData) else c_void_p for a in arguments]
    return CFUNCTYPE(result, c_void_p, *kinds)(table[slot])(this, *arguments)


def object_of(*functions: Any, data: int | None = None) -> Any:
    """An object with these virtual functions, and one pointer behind them; keep what is returned alive."""
    table = (c_void_p * len(functions))(*(ctypes.cast(f, c_void_p).value if f else 0 for f in functions))
    made = (c_void_p * 2)(ctypes.addressof(table), data)
    made.held = (table, functions)
    return made


class Sizes:
    """IExprBuilder, and the expressions of sizes it gives out: constants, or sizes nobody knows yet."""

    def __init__(self) -> None:
        self._held: list[Any] = []
        self.asked = 0
        """How often it was asked for a new expression."""

        def constant(this: int, value: int) -> int:
            self.asked += 1
            return self.expression(value)

        self._constant = CFUNCTYPE(c_void_p, c_void_p, c_int64)(constant)
        inner = object_of(None, None, self._constant, None, None)
        self.builder = object_of(None, None, data=ctypes.addressof(inner))
        self._held.append(inner)

    def expression(self, value: int | None) -> int:
        known = CFUNCTYPE(c_bool, c_void_p)(lambda this: value is not None)
        number = CFUNCTYPE(c_int64, c_void_p)(lambda this: -1 if value is None else value)
        inner = object_of(None, None, known, number, CFUNCTYPE(c_bool, c_void_p)(lambda this: False))
        outer = object_of(None, None, data=ctypes.addressof(inner))
        self._held += [inner, outer]
        return ctypes.addressof(outer)

    def shape(self, sizes: Sequence[int | None]) -> DimsExprs:
        return DimsExprs(len(sizes), (c_void_p * 8)(*map(self.expression, sizes)))


class Context:
    """IPluginResourceContext with an IErrorRecorder that keeps what it is told."""

    def __init__(self) -> None:
        self.errors: list[tuple[int, str]] = []

        def told(this: int, code: int, text: bytes) -> bool:
            self.errors.append((code, text.decode()))
            return True

        self._report = CFUNCTYPE(c_bool, c_void_p, c_int32, c_char_p)(told)
        self.recorder = object_of(*[None] * 9, self._report, None, None)
        self._get = CFUNCTYPE(c_void_p, c_void_p)(lambda this: ctypes.addressof(self.recorder))
        self.object = object_of(CFUNCTYPE(c_void_p, c_void_p)(lambda this: None), self._get, None, None)


def field(name: str, value: Any, kind: FieldType | None = None, length: int | None = None) -> Field:
    """As TensorRT's ONNX parser makes it: INT32, FLOAT32, or CHAR with a zero at the end."""
    if kind is None:
        kind = {int: FieldType.INT32, float: FieldType.FLOAT32, str: FieldType.CHAR}[type(value)]
    if isinstance(value, str):
        data: Any = np.frombuffer(value.encode() + b"\0", np.uint8)
    else:
        dtypes = {"INT8": "i1", "INT16": "i2", "INT32": "i4", "INT64": "i8", "FLOAT32": "f4", "FLOAT64": "f8"}
        data = np.atleast_1d(np.asarray(value, dtypes.get(kind.name, "i4")))
    made = Field(name.encode(), data.ctypes.data if data.size else None, kind, data.size if length is None else length)
    made.held = data  # type: ignore[attr-defined]
    return made


def collection(fields: Sequence[Field]) -> FieldCollection:
    array = (Field * len(fields))(*fields)
    made = FieldCollection(len(fields), array)
    made.held = (array, fields)  # type: ignore[attr-defined]
    return made


def fields_of(address: int) -> dict[str, Any]:
    """The fields of a collection that the library gave out."""
    found = ctypes.cast(address, POINTER(FieldCollection))[0]
    kinds = {FieldType.INT32: c_int32, FieldType.FLOAT32: ctypes.c_float}
    values: dict[str, Any] = {}
    for one in found.fields[: found.count]:
        name = one.name.decode()
        if not one.data:
            values[name] = FieldType(one.type)
        elif one.type == FieldType.CHAR:
            values[name] = ctypes.string_at(one.data, one.length).decode()
        else:
            values[name] = ctypes.cast(one.data, POINTER(kinds[FieldType(one.type)]))[0]
    return values


def tensor(shape: Sequence[int], kind: Type = Type.FLOAT, layout: Format = Format.LINEAR) -> TensorDesc:
    return TensorDesc(Dims(len(shape), (c_int64 * 8)(*shape)), kind, layout, 0.0)


def dynamic(
    desc: TensorDesc, smallest: Sequence[int], usual: Sequence[int], largest: Sequence[int]
) -> DynamicTensorDesc:
    bounds = [Dims(len(shape), (c_int64 * 8)(*shape)) for shape in (smallest, largest, usual)]
    return DynamicTensorDesc(desc, *bounds)


def fixed(desc: TensorDesc) -> DynamicTensorDesc:
    return DynamicTensorDesc(desc, desc.dims, desc.dims, desc.dims)


class Plugin:
    """An IPluginV3 with its three capabilities; deleted with ``close``."""

    def __init__(self, address: int) -> None:
        self.address = address
        self.core, self.build, self.runtime = (
            call(address, PLUGIN["getCapabilityInterface"], c_void_p, c_int32(kind)) for kind in range(3)
        )

    def close(self) -> None:
        call(self.address, DELETE, None)

    def clone(self) -> "Plugin":
        return Plugin(call(self.address, PLUGIN["clone"], c_void_p))

    def name(self) -> tuple[str, ...]:
        return tuple(call(self.core, slot, c_char_p).decode() for slot in CORE.values())

    def text(self, function: str) -> str:
        return str(call(self.build, BUILD[function], c_char_p).decode())

    def number(self, function: str, *arguments: Any) -> int:
        return int(call(self.build, BUILD[function], c_int32, *arguments))

    def supports(self, pos: int, tensors: Sequence[TensorDesc], inputs: int = 6) -> bool:
        array = (DynamicTensorDesc * len(tensors))(*map(fixed, tensors))
        count = c_int32(inputs), c_int32(len(tensors) - inputs)
        slot = BUILD["supportsFormatCombination"]
        return bool(call(self.build, slot, c_bool, c_int32(pos), ctypes.addressof(array), *count))

    def _both(self, ins: Sequence[Structure], outs: Sequence[Structure]) -> tuple[Any, ...]:
        first, second = ((type(s[0]) * len(s))(*s) if s else None for s in (ins, outs))
        self._held = first, second
        return (
            ctypes.addressof(first) if first else None,
            c_int32(len(ins)),
            ctypes.addressof(second) if second else None,
            c_int32(len(outs)),
        )

    def configure(self, ins: Sequence[DynamicTensorDesc], outs: Sequence[DynamicTensorDesc]) -> int:
        return int(call(self.build, BUILD["configurePlugin"], c_int32, *self._both(ins, outs)))

    def workspace(self, ins: Sequence[DynamicTensorDesc], outs: Sequence[DynamicTensorDesc]) -> int:
        return int(call(self.build, BUILD["getWorkspaceSize"], c_size_t, *self._both(ins, outs)))

    def tactics(self) -> list[int]:
        count = self.number("getNbTactics")
        found = (c_int32 * (count + 1))(*[-7] * (count + 1))
        assert self.number("getValidTactics", ctypes.addressof(found), c_int32(count)) == 0
        assert found[count] == -7, "written beyond what was asked for"
        return list(found[:count])

    def output_types(self, ins: Sequence[Type], outputs: int) -> list[Type] | int:
        made, given = (c_int32 * outputs)(*[-7] * outputs), (c_int32 * len(ins))(*ins)
        arguments = ctypes.addressof(made), c_int32(outputs), ctypes.addressof(given), c_int32(len(ins))
        status = self.number("getOutputDataTypes", *arguments)
        return status or [Type(t) for t in made]

    def output_shapes(self, sizes: Sizes, ins: Sequence[DimsExprs], outputs: int) -> list[list[int]] | int:
        """Addresses of expressions."""
        given, made = (DimsExprs * len(ins))(*ins), (DimsExprs * outputs)()
        status = self.number(
            "getOutputShapes",
            ctypes.addressof(given),
            c_int32(len(ins)),
            c_void_p(None),
            c_int32(0),
            ctypes.addressof(made),
            c_int32(outputs),
            ctypes.addressof(sizes.builder),
        )
        return status or [list(shape.d[: shape.rank]) for shape in made]

    def set_tactic(self, tactic: int) -> int:
        return int(call(self.runtime, RUNTIME["setTactic"], c_int32, c_int32(tactic)))

    def on_shape_change(self, ins: Sequence[TensorDesc], outs: Sequence[TensorDesc]) -> int:
        return int(call(self.runtime, RUNTIME["onShapeChange"], c_int32, *self._both(ins, outs)))

    def enqueue(
        self,
        ins: Sequence[TensorDesc],
        outs: Sequence[TensorDesc],
        inputs: Sequence[int | None],
        outputs: Sequence[int | None],
        workspace: int | None = None,
    ) -> int:
        first, _, second, _ = self._both(ins, outs)
        pointers = [(c_void_p * len(p))(*p) for p in (inputs, outputs)]
        addresses = [ctypes.addressof(p) for p in pointers]
        arguments = (first, second, *addresses, c_void_p(workspace), c_void_p(None))
        return int(call(self.runtime, RUNTIME["enqueue"], c_int32, *arguments))

    def attach(self, context: Context | None) -> "Plugin":
        given = c_void_p(None) if context is None else ctypes.addressof(context.object)
        return Plugin(call(self.runtime, RUNTIME["attachToContext"], c_void_p, given))

    def serialized(self) -> dict[str, Any]:
        return fields_of(call(self.runtime, RUNTIME["getFieldsToSerialize"], c_void_p))

    def serialized_collection(self) -> int:
        return int(call(self.runtime, RUNTIME["getFieldsToSerialize"], c_void_p))


class Creator:
    """An IPluginCreatorV3One."""

    def __init__(self, address: int) -> None:
        self.address = address
        self.name, self.version, self.namespace = (
            call(address, CREATOR[f"getPlugin{what}"], c_char_p).decode() for what in ("Name", "Version", "Namespace")
        )

    def kind(self) -> tuple[str, int, int]:
        info = call(self.address, GET_INTERFACE_INFO, InterfaceInfo)
        return info.kind.decode(), info.major, info.minor

    def fields(self) -> dict[str, Any]:
        return fields_of(call(self.address, CREATOR["getFieldNames"], c_void_p))

    def create(
        self, fields: Sequence[Field] | int | None, *, runtime: bool = False, name: str = "layer"
    ) -> Plugin | None:
        """The fields, the address of a collection, or None for no collection at all."""
        held = collection(fields) if isinstance(fields, Sequence) else fields
        given: Any = byref(held) if isinstance(held, FieldCollection) else c_void_p(held)
        made = call(self.address, CREATOR["createPlugin"], c_void_p, c_char_p(name.encode()), given, c_int32(runtime))
        return Plugin(made) if made else None


def creators(library: ctypes.CDLL) -> list[Creator]:
    library.getCreators.restype = POINTER(c_void_p)
    count = c_int32()
    found = library.getCreators(byref(count))
    return [Creator(address) for address in found[: count.value]]
