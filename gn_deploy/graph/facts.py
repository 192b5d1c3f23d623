"""What can be proved about the values of a graph without running it: constants, types, shapes, shape arithmetic."""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any, TypeVar

import numpy as np
import onnx.defs
import onnx_ir as ir
from numpy.typing import NDArray

from gn_deploy.graph.dims import Dim, Shape, known, parse, product

T = TypeVar("T")

_LARGEST_CONSTANT = 1 << 20  # elements; parameters are per channel, larger tensors are weights and stay on disk
_SAME_SHAPE = frozenset(
    "Identity Cast CastLike Relu Sigmoid Swish Sqrt Reciprocal InstanceNormalization LayerNormalization "
    "GroupNormalization BatchNormalization Softmax Neg Exp Erf Tanh Clip HardSwish HardSigmoid Gelu Mish "
    "Dropout".split()
)
_REDUCTIONS = frozenset({"ReduceMean", "ReduceSum", "ReduceSumSquare"})
_RANDOM = frozenset(
    "RandomNormal RandomNormalLike RandomUniform RandomUniformLike Multinomial Bernoulli Dropout".split()
)
_DEPTH = 64  # producers followed for one fact; deeper chains are not how exporters write shapes


class Facts:
    """Answers about values of one model, remembered; made anew after the graph changes.

    1. None always means "not known", never "no".
    2. Unknown sizes become names: the file's own (``N``) or ``VALUE.AXIS``; equal names mean equal sizes.
    3. A declared size that speaks the names of the model's inputs is taken as it is; any other is derived where it can
       be, since exporters and shape inference give one size many names (``unk__7``, ``Add15_dim_2``).
    """

    def __init__(self, opset: int, inputs: Iterable[ir.Value] = (), *, defaults: bool = True) -> None:
        """``opset`` is the version of the ONNX domain that the model imports, ``inputs`` its graph inputs.

        ``defaults`` says that an initializer that is also an input is only a default (not so before IR version 4).
        """
        self.opset = opset
        inputs = tuple(inputs)
        self._defaults = frozenset(inputs if defaults else ())
        shapes = [s for v in inputs if (s := _declared(v)) is not None]
        self._names = frozenset(name for shape in shapes for dim in shape for name in dim.symbols)
        self._constants: dict[ir.Value, NDArray[np.generic] | None] = {}
        self._shapes: dict[ir.Value, Shape | None] = {}
        self._contents: dict[ir.Value, Shape | None] = {}
        self._dtypes: dict[ir.Value, ir.DataType | None] = {}
        self._depth = 0

    def constant(self, value: ir.Value | None) -> NDArray[np.generic] | None:
        """The array of an initializer, a Constant node, or a reshaping or conversion of one."""
        if value is None:
            return None
        if value not in self._constants:
            self._constants[value] = self._guarded(lambda: self._constant(value))
        return self._constants[value]

    def scalar(self, value: ir.Value | None) -> float | None:
        """The number in a constant of one element."""
        array = self.constant(value)
        return float(array.reshape(-1)[0]) if array is not None and array.size == 1 else None

    def shape(self, value: ir.Value | None) -> Shape | None:
        if value is None:
            return None
        if value not in self._shapes:
            self._shapes[value] = self._guarded(lambda: self._shape(value))
        return self._shapes[value]

    def rank(self, value: ir.Value) -> int | None:
        shape = self.shape(value)
        return None if shape is None else len(shape)

    def contents(self, value: ir.Value | None) -> Shape | None:
        """The numbers in a small integer tensor (a scalar counts as one), each proved or named."""
        if value is None:
            return None
        if value not in self._contents:
            self._contents[value] = self._guarded(lambda: self._content(value))
        return self._contents[value]

    def dtype(self, value: ir.Value) -> ir.DataType | None:
        if value.dtype is not None:
            return value.dtype
        if value not in self._dtypes:
            self._dtypes[value] = self._guarded(lambda: self._dtype(value))
        return self._dtypes[value]

    def axes(self, node: ir.Node) -> tuple[int, ...] | None:
        """Reduction axes of a Reduce op, non-negative and sorted, from the attribute or the second input."""
        rank = self.rank(node.inputs[0]) if node.inputs[0] is not None else None
        given: Sequence[int] | None = None
        if "axes" in node.attributes:
            given = node.attributes["axes"].as_ints()
        elif len(node.inputs) > 1 and node.inputs[1] is not None:
            array = self.constant(node.inputs[1])
            if array is None:
                return None
            given = [int(a) for a in array.reshape(-1)]
        if not given:
            return None if rank is None or _int(node, "noop_with_empty_axes", 0) else tuple(range(rank))
        if rank is None:
            return tuple(sorted(given)) if min(given) >= 0 else None
        return tuple(sorted(a % rank for a in given))

    def same(self, a: ir.Value, b: ir.Value) -> bool:
        """Whether two values are provably equal: the same value, or the same operation on equal values."""
        return a is b or self._guarded(lambda: self._same(a, b)) is True

    def _guarded(self, ask: Callable[[], T | None]) -> T | None:
        if self._depth >= _DEPTH:
            return None
        self._depth += 1
        try:
            return ask()
        finally:
            self._depth -= 1

    def _same(self, a: ir.Value, b: ir.Value) -> bool:
        left, right = self.constant(a), self.constant(b)
        if left is not None and right is not None:
            return left.dtype == right.dtype and left.shape == right.shape and bool(np.array_equal(left, right))
        p, q = a.producer(), b.producer()
        if p is None or q is None or p.op_identifier() != q.op_identifier() or a.index() != b.index():
            return False
        if not is_plain(p) or not is_plain(q) or p.op_type in _RANDOM:
            return False
        if p.op_type in _REDUCTIONS:  # axes may be spelled -1 here and 2 there
            axes = self.axes(p)
            equal = axes is not None and axes == self.axes(q) and _int(p, "keepdims", 1) == _int(q, "keepdims", 1)
            return equal and p.inputs[0] is not None and q.inputs[0] is not None and self.same(p.inputs[0], q.inputs[0])
        if len(p.inputs) != len(q.inputs) or p.attributes.keys() != q.attributes.keys():
            return False
        if any(p.attributes[k].value != q.attributes[k].value for k in p.attributes):
            return False
        pairs = zip(p.inputs, q.inputs, strict=True)
        return all(x is y or (x is not None and y is not None and self.same(x, y)) for x, y in pairs)

    def _constant(self, value: ir.Value) -> NDArray[np.generic] | None:
        tensor = self._tensor(value)
        if tensor is not None:
            return tensor.numpy() if tensor.size <= _LARGEST_CONSTANT else None
        node = value.producer()
        if node is None or not is_plain(node) or not node.inputs or node.inputs[0] is None:
            return None
        array = self.constant(node.inputs[0])
        if array is None:
            return None
        match node.op_type:
            case "Identity":
                return array
            case "Cast":
                return array.astype(ir.DataType(node.attributes["to"].as_int()).numpy())
            case "Reshape" | "Unsqueeze" | "Squeeze":
                shape = self.shape(value)
                sizes = [d.known for d in shape] if shape is not None else [None]
                return _as_shape(array, sizes, np.reshape)
            case "Expand":
                shape = self.contents(node.inputs[1])
                sizes = [d.known for d in shape] if shape is not None else [None]
                return _as_shape(array, sizes, lambda a, wanted: a * np.ones(wanted, a.dtype))
        return None

    def _tensor(self, value: ir.Value) -> ir.TensorProtocol | None:
        node = value.producer()
        sparse = node is not None and node.op_type == "Constant" and "sparse_value" in node.attributes
        if sparse or value in self._defaults:
            return None
        return ir.convenience.get_const_tensor(value)

    def _shape(self, value: ir.Value) -> Shape | None:
        declared = _declared(value)
        if declared is not None and all(d.known is not None or self._names.issuperset(d.symbols) for d in declared):
            return declared
        derived = self._derived_shape(value)
        if derived is None or (declared is not None and len(declared) != len(derived)):
            return declared
        if declared is None:
            return derived
        return tuple(a if a.known is not None else b for a, b in zip(declared, derived, strict=True))

    def _derived_shape(self, value: ir.Value) -> Shape | None:
        if value.is_initializer() and value.const_value is not None:
            return tuple(Dim(int(s)) for s in value.const_value.shape.numpy())
        node = value.producer()
        if node is None or not is_plain(node) or not node.inputs or node.inputs[0] is None or value.index() != 0:
            return None
        first = self.shape(node.inputs[0])
        if node.op_type in _SAME_SHAPE:
            return first
        match node.op_type:
            case "Reshape":
                return self._reshaped(node, first)
            case "Transpose" if first is not None and "perm" in node.attributes:
                order = node.attributes["perm"].as_ints()
                return tuple(first[axis] for axis in order) if sorted(order) == [*range(len(first))] else None
            case "Mul" | "Add" | "Sub" | "Div" | "Pow" | "Max" | "Min":
                return _broadcast([self.shape(v) for v in node.inputs])
            case kind if kind in _REDUCTIONS:
                axes = self.axes(node)
                if first is None or axes is None:
                    return None
                kept = _int(node, "keepdims", 1)
                return tuple(Dim(1) if i in axes else d for i, d in enumerate(first) if kept or i not in axes)
            case "Unsqueeze" | "Squeeze":
                return self._squeezed(node, first)
            case "Conv" if (kernel := self.shape(node.inputs[1])) is not None:
                batch = Dim(1, (f"{value.name}.0",)) if first is None else first[0]
                return (batch, kernel[0], *_unknown(value, range(2, len(kernel))))
            case "MaxPool" | "AveragePool" if first is not None:
                return (*first[:2], *_unknown(value, range(2, len(first))))
            case "Concat":
                return _concatenated([self.shape(v) for v in node.inputs], _int(node, "axis", 1))
            case "Flatten" if first is not None:
                axis = _int(node, "axis", 1)
                return (product(first[:axis]), product(first[axis:]))
        return None

    def _reshaped(self, node: ir.Node, first: Shape | None) -> Shape | None:
        wanted = self.contents(node.inputs[1]) if len(node.inputs) > 1 else None
        if wanted is None:
            return None
        copy_zero = not _int(node, "allowzero", 0)
        dims: list[Dim | None] = []
        for i, dim in enumerate(wanted):
            if dim.known == 0 and copy_zero:
                dims.append(first[i] if first is not None and i < len(first) else Dim(1, (f"{node.name}.{i}",)))
            else:
                dims.append(None if dim.known == -1 else dim)
        if None in dims:
            rest = product(d for d in dims if d is not None)
            left = product(first).divided_by(rest) if first is not None else None
            name = node.outputs[0].name
            dims = [d or left or Dim(1, (f"{name}.{i}",)) for i, d in enumerate(dims)]
        return tuple(d for d in dims if d is not None)

    def _squeezed(self, node: ir.Node, first: Shape | None) -> Shape | None:
        axes_value = node.inputs[1] if len(node.inputs) > 1 else None
        given = node.attributes["axes"].as_ints() if "axes" in node.attributes else self._ints(axes_value)
        if first is None or given is None:
            return None
        if node.op_type == "Squeeze":
            return tuple(d for i, d in enumerate(first) if i not in {a % len(first) for a in given})
        rank = len(first) + len(given)
        new = {a % rank for a in given}
        if len(new) < len(given):
            return None
        rest = iter(first)
        return tuple(Dim(1) if i in new else next(rest) for i in range(rank))

    def _content(self, value: ir.Value) -> Shape | None:
        array = self.constant(value)
        if array is not None:
            whole = array.dtype.kind in "iu" and array.ndim <= 1
            return tuple(Dim(int(n)) for n in array.reshape(-1)) if whole else None
        node = value.producer()
        if node is None or not is_plain(node) or not node.inputs or node.inputs[0] is None:
            return None
        if node.op_type == "Shape":
            shape = self.shape(node.inputs[0])
            end = _int(node, "end", len(shape)) if shape is not None else 0
            return None if shape is None else shape[slice(_int(node, "start", 0), end)]
        if node.op_type == "Concat":
            parts = [self.contents(v) for v in node.inputs]
            return None if None in parts else tuple(d for part in parts if part is not None for d in part)
        first = self.contents(node.inputs[0])
        if first is None:
            return None
        match node.op_type:
            case "Identity" | "Cast" | "Unsqueeze" | "Squeeze" | "Reshape":
                return first
            case "Gather":
                indices = self._ints(node.inputs[1])
                within = indices is not None and all(-len(first) <= i < len(first) for i in indices)
                return tuple(first[i] for i in indices) if indices is not None and within else None
            case "Slice":
                bounds = [self._ints(v) for v in node.inputs[1:]]
                if len(bounds) < 2 or any(b is None or len(b) != 1 for b in bounds):  # attributes before opset 10
                    return None
                start, end, *rest = [b[0] for b in bounds if b is not None]
                return first[start : end : rest[1] if len(rest) > 1 else 1]
            case "Mul" | "Div":
                second = self.contents(node.inputs[1])
                if second is None or len(second) != len(first):
                    return None
                results = [
                    a * b if node.op_type == "Mul" else a.divided_by(b) for a, b in zip(first, second, strict=True)
                ]
                return None if None in results else tuple(r for r in results if r is not None)
        return None

    def _ints(self, value: ir.Value | None) -> list[int] | None:
        array = self.constant(value)
        return None if array is None or array.dtype.kind not in "iu" else [int(i) for i in array.reshape(-1)]

    def _dtype(self, value: ir.Value) -> ir.DataType | None:
        if value.const_value is not None:
            return value.const_value.dtype
        node, index = value.producer(), value.index()
        if node is None or index is None or not is_plain(node):
            return None
        if node.op_type == "Cast":
            return ir.DataType(node.attributes["to"].as_int())
        if node.op_type == "Constant":
            tensor = self._tensor(value)
            return None if tensor is None else tensor.dtype
        typed = (node.inputs[i] for i in _typed_alike(node.op_type, self.opset, index) if i < len(node.inputs))
        return next((found for v in typed if v is not None and (found := self.dtype(v)) is not None), None)


