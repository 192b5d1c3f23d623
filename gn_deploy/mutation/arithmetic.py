"""Formulas as ONNX nodes: numbers, products, means over axes, in one floating-point type."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from gn_deploy.graph.splice import Builder
from gn_deploy.rounding import FORMATS

INT64 = ir.DataType.INT64


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """Each method adds a node and returns its value; ``dtype`` is that of every floating-point value."""

    builder: Builder
    dtype: ir.DataType

    def number(self, value: float) -> ir.Value:
        return self.builder.constant(np.asarray(value, self.dtype.numpy()), "number", self.dtype)

    def op(self, kind: str, *inputs: ir.Value, dtype: ir.DataType | None = None, **attributes: int) -> ir.Value:
        return self.builder.op(kind, inputs, attributes, dtype=dtype or self.dtype)

    def add(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.op("Add", a, b)

    def sub(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.op("Sub", a, b)

    def mul(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.op("Mul", a, b)

    def div(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.op("Div", a, b)

    def square(self, a: ir.Value) -> ir.Value:
        return self.op("Mul", a, a)

    def sqrt(self, a: ir.Value) -> ir.Value:
        return self.op("Sqrt", a)

    def mean(self, a: ir.Value, axes: Sequence[int] = (2,)) -> ir.Value:
        """ReduceMean with keepdims; its axes became an input in opset 18."""
        if self.builder.opset >= 18:
            given = [a, self.builder.ints(axes, "axes")]
            return self.builder.op("ReduceMean", given, {"keepdims": 1}, dtype=self.dtype)
        return self.builder.op("ReduceMean", [a], {"axes": list(axes), "keepdims": 1}, dtype=self.dtype)

    def size(self, a: ir.Value, axis: int) -> ir.Value:
        """int64 (1,): the size of one axis, known at run time at the latest."""
        shape = self.builder.op("Shape", [a], dtype=INT64)
        return self.builder.op("Gather", [shape, self.builder.ints([axis], "axis")], {"axis": 0}, dtype=INT64)

    def integer(self, kind: str, a: ir.Value, b: int) -> ir.Value:
        """An int64 operation with a constant."""
        return self.builder.op(kind, [a, self.builder.ints([b], "integer")], dtype=INT64)

    def real(self, a: ir.Value) -> ir.Value:
        return self.builder.op("Cast", [a], {"to": int(self.dtype)}, dtype=self.dtype)

    def part(self, a: ir.Value, axis: int, end: ir.Value) -> ir.Value:
        """a[:end] along an axis; ``end`` int64 (1,)."""
        zero, along = self.builder.ints([0], "start"), self.builder.ints([axis], "axis")
        return self.op("Slice", a, zero, end, along)

    def rounded(self, a: ir.Value, dtype: ir.DataType) -> ir.Value:
        """Rounded to ``dtype`` and back: by a pair of Casts, and before it by sums, as OpenVINO drops such a pair."""
        narrow = self.builder.op("Cast", [self.split(a, dtype.numpy().name)], {"to": int(dtype)}, dtype=dtype)
        return self.real(narrow)

    def split(self, a: ir.Value, precision: str) -> ir.Value:
        """The nearest number of a precision: a (2^s + 1) - (a (2^s + 1) - a), Veltkamp's splitting, s bits less."""
        lost = FORMATS[precision].u / FORMATS[self.dtype.numpy().name].u  # 2^s
        if lost <= 1:
            return a
        large = self.mul(a, self.number(lost + 1))
        return self.sub(large, self.sub(large, a))
