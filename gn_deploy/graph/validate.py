"""Whether a ModelProto is a model at all: opsets, names, order and tensors, checked before a graph is built."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gn_deploy.errors import InputError

if TYPE_CHECKING:
    import onnx

    Attributes = Iterable[onnx.AttributeProto]

DAMAGED = "the file is damaged: export or download it again"
_UPGRADE = "pip install -U onnx, or export at a lower opset"


@dataclass
class Checked:
    """What the walk over a valid model found on its way."""

    unsorted: bool = False
    """Some node reads a value that a later node writes."""
    external: "list[onnx.TensorProto]" = field(default_factory=list)
    """Tensors whose bytes stand in another file."""


def validate(proto: "onnx.ModelProto") -> Checked:
    """Raises InputError for what no runtime could run; unknown operators and imported custom domains are fine.

    The cost is one pass over names: 0.1 s for 20,000 nodes. A cycle shows only when the graph is sorted.
    """
    _versions(proto)
    for what in ("training_info", "graph.sparse_initializer"):
        owner = proto.graph if what.startswith("graph.") else proto
        if getattr(owner, what.split(".")[-1]):
            raise InputError(f"the model has {what}, which would be lost", "remove it: only inference is supported")
    functions = {(f.domain, f.name) for f in proto.functions}
    found = Checked()
    walk = _Walk(_opsets(proto.opset_import, "the model"), functions, found)
    walk.graph(proto.graph, ())
    for function in proto.functions:
        _text((function.domain, function.name, *function.attribute))
        name = f"function '{function.name}'"
        walk = _Walk(_opsets(function.opset_import, name), functions, found, in_function=True)
        for default in function.attribute_proto:
            if default.type == default.TENSOR:
                walk.tensor(default.t, may_be_external=False)
        walk.body(function.node, dict.fromkeys(_unique(function.input, name), True), (), function.output, name)
    return found


class _Walk:
    """One pass over graphs that share their opset imports.

    1. A scope maps each name to whether it is written already: graphs may be unsorted, but no name may be missing.
    2. A subgraph sees the scopes around it and may shadow their names, as onnx_ir and ONNX Runtime allow.
    """

    def __init__(
        self, domains: set[str], functions: set[tuple[str, str]], found: Checked, *, in_function: bool = False
    ) -> None:
        self.domains = domains
        self.functions = functions
        self.found = found
        self.in_function = in_function

    def graph(self, graph: "onnx.GraphProto", outer: tuple[dict[str, bool], ...]) -> None:
        _text((graph.name,))
        name = f"graph '{graph.name}'"
        for tensor in graph.initializer:
            self.tensor(tensor)
        scope = dict.fromkeys(_unique((i.name for i in graph.input), name), True)
        scope |= dict.fromkeys(_unique((t.name for t in graph.initializer), name), True)
        outputs = list(_unique((o.name for o in graph.output), name))
        self.body(graph.node, scope, outer, outputs, name)

    def body(
        self,
        nodes: "Iterable[onnx.NodeProto]",
        scope: dict[str, bool],
        outer: tuple[dict[str, bool], ...],
        outputs: Iterable[str],
        where: str,
    ) -> None:
        for node in nodes:
            for name in node.output:
                if name in scope:
                    raise InputError(f"{where} writes the value '{name}' twice")
                if name:
                    scope[name] = False
        scopes = (scope, *outer)
        _text(text for node in nodes for text in (node.name, *node.output))
        known: set[tuple[str, str]] = set()
        for node in nodes:
            if (operator := (node.domain, node.op_type)) not in known:
                _text(operator)
                self.operator(*operator)
                known.add(operator)
            for name in node.input:
                if name and not scope.get(name):
                    self.reads(name, scopes, f"node '{node.name or node.op_type}'")
            if node.attribute:
                self.attributes(node.attribute, scopes)
            for name in node.output:
                if name:
                    scope[name] = True
        for name in outputs:
            if name not in scope:
                around = any(name in values for values in outer)
                hint = "pass it through an Identity node: a subgraph may not return an outer value" if around else ""
                raise InputError(f"{where} has the output '{name}', which nothing in it computes", hint)

    def operator(self, domain: str, op_type: str) -> None:
        if not op_type:
            raise InputError("a node has no operator")
        if (domain or "ai.onnx") not in self.domains and (domain, op_type) not in self.functions:
            raise InputError(
                f"operator '{domain or 'ai.onnx'}::{op_type}' is in a domain without opset import",
                f"the file imports {', '.join(sorted(self.domains)) or 'none'}: export it again",
            )

    def reads(self, name: str, scopes: tuple[dict[str, bool], ...], who: str) -> None:
        for scope in scopes:
            if name in scope:
                self.found.unsorted |= not scope[name]
                return
        raise InputError(f"{who} reads the value '{name}', which nothing computes")

    def attributes(self, attributes: "Attributes", scopes: tuple[dict[str, bool], ...]) -> None:
        for attribute in attributes:
            _text((attribute.name, attribute.ref_attr_name))
            kind = attribute.type
            if attribute.ref_attr_name:
                if not self.in_function:
                    raise InputError(
                        f"attribute '{attribute.name}' refers to a function's attribute outside a function"
                    )
            elif kind == attribute.TENSOR:
                self.tensor(attribute.t)
            elif kind == attribute.GRAPH:
                self.graph(attribute.g, scopes)
            elif kind == attribute.GRAPHS:
                for graph in attribute.graphs:
                    self.graph(graph, scopes)
            elif kind == attribute.TENSORS:
                for tensor in attribute.tensors:
                    self.tensor(tensor, may_be_external=False)
            elif kind in (attribute.SPARSE_TENSOR, attribute.SPARSE_TENSORS):
                raise InputError(
                    f"attribute '{attribute.name}' is a sparse tensor, which is not supported", "make it dense"
                )
            elif kind == attribute.UNDEFINED:
                raise InputError(f"attribute '{attribute.name}' has no type", DAMAGED)

    def tensor(self, tensor: "onnx.TensorProto", *, may_be_external: bool = True) -> None:
        _text((tensor.name,))
        if tensor.data_location == tensor.EXTERNAL:
            if not may_be_external:
                raise InputError(f"tensor '{tensor.name}' of a list has external data", "only single tensors may")
            self.found.external.append(tensor)
            return
        if tensor.data_type not in _FIELDS:
            raise InputError(f"tensor '{tensor.name}' has the unknown element type {tensor.data_type}")
        if tensor.HasField("raw_data"):
            have, need = len(tensor.raw_data), tensor_nbytes(tensor)
        else:
            entry, per_element = _FIELDS[tensor.data_type]
            have, need = len(getattr(tensor, entry)), math.ceil(math.prod(tensor.dims) * per_element)
            if sum(len(getattr(tensor, name)) for name in _FIELD_NAMES) != have:
                raise InputError(f"tensor '{tensor.name}' holds data of another element type", DAMAGED)
        if have != need or min(tensor.dims, default=0) < 0:
            shape = "x".join(map(str, tensor.dims)) or "()"
            held = f"{have} entries instead of {need}"
            raise InputError(f"tensor '{tensor.name}' of shape {shape} holds {held}", DAMAGED)


def tensor_nbytes(tensor: "onnx.TensorProto") -> int:
    """Bytes that ``tensor`` takes when stored raw; raises InputError for an element type that has no fixed size."""
    import onnx_ir as ir

    try:
        bits: int = ir.DataType(tensor.data_type).bitwidth
    except (ValueError, TypeError) as error:
        raise InputError(
            f"tensor '{tensor.name}' has the element type {tensor.data_type}, unfit for raw data"
        ) from error
    size: int = math.prod(tensor.dims)
    return -(-size * bits // 8)


_INT32 = ("int32_data", 1.0)
_FIELDS: dict[int, tuple[str, float]] = {
    1: ("float_data", 1),  # FLOAT
    **dict.fromkeys(
        (2, 3, 4, 5, 6, 9, 10, 16, 17, 18, 19, 20, 24, 27, 28), _INT32
    ),  # small integers, BOOL, half, 8- and 6-bit float
    7: ("int64_data", 1),  # INT64
    8: ("string_data", 1),  # STRING
    11: ("double_data", 1),  # DOUBLE
    12: ("uint64_data", 1),  # UINT32
    13: ("uint64_data", 1),  # UINT64
    14: ("float_data", 2),  # COMPLEX64: real, imaginary
    15: ("double_data", 2),  # COMPLEX128
    21: ("int32_data", 0.5),  # UINT4: two to an entry
    22: ("int32_data", 0.5),  # INT4
    23: ("int32_data", 0.5),  # FLOAT4E2M1
    25: ("int32_data", 0.25),  # UINT2: four to an entry
    26: ("int32_data", 0.25),  # INT2
}
"""Element type -> the field that holds it and the entries one element takes (onnx.proto, TensorProto)."""
_FIELD_NAMES = frozenset(name for name, _ in _FIELDS.values())


def _versions(proto: "onnx.ModelProto") -> None:
    import onnx

    if not (proto.graph.node or proto.graph.output):
        raise InputError("the file holds no graph", "it is empty, damaged, or not an ONNX model")
    if proto.ir_version > onnx.IR_VERSION:
        raise InputError(
            f"the file has IR version {proto.ir_version}, onnx {onnx.__version__} knows up to {onnx.IR_VERSION}",
            _UPGRADE,
        )


def _opsets(imports: "Iterable[onnx.OperatorSetIdProto]", where: str) -> set[str]:
    """The imported domains, the default one as "ai.onnx"."""
    import onnx

    versions: dict[str, int] = {}
    for opset in imports:
        _text((opset.domain,))
        domain = opset.domain or "ai.onnx"
        if versions.setdefault(domain, opset.version) != opset.version:
            raise InputError(f"{where} imports opset {versions[domain]} and {opset.version} of '{domain}'")
        newest = max((v for d, v in onnx.helper.OP_SET_ID_VERSION_MAP if d == domain), default=opset.version)
        if domain == "ai.onnx":
            newest = max(newest, onnx.defs.onnx_opset_version())
        if not 1 <= opset.version <= newest:
            raise InputError(
                f"{where} needs opset {opset.version} of '{domain}', onnx {onnx.__version__} knows 1 to {newest}",
                _UPGRADE,
            )
    return set(versions)


def _text(strings: Iterable[str]) -> None:
    """protobuf hands out bytes, not str, where a string is not UTF-8."""
    try:
        "".join(strings)
    except TypeError as error:
        raise InputError("a name in the file is not UTF-8 text", DAMAGED) from error


def _unique(names: Iterable[str], where: str) -> Iterator[str]:
    seen: set[str] = set()
    for name in names:
        _text((name,))
        if name in seen:
            raise InputError(f"{where} declares the value '{name}' twice")
        seen.add(name)
        yield name