@cache
def _typed_alike(op_type: str, opset: int, output: int) -> tuple[int, ...]:
    """The inputs that, by the op's schema, have the type of an output."""
    try:
        schema = onnx.defs.get_schema(op_type, opset)
    except onnx.defs.SchemaError:
        return ()
    if output >= len(schema.outputs):
        return ()
    wanted = schema.outputs[output].type_str
    return tuple(i for i, p in enumerate(schema.inputs) if p.type_str == wanted)


def _declared(value: ir.Value) -> Shape | None:
    if value.shape is None:
        return None
    return tuple(
        known(d) if isinstance(d, int) else parse(d.value) if d.value is not None else Dim(1, (f"{value.name}.{i}",))
        for i, d in enumerate(value.shape)
    )


def _broadcast(shapes: Sequence[Shape | None]) -> Shape | None:
    """Numpy broadcasting; a named size wins over 1, and two different names are not resolved."""
    if any(s is None for s in shapes):
        return None
    present = [s for s in shapes if s is not None]
    if all(s == present[0] for s in present):
        return present[0]
    rank = max(map(len, present))
    result: list[Dim] = []
    for i in range(rank):
        here = {s[i - rank + len(s)] for s in present if i >= rank - len(s)} - {Dim(1)}
        if len(here) > 1:
            return None
        result.append(here.pop() if here else Dim(1))
    return tuple(result)


