"""A whole ONNX model rewritten to compute in float64, so that a float64 evaluator can be its oracle."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx_ir as ir

DTYPE_ATTRIBUTES = {
    "Attention": "softmax_precision",
    "Bernoulli": "dtype",
    "BlackmanWindow": "output_datatype",
    "Cast": "to",
    "DequantizeLinear": "output_dtype",
    "EyeLike": "dtype",
    "GroupNormalization": "stash_type",
    "HammingWindow": "output_datatype",
    "HannWindow": "output_datatype",
    "LayerNormalization": "stash_type",
    "MelWeightMatrix": "output_datatype",
    "RMSNormalization": "stash_type",
    "RandomNormal": "dtype",
    "RandomNormalLike": "dtype",
    "RandomUniform": "dtype",
    "RandomUniformLike": "dtype",
    "SequenceEmpty": "dtype",
}
"""Op -> its attribute that names an element type."""

FLOAT_BY_DEFAULT = {
    "BlackmanWindow",
    "HammingWindow",
    "HannWindow",
    "LayerNormalization",
    "MelWeightMatrix",
    "RMSNormalization",
    "RandomNormal",
    "RandomUniform",
    "SequenceEmpty",
}
"""Ops whose type attribute means float32 when it is absent (the others then follow an input)."""


def promote(model: "ir.Model") -> None:
    """Makes every float32, float16 and bfloat16 of a self-contained, inlined model float64, in place.

    1. Weights, constants and attributes keep the exact values the file holds: nothing is rounded, nothing re-derived,
       so ``epsilon`` stays the float32 number written in the file.
    2. Promoted: inputs, outputs, initializers, Constant and ConstantOfShape values, targets of Cast, ``stash_type``
       and every other attribute that names a type, value annotations; in all subgraphs.
    3. Left alone: integers, booleans, strings, and 8-bit and narrower floats, whose rounding is the model's meaning.
    """
    for graph in model.graphs():
        for value in [*graph.inputs, *graph.initializers.values()]:
            _promote_value(value)
        for node in graph:
            _promote_node(node, model.opset_imports.get("", 1))


def _promote_node(node: "ir.Node", opset: int) -> None:
    import onnx_ir as ir

    for value in node.outputs:
        _promote_value(value)
    if node.domain not in ("", "ai.onnx"):
        return
    name = DTYPE_ATTRIBUTES.get(node.op_type)
    default = node.op_type in FLOAT_BY_DEFAULT or (node.op_type == "GroupNormalization" and opset >= 21)
    if name is not None:
        given = node.attributes.get(name)
        narrow = default if given is None else ir.DataType(given.as_int()) in _narrow()
        if narrow:
            node.attributes[name] = ir.AttrInt64(name, int(ir.DataType.DOUBLE))
    if node.op_type == "ConstantOfShape" and "value" not in node.attributes:
        node.attributes["value"] = ir.AttrTensor("value", ir.tensor(np.zeros(1)))
    for attribute in list(node.attributes.values()):
        if attribute.type == ir.AttributeType.TENSOR:
            node.attributes[attribute.name] = ir.AttrTensor(attribute.name, _promoted(attribute.as_tensor()))
    for short in ("value_float", "value_floats"):
        if node.op_type == "Constant" and short in node.attributes:
            number = np.asarray(node.attributes.pop(short).value, np.float32).astype(np.float64)
            node.attributes["value"] = ir.AttrTensor("value", ir.tensor(number))


def _promote_value(value: "ir.Value") -> None:
    if value.const_value is not None:
        value.const_value = _promoted(value.const_value)
    if value.type is not None:
        value.type = _promoted_type(value.type)


def _promoted_type(kind: "ir.TypeProtocol") -> "ir.TypeProtocol":
    """A new object where something changes: a clone shares its types with the model it was cloned from."""
    import onnx_ir as ir

    if isinstance(kind, (ir.SequenceType, ir.OptionalType)):
        return type(kind)(_promoted_type(kind.elem_type), denotation=kind.denotation)
    assert isinstance(kind, (ir.TensorType, ir.SparseTensorType))
    return type(kind)(ir.DataType.DOUBLE, denotation=kind.denotation) if kind.dtype in _narrow() else kind


def _promoted(tensor: "ir.TensorProtocol") -> "ir.TensorProtocol":
    import onnx_ir as ir

    if tensor.dtype not in _narrow():
        return tensor
    return ir.Tensor(tensor.numpy().astype(np.float64), name=tensor.name)


def _narrow() -> "tuple[ir.DataType, ...]":
    import onnx_ir as ir

    return (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
