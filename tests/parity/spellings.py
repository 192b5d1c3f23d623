"""Small ONNX models of one GroupNorm in every spelling, right and wrong, alone or inside a network."""

from collections.abc import Callable, Sequence

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from gn_deploy.graph.normalize import normalize

CHANNELS, GROUPS = 8, 4
RNG = np.random.default_rng(7)
SCALE = RNG.standard_normal(CHANNELS).astype(np.float32)
BIAS = RNG.standard_normal(CHANNELS).astype(np.float32)

Spelling = Callable[["Graph", str, str], None]


class Graph:
    """Nodes and initializers of a model in the making."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def constant(self, array: np.ndarray | Sequence[int]) -> str:
        name = f"c{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def add(self, op: str, inputs: Sequence[str], output: str = "", **attributes: object) -> str:
        output = output or f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [output], name=f"n_{output}", **attributes))
        return output

    def affine(self, z: str, output: str, scale: np.ndarray = SCALE, bias: np.ndarray = BIAS) -> None:
        scaled = self.add("Mul", [z, self.constant(scale.reshape(-1, 1, 1))])
        self.add("Add", [scaled, self.constant(bias.reshape(-1, 1, 1))], output)


def native(groups: int = GROUPS, epsilon: float = 1e-5, scale: np.ndarray = SCALE, bias: np.ndarray = BIAS) -> Spelling:
    def write(g: Graph, x: str, y: str) -> None:
        inputs = [x, g.constant(scale), g.constant(bias)]
        g.add("GroupNormalization", inputs, y, num_groups=groups, epsilon=epsilon)

    return write


def instance_norm(epsilon: float = 1e-5) -> Spelling:
    def write(g: Graph, x: str, y: str) -> None:
        flat = g.add("Reshape", [x, g.constant(np.array([0, GROUPS, -1]))])
        ones, zeros = g.constant(np.ones(GROUPS, np.float32)), g.constant(np.zeros(GROUPS, np.float32))
        z = g.add("InstanceNormalization", [flat, ones, zeros], epsilon=epsilon)
        g.affine(g.add("Reshape", [z, g.add("Shape", [x])]), y)

    return write


def layer_norm(g: Graph, x: str, y: str) -> None:
    flat = g.add("Reshape", [x, g.constant(np.array([0, GROUPS, -1]))])
    # 6 x 6 pixels, two channels per group
    z = g.add("LayerNormalization", [flat, g.constant(np.ones(72, np.float32))], axis=-1, epsilon=1e-5)
    g.affine(g.add("Reshape", [z, g.add("Shape", [x])]), y)


def primitives(*, one_pass: bool = False, unbiased: bool = False) -> Spelling:
    def write(g: Graph, x: str, y: str) -> None:
        flat = g.add("Reshape", [x, g.constant(np.array([0, GROUPS, -1]))])
        axes = g.constant(np.array([2]))
        mean = g.add("ReduceMean", [flat, axes], keepdims=1)
        centred = g.add("Sub", [flat, mean])
        if one_pass:
            second = g.add("ReduceMean", [g.add("Mul", [flat, flat]), axes], keepdims=1)
            var = g.add("Sub", [second, g.add("Mul", [mean, mean])])
        else:
            var = g.add("ReduceMean", [g.add("Mul", [centred, centred]), axes], keepdims=1)
        if unbiased:
            var = g.add("Mul", [var, g.constant(np.float32(72 / 71))])
        root = g.add("Sqrt", [g.add("Add", [var, g.constant(np.float32(1e-5))])])
        z = g.add("Div", [centred, root])
        g.affine(g.add("Reshape", [z, g.add("Shape", [x])]), y)

    return write


def permuted(g: Graph, x: str, y: str) -> None:
    """Groups of channels c, c + G, ... instead of consecutive ones."""
    order = np.arange(CHANNELS).reshape(-1, GROUPS).T.ravel()
    shuffled = g.add("Gather", [x, g.constant(order)], axis=1)
    native(scale=SCALE[order], bias=BIAS[order])(g, shuffled, "shuffled_norm")
    g.add("Gather", ["shuffled_norm", g.constant(np.argsort(order))], y, axis=1)


RIGHT: dict[str, Spelling] = {
    "native": native(),
    "instance norm": instance_norm(),
    "layer norm": layer_norm,
    "two-pass primitives": primitives(),
}
WRONG: dict[str, Spelling] = {
    "epsilon 1e-3": native(epsilon=1e-3),
    "epsilon 1e-6": instance_norm(epsilon=1e-6),
    "half the groups": native(GROUPS // 2),
    "per channel": native(CHANNELS),
    "permuted groups": permuted,
    "unbiased variance": primitives(unbiased=True),
    "bias dropped": native(bias=np.zeros_like(BIAS)),
    "affine one channel off": native(scale=np.roll(SCALE, 1), bias=np.roll(BIAS, 1)),
}
ONE_PASS = primitives(one_pass=True)


def alone(
    spelling: Spelling, *, shape: Sequence[int | str] = ("N", CHANNELS, 6, 6), names: Sequence[str] = "xy"
) -> ir.Model:
    g = Graph()
    spelling(g, names[0], names[1])
    return _model(g, names[0], list(shape), names[1], list(shape))


def network(spelling: Spelling, *, activation: str = "Relu", prefix: str = "") -> ir.Model:
    """Conv, GroupNorm, activation, Conv, GroupNorm, pooling: 3 x 6 x 6 in, 8 numbers out."""
    g = Graph()
    rng = np.random.default_rng(11)
    w1 = rng.standard_normal((CHANNELS, 3, 3, 3)).astype(np.float32) / 5
    w2 = rng.standard_normal((CHANNELS, CHANNELS, 3, 3)).astype(np.float32) / 9
    first = g.add("Conv", ["x", g.constant(w1)], f"{prefix}conv1", pads=[1, 1, 1, 1])
    spelling(g, first, f"{prefix}norm1")
    active = g.add(activation, [f"{prefix}norm1"], f"{prefix}act1")
    second = g.add("Conv", [active, g.constant(w2)], f"{prefix}conv2", pads=[1, 1, 1, 1])
    if spelling is permuted:
        native()(g, second, f"{prefix}norm2")
    else:
        spelling(g, second, f"{prefix}norm2")
    g.add("GlobalAveragePool", [f"{prefix}norm2"], "y")
    inner = [f"{prefix}{name}" for name in ("norm1", "act1", "conv2", "norm2")]
    return _model(g, "x", ["N", 3, 6, 6], "y", ["N", CHANNELS, 1, 1], inner)


def _model(
    g: Graph, x: str, shape: list[int | str], y: str, out: list[int | str], inner: Sequence[str] = ()
) -> ir.Model:
    """``inner`` are values of shape (N, C, 6, 6): onnx infers nothing through GroupNormalization."""
    graph = helper.make_graph(
        g.nodes,
        "g",
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(y, TensorProto.FLOAT, out)],
        g.initializers,
        value_info=[helper.make_tensor_value_info(v, TensorProto.FLOAT, ["N", CHANNELS, 6, 6]) for v in inner],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(proto)
    return normalize(ir.from_proto(proto))


def with_dynamic_scale(m: ir.Model, wrong: bool = False) -> ir.Model:
    """The first GroupNorm's scale and bias become inputs; ``wrong`` exchanges them."""
    node = next(n for n in m.graph if n.op_type == "GroupNormalization")
    for i, name in ((1, "w"), (2, "b")):
        value = ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([CHANNELS]))
        m.graph.inputs.append(value)
        node.replace_input_with(3 - i if wrong else i, value)
    return m
