"""What a node or a value tells by itself, without any fact about the rest of its graph."""

import onnx_ir as ir


def is_plain(node: ir.Node) -> bool:
    """Whether a node is an ONNX operator that says all it does."""
    return not node.domain and says_all(node)


def says_all(node: ir.Node) -> bool:
    """Whether no attribute of a node, of whatever domain, is left to the caller of a function."""
    attributes = node.attributes
    return not attributes or not any(attribute.is_ref() for attribute in attributes.values())


def sole_consumer(value: ir.Value) -> ir.Node | None:
    """The only reader of a value that is not also a graph output."""
    uses = value.uses()
    return next(iter(uses)).node if len(uses) == 1 and not value.is_graph_output() else None
