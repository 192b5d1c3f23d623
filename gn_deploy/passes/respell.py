"""Ops that say the same in other words since a version of ONNX: what becomes of a node when the opset is raised."""

from collections.abc import Callable

import onnx_ir as ir

from gn_deploy.graph.nodes import says_all
from gn_deploy.graph.splice import Names


def respelled(node: ir.Node, current: int, opset: int) -> bool:
    """Whether raising the opset from ``current`` asks for other words, which ``respell`` knows.

    What a node leaves to the caller of a function it cannot say in other words.
    """
    since, _ = _WORDS.get(node.op_type, (current, None))
    return node.domain in ("", "ai.onnx") and current < since <= opset and says_all(node)


def respell(node: ir.Node, names: Names) -> None:
    """Changes the words of a ``respelled`` node, in place."""
    _WORDS[node.op_type][1](node, names)


def _axes(node: ir.Node, names: Names) -> None:
    """Reduce operators-18: the attribute is an input; left out, both mean all axes."""
    if "axes" not in node.attributes:
        return
    axes = node.attributes.pop("axes").as_ints()
    constant = ir.node("Constant", [], {"value_ints": list(axes)})
    given = constant.outputs[0]
    given.name = names.fresh(f"{node.outputs[0].name}_axes")
    given.type, given.shape = ir.TensorType(ir.DataType.INT64), ir.Shape([len(axes)])
    assert node.graph is not None, "a node of a model is in a graph"
    node.graph.insert_before(node, constant)
    node.resize_inputs(2)
    node.replace_input_with(1, given)


def _parts(node: ir.Node, _names: Names) -> None:
    """Split-18: without sizes, the number of equal parts is said."""
    if len(node.inputs) < 2 or node.inputs[1] is None:
        node.attributes.add(ir.AttrInt64("num_outputs", len(node.outputs)))


def _modes(node: ir.Node, _names: Names) -> None:
    """GridSample-20: other names for images, also for what is meant when it is left out."""
    if "mode" in node.attributes:
        mode = node.attributes["mode"].as_string()
        node.attributes.add(ir.AttrString("mode", {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode)))


_REDUCTIONS = "Max Min Mean Prod L1 L2 LogSum LogSumExp SumSquare".split()
_WORDS: dict[str, tuple[int, Callable[[ir.Node, Names], None]]] = {
    "GridSample": (20, _modes),
    "Split": (18, _parts),
    **{f"Reduce{what}": (18, _axes) for what in _REDUCTIONS},
}
"""Op -> the first opset with the new words, and how to say them."""
