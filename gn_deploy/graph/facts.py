"""What can be proved about the values of a graph without running it: constants, types, shapes, shape arithmetic."""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import TypeVar

import numpy as np
import onnx.defs
import onnx_ir as ir
from numpy.typing import NDArray

from gn_deploy.graph.contents import contents
from gn_deploy.graph.derive import derived_shape
from gn_deploy.graph.dims import Dim, Shape, known, parse, unknown
from gn_deploy.graph.fold import LARGEST, RULES, filling, fold, integer
from gn_deploy.graph.nodes import is_plain
from gn_deploy.graph.same import same

T = TypeVar("T")

_RELAID = frozenset({"Reshape", "Unsqueeze", "Squeeze", "Cast", "CastLike"})
_CONSTANT = _RELAID | RULES.keys() | {"Constant", "Shape", "Size"}
_REPEATING = frozenset("Expand Tile Reshape Unsqueeze Squeeze Flatten Identity Transpose Slice Cast CastLike".split())
_LONGEST = 64  # elements of a shape, or of a table of sizes
_FUSED = frozenset({"GroupNorm", "SkipGroupNorm"})
"""Nodes of other domains all of whose outputs have the shape and type of their first input, whoever defines them."""
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
        self.ends: set[ir.Value] = set()
        """Values that stand for themselves: whoever reads them does not look at what computes them."""

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

    def integers(self, value: ir.Value | None) -> list[int] | None:
        """The elements of an integer constant, in order."""
        array = self.constant(value)
        return None if array is None or array.dtype.kind not in "iu" else [int(i) for i in array.reshape(-1)]

    def uniform(self, value: ir.Value | None) -> float | None:
        """The one number that every element is, also where the shape is only known at run time."""
        array = self.constant(value)
        if array is not None:
            return float(array.flat[0]) if array.size and bool(np.all(array == array.flat[0])) else None
        node = None if value is None else value.producer()
        if node is None or not is_plain(node) or not node.inputs:
            return None
        if node.op_type == "ConstantOfShape":
            return float(filling(node)[0])
        number = self.uniform(node.inputs[0]) if node.op_type in _REPEATING else None
        to = self.dtype(value) if number is not None and value is not None else None
        return None if number is None or to is None else float(np.asarray(number).astype(to.numpy()))

    def element(self, value: ir.Value | None) -> NDArray[np.generic] | None:
        """The element that a value is ``uniform`` in, as an array without axes in the value's type."""
        number, dtype = self.uniform(value), None if value is None else self.dtype(value)
        return None if number is None or dtype is None else np.asarray(number, dtype.numpy())

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
            return None if rank is None or integer(node, "noop_with_empty_axes", 0) else tuple(range(rank))
        if rank is None:
            return tuple(sorted(given)) if min(given) >= 0 else None
        return tuple(sorted(a % rank for a in given))

    def same(self, a: ir.Value, b: ir.Value) -> bool:
        """Whether two values are provably equal: the same value, or the same operation on equal values."""
        return a is b or self._guarded(lambda: same(a, b, self)) is True

    def _guarded(self, ask: Callable[[], T | None]) -> T | None:
        if self._depth >= _DEPTH:
            return None
        self._depth += 1
        try:
            return ask()
        finally:
            self._depth -= 1

    def _constant(self, value: ir.Value) -> NDArray[np.generic] | None:
        node = value.producer()
        if node is not None and value.const_value is None and node.op_type not in _CONSTANT:
            return None  # nearly every value of a network
        tensor = self._tensor(value)
        if tensor is not None:
            return tensor.numpy() if tensor.size <= LARGEST else None
        if node is None or not is_plain(node) or not node.inputs or node.inputs[0] is None:
            return None
        if node.op_type in ("Shape", "Size"):
            dims = self.contents(value)
            sizes = [None] if dims is None else [d.known for d in dims]
            return None if None in sizes else np.asarray(sizes if node.op_type == "Shape" else sizes[0], np.int64)
        arrays = []
        for held in node.inputs[:1] if node.op_type in _RELAID else node.inputs:
            array = None if held is None else self.constant(held)
            if array is None:
                return self._counted(value, node)
            arrays.append(array)
        match node.op_type:
            case "Cast" | "CastLike":
                to = self.dtype(value)
                return None if to is None or to == ir.DataType.STRING else arrays[0].astype(to.numpy())
            case "Reshape" | "Unsqueeze" | "Squeeze":
                shape = self.shape(value)
                return None if shape is None else _as_shape(arrays[0], [d.known for d in shape])
        return fold(node, arrays, value.index() or 0)

    def _counted(self, value: ir.Value, node: ir.Node) -> NDArray[np.generic] | None:
        """Known sizes taken out of a shape that is not known as a whole."""
        told = contents(node, self) if value.dtype == ir.DataType.INT64 else None
        shape = None if told is None else self.shape(value)
        if told is None or shape is None or any(d.known is None for d in told):
            return None
        return _as_shape(np.asarray([d.known for d in told], np.int64), [d.known for d in shape])

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
        if (like := _alike(node)) is not None:
            return self.shape(like)
        if node is None or not is_plain(node) or not node.inputs or node.inputs[0] is None:
            return None
        return derived_shape(value, node, self)

    def _content(self, value: ir.Value) -> Shape | None:
        node = value.producer()
        if node is None or node.op_type not in ("Shape", "Size"):
            array = self.constant(value)
            if array is not None:
                if array.ndim > 1 or array.size > _LONGEST or not (array.dtype.kind in "iu" or _whole(array)):
                    return None
                return tuple(Dim(int(n)) for n in array.reshape(-1))
        if node is None or not is_plain(node) or not node.inputs or node.inputs[0] is None:
            return None
        return contents(node, self)

    def _dtype(self, value: ir.Value) -> ir.DataType | None:
        if value.const_value is not None:
            return value.const_value.dtype
        node, index = value.producer(), value.index()
        if (like := _alike(node)) is not None:
            return self.dtype(like)
        if node is None or index is None or not is_plain(node):
            return None
        if node.op_type == "Cast":
            return ir.DataType(node.attributes["to"].as_int())
        if node.op_type == "Constant":
            tensor = self._tensor(value)
            return None if tensor is None else tensor.dtype
        typed = (node.inputs[i] for i in _typed_alike(node.op_type, self.opset, index) if i < len(node.inputs))
        return next((found for v in typed if v is not None and (found := self.dtype(v)) is not None), None)


def _alike(node: ir.Node | None) -> ir.Value | None:
    """What all outputs of a node of another domain have the shape and type of, where its name says so."""
    fused = node is not None and bool(node.domain) and node.op_type in _FUSED
    return node.inputs[0] if node is not None and fused and node.inputs else None


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
        known(d) if isinstance(d, int) else parse(d.value) if d.value is not None else unknown(value.name, i)
        for i, d in enumerate(value.shape)
    )


def _whole(array: NDArray[np.generic]) -> bool:
    """Whether the numbers are integers, as exporters write sizes they divide."""
    return array.dtype.kind == "f" and bool(np.all(np.isfinite(array)) and np.all(np.floor(array) == array))


def _as_shape(array: NDArray[np.generic], sizes: Sequence[int | None]) -> NDArray[np.generic] | None:
    """The array in that shape; None when a size is unknown or the file contradicts itself."""
    wanted = [s for s in sizes if s is not None]
    fits = len(wanted) == len(sizes) and min(wanted, default=0) >= 0 and math.prod(wanted) == array.size
    return array.reshape(wanted) if fits else None
