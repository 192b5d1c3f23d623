"""Every tensor of a model: where it hangs, how to put another in its place, and where it goes in a data file."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

INLINE_LIMIT = 1024  # bytes; smaller tensors are shapes and axes, which shape inference must be able to read
_PAGE = 4096  # bytes; a large tensor that starts on a page can be mapped instead of copied
_LARGE = 1 << 20  # bytes; below it the padding would weigh more than the copy
_WORD = 64  # bytes; one AVX-512 register, the widest aligned load of a CPU kernel


@dataclass(frozen=True, slots=True)
class Slot:
    """A place of a model that holds a tensor: an initializer, or an attribute of a node."""

    owner: "ir.Value | ir.Node"
    attribute: str = ""

    def get(self) -> "ir.TensorProtocol":
        import onnx_ir as ir

        tensor = (
            self.owner.const_value if isinstance(self.owner, ir.Value) else self.owner.attributes[self.attribute].value
        )
        assert tensor is not None
        return tensor

    def set(self, tensor: "ir.TensorProtocol") -> None:
        import onnx_ir as ir

        if isinstance(self.owner, ir.Value):
            self.owner.const_value = tensor
        else:
            old = self.owner.attributes[self.attribute]
            self.owner.attributes[self.attribute] = ir.AttrTensor(old.name, tensor, doc_string=old.doc_string)


def slots(model: "ir.Model") -> "Iterator[Slot]":
    """Every initializer and every tensor attribute of ``model``, subgraphs and functions included, in graph order."""
    import onnx_ir as ir

    bodies = (function.graph for function in model.functions.values())
    for graph in (*model.graphs(), *(graph for body in bodies for graph in (body, *body.subgraphs()))):
        for value in graph.initializers.values():
            if value.const_value is not None:
                yield Slot(value)
        for node in graph:
            for name, attribute in node.attributes.items():
                if attribute.type == ir.AttributeType.TENSOR and not attribute.is_ref():
                    yield Slot(node, name)


Replace = Callable[["ir.TensorProtocol"], "ir.TensorProtocol | None"]
"""Another tensor for a tensor, or None to keep it."""


@contextmanager
def swapped(model: "ir.Model", replace: Replace) -> Iterator[None]:
    """Inside, each tensor for which ``replace`` gives another is that other; afterwards the model is as it was."""
    undo: list[tuple[Slot, ir.TensorProtocol]] = []
    try:
        for slot in list(slots(model)):
            old = slot.get()
            if (new := replace(old)) is not None:
                undo.append((slot, old))
                slot.set(new)
        yield
    finally:
        for slot, old in undo:
            slot.set(old)


@dataclass(frozen=True, slots=True)
class Part:
    """A tensor and the byte of the data file at which it starts."""

    tensor: "ir.TensorProtocol"
    offset: int


def plan(model: "ir.Model", location: str) -> tuple[list[Part], Replace]:
    """What to write into a data file named ``location``, and the tensors that refer to it, for ``swapped``.

    Tensors that were external or are larger than INLINE_LIMIT move; one that several places share is written once.
    """
    parts: list[Part] = []
    offsets: dict[object, int] = {}
    end = 0
    for slot in slots(model):
        tensor = slot.get()
        key = _identity(tensor)
        if key in offsets or not (is_external(tensor) or _inline_bytes(tensor) > INLINE_LIMIT):
            continue
        step = _PAGE if tensor.nbytes >= _LARGE else _WORD
        offsets[key] = offset = -(-end // step) * step
        parts.append(Part(tensor, offset))
        end = offset + tensor.nbytes

    def moved(tensor: "ir.TensorProtocol") -> "ir.TensorProtocol | None":
        offset = offsets.get(_identity(tensor))
        return None if offset is None else placeholder(tensor, location, offset)

    return parts, moved


def loaded(tensor: "ir.TensorProtocol") -> "ir.TensorProtocol | None":
    """An external tensor's bytes in memory, for ``swapped``."""
    import onnx_ir as ir

    if not isinstance(tensor, ir.ExternalTensor):
        return None
    return ir.Tensor(tensor.numpy(), tensor.dtype, name=tensor.name, doc_string=tensor.doc_string)


def only_in(graph: "ir.Graph", least: int) -> "list[ir.TensorProtocol]":
    """The initializers of ``graph`` of ``least`` bytes or more, each once."""
    import onnx_ir as ir

    held = (value.const_value for value in graph.initializers.values())
    large = {id(t): t for t in held if t is not None and t.dtype != ir.DataType.STRING and t.nbytes >= least}
    return list(large.values())


def placeholder(tensor: "ir.TensorProtocol", location: str, offset: int = 0) -> "ir.ExternalTensor":
    """A tensor like ``tensor`` whose bytes are said to stand in the file ``location``."""
    import onnx_ir as ir

    return ir.ExternalTensor(
        location,
        offset,
        tensor.nbytes,
        tensor.dtype,
        shape=ir.Shape(tensor.shape.numpy()),
        name=tensor.name or "",
        doc_string=tensor.doc_string,
        metadata_props=dict(tensor.metadata_props) or None,
    )


def is_external(tensor: "ir.TensorProtocol") -> bool:
    import onnx_ir as ir

    return isinstance(tensor, ir.ExternalTensor)


def inline_bytes(model: "ir.Model") -> int:
    """Bytes of all tensors of ``model`` that are not in other files."""
    return sum(_inline_bytes(slot.get()) for slot in slots(model))


def _inline_bytes(tensor: "ir.TensorProtocol") -> int:
    import onnx_ir as ir

    # strings have no size and may not be external (onnx.proto, TensorProto.external_data)
    return 0 if is_external(tensor) or tensor.dtype == ir.DataType.STRING else tensor.nbytes


def _identity(tensor: "ir.TensorProtocol") -> object:
    import onnx_ir as ir

    return (tensor.path, tensor.offset, tensor.nbytes) if isinstance(tensor, ir.ExternalTensor) else id(tensor)
