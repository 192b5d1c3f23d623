"""Large synthetic graphs with Group Normalization in mixed spellings, as exporters write them, between other work."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CHANNELS, GROUPS = 32, 8
IMAGE: tuple[int | str, ...] = ("N", CHANNELS, 16, 16)
ROWS: tuple[int | str, ...] = ("N", GROUPS, CHANNELS // GROUPS * 256)
SPELLINGS = ("instance_dynamic", "instance_static", "native", "layer_norm", "primitives")
FORM = {
    "instance_dynamic": "instance_norm",
    "instance_static": "instance_norm",
    "native": "native",
    "layer_norm": "layer_norm",
    "primitives": "primitives",
}
"""Spelling -> the form that must be found."""
TRACE = 'File "/home/me/model/unet.py", line {line}, in forward\n    h = self.norm(h)\n' * 3


class Writer:
    """Collects nodes, the shapes of their outputs, and shared constants."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.shapes: list[onnx.ValueInfoProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def op(self, op_type: str, inputs: Sequence[str], shape: Sequence[int | str] = IMAGE, **attributes: object) -> str:
        name = f"n{len(self.nodes)}"
        node = helper.make_node(op_type, inputs, [f"{name}_out"], name=name, **attributes)
        node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=f"['', 'block', 'block.{name}', '{name}']")
        node.metadata_props.add(key="pkg.torch.onnx.stack_trace", value=TRACE.format(line=len(self.nodes)))
        self.nodes.append(node)
        dtype = TensorProto.INT64 if op_type == "Shape" else TensorProto.FLOAT
        self.shapes.append(helper.make_tensor_value_info(node.output[0], dtype, shape))
        return f"{name}_out"

    def constant(self, name: str, values: object, dtype: type = np.float32) -> str:
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.asarray(values, dtype), name)
        return name

    def affine(self, shape: Sequence[int], suffix: str) -> tuple[str, str]:
        numbers = np.arange(CHANNELS, dtype=np.float32).reshape(shape)
        return self.constant(f"scale{suffix}", 1 + numbers / 64), self.constant(f"bias{suffix}", numbers / 32)

    def norm(self, x: str, spelling: str) -> str:
        """GroupNorm of ``x`` (N, 32, 16, 16), written in one of SPELLINGS; returns the output's name."""
        grouped = self.constant("to_groups", [0, GROUPS, -1], np.int64)
        if spelling == "native":
            inputs = [x, *self.affine((CHANNELS,), "")]
            return self.op("GroupNormalization", inputs, num_groups=GROUPS, epsilon=1e-5)
        rows = self.op("Reshape", [x, grouped], ROWS)
        if spelling == "primitives":
            y = self._primitives(rows)
        elif spelling == "layer_norm":
            size = CHANNELS // GROUPS * 256
            one, zero = self.constant("ln_one", np.ones(size)), self.constant("ln_zero", np.zeros(size))
            y = self.op("LayerNormalization", [rows, one, zero], ROWS, axis=-1, epsilon=1e-5)
        else:
            one, zero = self.constant("one", np.ones(GROUPS)), self.constant("zero", np.zeros(GROUPS))
            y = self.op("InstanceNormalization", [rows, one, zero], ROWS, epsilon=1e-5)
        if spelling == "instance_dynamic":
            back = self.op("Shape", [x], (4,))
        else:
            back = self.constant("back", [-1, CHANNELS, 16, 16], np.int64)
        scale, bias = self.affine((CHANNELS, 1, 1), "_spatial")
        return self.op("Add", [self.op("Mul", [self.op("Reshape", [y, back]), scale]), bias])

    def _primitives(self, x: str) -> str:
        axes, one = self.constant("last", [-1], np.int64), (*ROWS[:2], 1)
        centred = self.op("Sub", [x, self.op("ReduceMean", [x, axes], one, keepdims=1)], ROWS)
        variance = self.op("ReduceMean", [self.op("Mul", [centred, centred], ROWS), axes], one, keepdims=1)
        deviation = self.op("Sqrt", [self.op("Add", [variance, self.constant("eps", 1e-5)], one)], one)
        return self.op("Div", [centred, deviation], ROWS)

    def filler(self, x: str, skip: str, step: int) -> str:
        """One node of other work; Mul, Add and Reshape look tempting to a matcher."""
        match step % 8:
            case 0:
                return self.op("Conv", [x, self.constant("kernel", np.eye(CHANNELS).reshape(32, 32, 1, 1))])
            case 1:
                return self.op("Sigmoid", [x])
            case 2 | 6:
                return self.op("Mul", [x, skip])
            case 3:
                return self.op("Add", [x, skip])
            case 4:
                return self.op("Reshape", [x, self.constant("back", [-1, CHANNELS, 16, 16], np.int64)])
            case 5:
                return self.op("Mul", [x, self.affine((CHANNELS, 1, 1), "_spatial")[0]])
            case _:
                return self.op("Add", [x, self.affine((CHANNELS, 1, 1), "_spatial")[1]])


def synthetic(nodes: int = 20_000, sites: int = 500) -> onnx.ModelProto:
    """About ``nodes`` nodes, exactly ``sites`` sites, spellings in turn, with shapes and notes as torch writes them."""
    writer = Writer()
    x = "x"
    for site in range(sites):
        skip = x = writer.norm(x, SPELLINGS[site % len(SPELLINGS)])
        step = 0
        while len(writer.nodes) < nodes * (site + 1) // sites:
            x = writer.filler(x, skip, step)
            step += 1
    return finished(writer, x)


def finished(writer: Writer, output: str) -> onnx.ModelProto:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, IMAGE) for name in ("x", output))
    shapes = [info for info in writer.shapes if info.name != output]
    constants = list(writer.constants.values())
    graph = helper.make_graph(writer.nodes, "synthetic", [x], [y], constants, value_info=shapes)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def heavy(path: Path, gigabytes: float, sites: int = 10) -> None:
    """A model with ``sites`` sites and that much weight in ``path``.data, a sparse file that takes no disk."""
    writer = Writer()
    x = "x"
    weight = 64 << 20  # bytes each
    count = max(1, round(gigabytes * 2**30 / weight))
    for site in range(sites):
        x = writer.op("Sigmoid", [writer.norm(x, SPELLINGS[site % len(SPELLINGS)])])
    proto = finished(writer, x)
    for number in range(count):
        tensor = proto.graph.initializer.add(name=f"w{number}", data_type=TensorProto.FLOAT, dims=[4096, 4096])
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", f"{path.name}.data"), ("offset", number * weight), ("length", weight)):
            tensor.external_data.add(key=key, value=str(value))
        result = proto.graph.output.add()
        result.CopyFrom(helper.make_tensor_value_info(f"t{number}", TensorProto.FLOAT, [4096, 4096]))
        proto.graph.node.append(helper.make_node("Transpose", [f"w{number}"], [f"t{number}"]))
    with open(f"{path}.data", "wb") as file:
        file.truncate(count * weight)
    path.write_bytes(proto.SerializeToString())