def is_plain(node: ir.Node) -> bool:
    """Whether a node is an ONNX operator that says all it does: no attribute is left to the caller of a function."""
    if node.domain:
        return False
    attributes = node.attributes
    return not attributes or not any(attribute.is_ref() for attribute in attributes.values())


def _as_shape(
    array: NDArray[np.generic], sizes: Sequence[int | None], how: Callable[[Any, list[int]], NDArray[np.generic]]
) -> NDArray[np.generic] | None:
    """The array as ``how`` gives it that shape; None when a size is unknown, the result large, or the shape wrong."""
    wanted = [s for s in sizes if s is not None]
    if len(wanted) < len(sizes) or math.prod(wanted) > _LARGEST_CONSTANT:
        return None
    try:
        return how(array, wanted)
    except ValueError:  # the file contradicts itself
        return None


def _unknown(value: ir.Value, axes: Iterable[int]) -> Shape:
    return tuple(Dim(1, (f"{value.name}.{axis}",)) for axis in axes)


def _concatenated(shapes: Sequence[Shape | None], axis: int) -> Shape | None:
    first, *rest = shapes
    if first is None or any(s is None or len(s) != len(first) for s in rest):
        return None
    sizes = [s[axis].known for s in shapes if s is not None]
    total = sum(size for size in sizes if size is not None)
    if None in sizes:
        return None
    return tuple(known(total) if i == axis % len(first) else dim for i, dim in enumerate(first))


def _int(node: ir.Node, name: str, default: int) -> int:
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_int()
