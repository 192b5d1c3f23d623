"""What two parts of two models say otherwise: an attribute, a weight, an operator, what a node reads."""

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any

import numpy as np

from gn_deploy.diagnosis.piece import Piece
from gn_deploy.parity.appearance import appearance
from gn_deploy.rounding import FORMATS

if TYPE_CHECKING:
    import onnx_ir as ir

_SPELLING = 3  # differences in operators; with more it is another way of writing it, and none of them is the cause


@dataclass(frozen=True, slots=True, eq=False)
class Difference:
    """``node`` is the candidate's, or the reference's where the candidate has none."""

    node: "ir.Node"
    words: str


def difference(piece: Piece) -> Difference | None:
    """The first thing in which ``piece.model`` is written otherwise than ``piece.truth``; None when nothing is, or
    when they are two spellings that cannot be compared node by node."""
    mine, theirs = list(piece.truth.graph), list(piece.model.graph)
    if [n.op_type for n in mine] == [n.op_type for n in theirs]:
        opset = piece.truth.opset_imports.get("", 1)
        told = ((b, " and ".join(_node(a, b, opset))) for a, b in zip(mine, theirs, strict=True))
        return next((Difference(node, words) for node, words in told if words), None)
    steps = SequenceMatcher(None, [n.op_type for n in mine], [n.op_type for n in theirs], autojunk=False).get_opcodes()
    changes = [s for s in steps if s[0] != "equal"]
    if sum(max(s[2] - s[1], s[4] - s[3]) for s in changes) > _SPELLING:
        return None
    kind, i, _, j, _ = changes[0]
    if kind == "delete":
        return Difference(mine[i], f"{_named(mine[i])} of the reference is missing")
    if kind == "insert":
        return Difference(theirs[j], f"the reference has no {theirs[j].op_type} here")
    return Difference(theirs[j], f"{theirs[j].op_type} stands where the reference has {mine[i].op_type}")


def _node(a: "ir.Node", b: "ir.Node", opset: int) -> Iterator[str]:
    theirs, ours = _attributes(b, opset), _attributes(a, opset)
    for name in sorted(ours.keys() | theirs.keys()):
        if not _same(ours.get(name), theirs.get(name)):
            yield f"{name} is {_word(theirs.get(name))}, the reference has {_word(ours.get(name))}"
    for at, (mine, other) in enumerate(zip(a.inputs, b.inputs, strict=False)):
        if mine is None or other is None:
            if mine is not other:
                yield f"input {at} is {'absent' if other is None else 'there'}, in the reference it is not"
        elif mine.const_value is not None and other.const_value is not None:
            if words := _weight(mine.const_value.numpy(), other.const_value.numpy()):
                yield f"'{other.name}' is not the reference's '{mine.name}': {words}"
        elif mine.producer() is None and other.producer() is None and mine.name != other.name:
            yield f"it reads '{other.name}' where the reference reads '{mine.name}'"
    if len(a.inputs) != len(b.inputs):
        yield f"it has {len(b.inputs)} inputs, the reference {len(a.inputs)}"


def _weight(a: "np.ndarray[Any, Any]", b: "np.ndarray[Any, Any]") -> str:
    if a.dtype.name in FORMATS and b.dtype.name in FORMATS:
        return appearance(b, a.astype(np.float64), FORMATS["float32"].u * np.abs(a.astype(np.float64)), channel_axis=0)
    if a.shape == b.shape and np.array_equal(a, b):
        return ""
    small = max(a.size, b.size) <= 8  # sizes, axes, pads: short enough to be told
    return (
        f"{b.tolist()} instead of {a.tolist()}"
        if small
        else f"{int((a != b).sum()) if a.shape == b.shape else 'all'} numbers differ"
    )


def _attributes(node: "ir.Node", opset: int) -> dict[str, Any]:
    """With the defaults of the operator, so that one who writes them out says nothing new."""
    import onnx

    try:
        schema = onnx.defs.get_schema(node.op_type, max_inclusive_version=opset, domain=node.domain)
        given = {
            n: onnx.helper.get_attribute_value(a.default_value)
            for n, a in schema.attributes.items()
            if a.default_value.name
        }
    except onnx.defs.SchemaError:
        given = {}
    found = {n: v.decode() if isinstance(v, bytes) else v for n, v in given.items()}
    return found | {name: a.value for name, a in node.attributes.items()}


def _same(a: Any, b: Any) -> bool:
    if hasattr(a, "numpy") and hasattr(b, "numpy"):
        return bool(np.array_equal(a.numpy(), b.numpy()))
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return list(a) == list(b)
    if isinstance(a, float) and isinstance(b, float):
        return bool(np.float32(a) == np.float32(b))  # ONNX keeps attributes in float32
    if hasattr(a, "inputs") or hasattr(b, "inputs"):
        return True  # bodies of If and Loop are judged by what they compute
    return bool(a == b)


def _word(value: Any) -> str:
    return "absent" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _named(node: "ir.Node") -> str:
    return f"{node.op_type} '{node.name}'" if node.name else node.op_type
