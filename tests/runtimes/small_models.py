"""Tiny ONNX models made by hand, and the float64 formula that every runtime is compared with."""

from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[Any]
ELEMENT = {
    "float32": (TensorProto.FLOAT, np.float32),
    "float16": (TensorProto.FLOAT16, np.float16),
    "bfloat16": (TensorProto.BFLOAT16, ml_dtypes.bfloat16),
    "float64": (TensorProto.DOUBLE, np.float64),
}


def formula(x: Array, groups: int, scale: Array, bias: Array, epsilon: float = 1e-5) -> NDArray[np.float64]:
    """Group Normalization of (N, C, ...), two passes in float64; epsilon as the float32 that an ONNX file holds."""
    wide = x.astype(np.float64)
    grouped = wide.reshape(x.shape[0], groups, -1)
    centred = grouped - grouped.mean(2, keepdims=True)
    normalized = centred / np.sqrt((centred**2).mean(2, keepdims=True) + np.float64(np.float32(epsilon)))
    shape = (1, -1, *[1] * (x.ndim - 2))
    return normalized.reshape(x.shape) * scale.astype(np.float64).reshape(shape) + bias.astype(np.float64).reshape(
        shape
    )


def model_of(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, tuple[int, Sequence[int | str]]],
    outputs: Mapping[str, int],
    weights: Mapping[str, Array] | None = None,
    opset: int = 21,
    functions: Sequence[onnx.FunctionProto] = (),
) -> ir.Model:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    imports = [helper.make_opsetid("", opset)] + [helper.make_opsetid(f.domain, 1) for f in functions]
    return ir.from_proto(helper.make_model(graph, opset_imports=imports, ir_version=10, functions=functions))


def group_norm(
    opset: int = 21,
    dtype: str = "float32",
    channels: int = 8,
    groups: int = 2,
    shape: Sequence[int | str] = ("N", 8, "H", "W"),
    silu: bool = False,
    **attributes: Any,
) -> tuple[ir.Model, Array, Array]:
    """A GroupNormalization "gn" from x to y, SiLU after it if asked; with its scale and bias, one per channel."""
    kind, numpy = ELEMENT[dtype]
    count = channels if opset >= 21 else groups
    scale, bias = np.linspace(0.5, 1.5, count).astype(numpy), np.linspace(-0.3, 0.4, count).astype(numpy)
    attributes = {"num_groups": groups, "epsilon": 1e-5} | attributes
    nodes = [helper.make_node("GroupNormalization", ["x", "w", "b"], ["g" if silu else "y"], "gn", **attributes)]
    if silu:
        nodes += [
            helper.make_node("Sigmoid", ["g"], ["s"], "sigmoid"),
            helper.make_node("Mul", ["g", "s"], ["y"], "product"),
        ]
    model = model_of(nodes, {"x": (kind, shape)}, {"y": kind}, {"w": scale, "b": bias}, opset)
    if opset < 21:
        scale, bias = np.repeat(scale, channels // groups), np.repeat(bias, channels // groups)
    return model, scale, bias


def instance_norm(
    channels: int = 8, groups: int = 2, dtype: str = "float32", opset: int = 20
) -> tuple[ir.Model, Array, Array]:
    """What torch.onnx.export writes below opset 21: Reshape, InstanceNormalization, Reshape, Mul, Add."""
    kind, numpy = ELEMENT[dtype]
    scale, bias = np.linspace(0.5, 1.5, channels).astype(numpy), np.linspace(-0.3, 0.4, channels).astype(numpy)
    nodes = [
        helper.make_node("Reshape", ["x", "grouped"], ["x3"]),
        helper.make_node("InstanceNormalization", ["x3", "ones", "zeros"], ["n3"], epsilon=1e-5),
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Reshape", ["n3", "shape"], ["n"]),
        helper.make_node("Mul", ["n", "w"], ["scaled"]),
        helper.make_node("Add", ["scaled", "b"], ["y"]),
    ]
    weights = {
        "grouped": np.array([0, groups, -1]),
        "ones": np.ones(groups, numpy),
        "zeros": np.zeros(groups, numpy),
        "w": scale.reshape(-1, 1, 1),
        "b": bias.reshape(-1, 1, 1),
    }
    return model_of(nodes, {"x": (kind, ("N", channels, "H", "W"))}, {"y": kind}, weights, opset), scale, bias


def layer_norm(channels: int = 8, dtype: str = "float32", **attributes: Any) -> tuple[ir.Model, Array, Array]:
    """num_groups = 1 written as LayerNormalization(axis=1) with scale and bias (C, 1, 1)."""
    kind, numpy = ELEMENT[dtype]
    scale, bias = np.linspace(0.5, 1.5, channels).astype(numpy), np.linspace(-0.3, 0.4, channels).astype(numpy)
    node = helper.make_node("LayerNormalization", ["x", "w", "b"], ["y"], "ln", axis=1, **attributes)
    weights = {"w": scale.reshape(-1, 1, 1), "b": bias.reshape(-1, 1, 1)}
    return model_of([node], {"x": (kind, (2, channels, 32, 32))}, {"y": kind}, weights), scale, bias


def sample(shape: Sequence[int], dtype: str = "float32", mean: float = 0.0, std: float = 1.0) -> Array:
    """Normal data, rounded to dtype."""
    return (np.random.default_rng(0).standard_normal(tuple(shape)) * std + mean).astype(ELEMENT[dtype][1])


def relative_error(actual: Array, expected: NDArray[np.float64]) -> float:
    """Largest error over the largest expected value."""
    return float(np.abs(actual.astype(np.float64) - expected).max() / np.abs(expected).max())
