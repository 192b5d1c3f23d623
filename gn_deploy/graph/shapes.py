"""Types and shapes that a file does not say, inferred by onnx without handing it the weights."""

from typing import TYPE_CHECKING

from gn_deploy.graph.slots import INLINE_LIMIT, is_external, loaded, placeholder, slots, swapped

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

_STANDARD = {
    ("", "GroupNormalization"): "Identity",  # which onnx does not infer for a free batch
    ("com.microsoft", "BiasGelu"): "Identity",  # ONNX Runtime's offline optimizer writes these, and no shapes
    ("com.microsoft", "FastGelu"): "Identity",
    ("com.microsoft", "FusedConv"): "Conv",
    ("com.microsoft", "FusedGemm"): "Gemm",
    ("com.microsoft", "Gelu"): "Identity",
    ("com.microsoft", "GroupNorm"): "Identity",
    ("com.microsoft", "QuickGelu"): "Identity",
    ("com.microsoft", "SkipGroupNorm"): "Identity",
    ("com.microsoft", "SkipLayerNormalization"): "Identity",
    ("gn_deploy", "GroupNorm"): "Identity",
    ("gn_deploy", "SkipGroupNorm"): "Identity",
    ("trt.plugins", "GroupNorm"): "Identity",
    ("trt.plugins", "SkipGroupNorm"): "Identity",
    ("", "GroupNorm"): "Identity",  # plugins of NVIDIA's
    ("", "GroupNormalizationPlugin"): "Identity",
}
"""Operators that onnx does not see past, and those of ONNX whose first output has the same type and shape."""
_LONG = 1 << 18  # elements; longer than any bias or vocabulary, and at most 12 MB in onnx


def infer_shapes(model: "ir.Model") -> None:
    """Gives values of ``model`` that have no type or shape the one onnx infers; never changes one that is there.

    Does nothing when nothing is missing. A model that onnx cannot infer stays as it is.
    """
    if not any(_lacks(value) for graph in model.graphs() for node in graph for value in node.outputs):
        return
    import onnx
    import onnx_ir as ir

    try:
        with swapped(model, _light):
            proto = ir.to_proto(model)
        _simplify(proto.graph)
        inferred = onnx.shape_inference.infer_shapes(proto, data_prop=not _has_long_vector(model))
    except Exception:  # onnx raises several kinds for models it cannot follow; shapes are a help, not a need
        return
    _fill(model.graph, inferred.graph)


def _simplify(graph: "onnx.GraphProto") -> None:
    """Puts an operator that onnx can infer where it would not see past the one there."""
    for node in graph.node:
        standard = _STANDARD.get(("" if node.domain == "ai.onnx" else node.domain, node.op_type))
        if standard is not None:
            node.domain, node.op_type = "", standard
            del node.output[1:]
        if standard == "Identity":
            del node.input[1:], node.attribute[:]
        for attribute in node.attribute:
            if attribute.type == attribute.GRAPH:
                _simplify(attribute.g)


def _light(tensor: "ir.TensorProtocol") -> "ir.TensorProtocol | None":
    """Large weights are only named; small tensors, which may be shapes, are in memory."""
    import onnx_ir as ir

    if tensor.dtype == ir.DataType.STRING:
        return None
    if tensor.nbytes > INLINE_LIMIT:
        return None if is_external(tensor) else placeholder(tensor, "weights")
    return loaded(tensor)


def _has_long_vector(model: "ir.Model") -> bool:
    """Data propagation takes any vector for a possible shape and makes a dimension object of each element: 50 bytes."""
    tensors = (slot.get() for slot in slots(model))
    return any(len(t.shape) == 1 and t.shape.numpy()[0] > _LONG for t in tensors)


def _lacks(value: "ir.Value") -> bool:
    return bool(value.name) and (value.shape is None or value.type is None)


def _fill(graph: "ir.Graph", proto: "onnx.GraphProto") -> None:
    import onnx_ir as ir

    infos = {info.name: info for info in (*proto.value_info, *proto.output)}
    for node, node_proto in zip(graph, proto.node, strict=True):
        for value in node.outputs:
            if _lacks(value) and value.name in infos:
                found = ir.from_proto(infos[value.name])
                value.type = value.type or found.type
                value.shape = value.shape if value.shape is not None else found.shape
        subgraphs = [a.g for a in node_proto.attribute if a.type == a.GRAPH]
        if subgraphs:
            inner = (a.as_graph() for a in node.attributes.values() if a.type == ir.AttributeType.GRAPH)
            for subgraph, subproto in zip(inner, subgraphs, strict=True):
                _fill(subgraph, subproto)
