"""The graphs that a node carries in its attributes: branches of an If, the body of a Loop."""

import onnx_ir as ir


def subgraphs(node: ir.Node) -> list[ir.Graph]:
    """In attribute order; an attribute that a function leaves to its caller holds none yet."""
    found: list[ir.Graph] = []
    for attribute in node.attributes.data.values():  # the dict itself: its wrapper is a tenth of walking a graph
        if attribute.type == ir.AttributeType.GRAPH and not attribute.is_ref():
            found.append(attribute.as_graph())
        elif attribute.type == ir.AttributeType.GRAPHS and not attribute.is_ref():
            found.extend(attribute.as_graphs())
    return found
