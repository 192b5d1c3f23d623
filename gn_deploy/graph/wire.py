"""ONNX files as bytes: large weights stay in the file when it is read, and are streamed when it is written.

Field numbers and wire types are those of onnx.proto and of the protobuf encoding (protobuf.dev, Encoding): a message is
a sequence of fields, each a key (number and wire type), and for wire type 2 a length and that many bytes.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple, Union

if TYPE_CHECKING:
    import onnx_ir as ir

Piece = Union[bytes, memoryview, "ir.TensorProtocol"]
INSIDE = "\0inside"
"""Location of weights in the model's own file; no file may be named so, and ``external`` refuses it from others."""
LARGE = 1 << 16  # bytes; smaller weights cost more to keep apart than to copy

_GRAPH, _INITIALIZER = 7, 5  # of ModelProto, of GraphProto
_RAW_DATA, _EXTERNAL_DATA, _DATA_LOCATION = 9, 13, 14  # of TensorProto
_VARINT, _LENGTH = 0, 2
_FIXED = {1: 8, 5: 4}  # wire type -> bytes


class Field(NamedTuple):
    """One field: it stands from ``start`` to ``end``, what it holds from ``begin`` on."""

    number: int
    wire_type: int
    start: int
    begin: int
    end: int


def without_weights(data: memoryview) -> bytes:
    """The serialized model ``data`` with every large initializer of its graph said to stand INSIDE, at its offset.

    Raises ValueError where ``data`` is no message.
    """

    def small(field: Field) -> list[bytes | memoryview]:
        parts: list[bytes | memoryview] = []
        for inner in fields(data, field.begin, field.end):
            found = _raw_data(data, inner) if inner.number == _INITIALIZER else None
            parts += [data[inner.start : inner.end]] if found is None else [_pointer(data, inner, found)]
        return [_key(_GRAPH), _varint(sum(len(part) for part in parts)), *parts]

    whole = fields(data, 0, len(data))
    return b"".join(part for f in whole for part in (small(f) if _is(f, _GRAPH) else [data[f.start : f.end]]))


def with_weights(data: memoryview, weights: Callable[[int], "ir.TensorProtocol"]) -> Iterator[Piece]:
    """The inverse, piece by piece: initializers that stand INSIDE at offset i get the bytes of ``weights(i)``."""
    for field in fields(data, 0, len(data)):
        if not _is(field, _GRAPH):
            yield data[field.start : field.end]
            continue
        parts: list[Piece] = []
        for inner in fields(data, field.begin, field.end):
            parts += _filled(data, inner, weights) if _is(inner, _INITIALIZER) else [data[inner.start : inner.end]]
        yield _key(_GRAPH) + _varint(sum(map(_size, parts)))
        yield from parts


def fields(data: memoryview, begin: int, end: int) -> Iterator[Field]:
    """The fields of the message in ``data[begin:end]``; ValueError where it is none."""
    at = begin
    while at < end:
        start = at
        key, at = _read_varint(data, at)
        wire_type = key & 7
        held = at
        if wire_type == _VARINT:
            _, at = _read_varint(data, at)
        elif wire_type == _LENGTH:
            length, held = _read_varint(data, at)
            at = held + length
        elif wire_type in _FIXED:
            at += _FIXED[wire_type]
        else:
            raise ValueError(f"wire type {wire_type} at byte {start}")
        if at > end:
            raise ValueError(f"the field at byte {start} is cut off")
        yield Field(key >> 3, wire_type, start, held, at)


def _is(field: Field, number: int) -> bool:
    return field.number == number and field.wire_type == _LENGTH


def _raw_data(data: memoryview, tensor: Field) -> Field | None:
    """The large raw_data of a TensorProto that has nothing else to say of where its numbers are."""
    inside = list(fields(data, tensor.begin, tensor.end))
    raw = [f for f in inside if _is(f, _RAW_DATA)]
    elsewhere = any(f.number in (_EXTERNAL_DATA, _DATA_LOCATION) for f in inside)
    return raw[0] if len(raw) == 1 and not elsewhere and raw[0].end - raw[0].begin >= LARGE else None


def _pointer(data: memoryview, tensor: Field, raw: Field) -> bytes:
    entries = {"location": INSIDE, "offset": str(raw.begin), "length": str(raw.end - raw.begin)}
    pairs = (_message(1, key.encode()) + _message(2, value.encode()) for key, value in entries.items())
    told = b"".join(_message(_EXTERNAL_DATA, pair) for pair in pairs)
    kept = bytes(data[tensor.begin : raw.start]) + bytes(data[raw.end : tensor.end])
    return _message(_INITIALIZER, kept + told + _key(_DATA_LOCATION, _VARINT) + b"\1")


def _filled(data: memoryview, tensor: Field, weights: Callable[[int], "ir.TensorProtocol"]) -> list[Piece]:
    inside = list(fields(data, tensor.begin, tensor.end))
    entries = [_entry(data, f) for f in inside if _is(f, _EXTERNAL_DATA)]
    if ("location", INSIDE) not in entries:
        return [data[tensor.start : tensor.end]]
    held = weights(int(dict(entries)["offset"]))
    kept = [f for f in inside if f.number not in (_EXTERNAL_DATA, _DATA_LOCATION)]
    before = b"".join(data[f.start : f.end] for f in kept if f.number < _RAW_DATA)  # in the order protobuf writes
    after = b"".join(data[f.start : f.end] for f in kept if f.number > _RAW_DATA)
    head = _key(_RAW_DATA) + _varint(held.nbytes)
    size = len(before) + len(head) + held.nbytes + len(after)
    return [_key(_INITIALIZER) + _varint(size) + before + head, held, after]


def _entry(data: memoryview, field: Field) -> tuple[str, str]:
    told = {f.number: str(data[f.begin : f.end], "utf-8") for f in fields(data, field.begin, field.end)}
    return told.get(1, ""), told.get(2, "")


def _size(piece: Piece) -> int:
    return len(piece) if isinstance(piece, bytes | memoryview) else piece.nbytes


def _message(number: int, content: bytes) -> bytes:
    return _key(number) + _varint(len(content)) + content


def _key(number: int, wire_type: int = _LENGTH) -> bytes:
    return _varint(number << 3 | wire_type)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _read_varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError(f"a number at byte {at} is cut off or too long")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
