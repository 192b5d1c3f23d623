"""A small network whose Pad and MaxPool a runtime may fuse wrongly, and runtimes that do something wrong on purpose."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from gn_deploy.graph.normalize import normalize
from gn_deploy.parity.cases import Case, input_specs, model_cases
from gn_deploy.runtimes.onnx_reference import ONNX_REFERENCE, OnnxReferenceSession

Change = Callable[[dict[str, np.ndarray], list[onnx.NodeProto]], None]


def network(change: Change | None = None, channels: int = 8, opset: int = 20, pool: str = "MaxPool") -> onnx.ModelProto:
    """conv, norm (as torch writes it), silu, pad, pool, conv, norm, relu, residual, mean, classifier."""
    rng = np.random.default_rng(1)
    weights: dict[str, np.ndarray] = {
        "w1": rng.standard_normal((channels, 3, 3, 3)).astype(np.float32) / 5,
        "w2": rng.standard_normal((channels, channels, 3, 3)).astype(np.float32) / 8,
        "fc": rng.standard_normal((channels, 10)).astype(np.float32),
        "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
        "axes": np.array([2, 3]),
    }
    nodes: list[onnx.NodeProto] = []

    def add(op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op, inputs, [output], name=f"n_{output}", **attributes))
        return output

    def norm(x: str, y: str) -> str:
        weights[f"{y}_groups"] = np.array([0, 4, -1])
        weights[f"{y}_one"], weights[f"{y}_zero"] = np.ones(4, np.float32), np.zeros(4, np.float32)
        weights[f"{y}_scale"] = rng.uniform(0.5, 1.5, (channels, 1, 1)).astype(np.float32)
        weights[f"{y}_bias"] = rng.uniform(-1, 0, (channels, 1, 1)).astype(np.float32)
        flat = add("Reshape", [x, f"{y}_groups"], f"{y}_flat")
        z = add("InstanceNormalization", [flat, f"{y}_one", f"{y}_zero"], f"{y}_z", epsilon=1e-5)
        back = add("Reshape", [z, add("Shape", [x], f"{y}_shape")], f"{y}_back")
        return add("Add", [add("Mul", [back, f"{y}_scale"], f"{y}_scaled"), f"{y}_bias"], y)

    h = norm(add("Conv", ["x", "w1"], "conv1", pads=[1] * 4), "norm1")
    h = add("Mul", [h, add("Sigmoid", [h], "gate")], "silu")
    h = add("Neg", [add("Abs", [h], "size")], "below")
    more = {"count_include_pad": 1} if pool == "AveragePool" else {}
    h = add(
        pool, [add("Pad", [h, "pads"], "padded")], "pooled", kernel_shape=[3, 3], strides=[2, 2], pads=[0] * 4, **more
    )
    g = add("Relu", [norm(add("Conv", [h, "w2"], "conv2", pads=[1] * 4), "norm2")], "relu")
    h = add("Add", [g, h], "sum")
    add("MatMul", [add("ReduceMean", [h, "axes"], "mean", keepdims=0), "fc"], "y")
    if change is not None:
        change(weights, nodes)
    shape: list[int | str] = ["n", 3, 16, 16]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 10])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def model(change: Change | None = None, **options: Any) -> ir.Model:
    return normalize(ir.from_proto(network(change, **options)))


@dataclass(frozen=True)
class Fusing:
    """onnx.reference, but a Pad that is read by nothing but a MaxPool becomes the MaxPool's own padding, as ONNX
    Runtime's Pad_Fusion did up to 1.31: unless told not to."""

    name = "fusing"

    def open(
        self, model: ir.Model, *, optimization: str = "all", disabled_optimizers: tuple[str, ...] = (), **_: Any
    ) -> "Counted":
        clone = model.clone()
        if optimization != "none" and "Pad_Fusion" not in disabled_optimizers:
            for pool in [n for n in clone.graph if n.op_type == "MaxPool"]:
                pad = pool.inputs[0].producer() if pool.inputs[0] is not None else None
                if pad is None or pad.op_type != "Pad" or pad.outputs[0].is_graph_output():
                    continue
                pads = [int(p) for p in pad.inputs[1].const_value.numpy()]  # type: ignore[union-attr]
                pool.attributes["pads"] = ir.AttrInt64s("pads", [*pads[2:4], *pads[6:8]])
                pool.replace_input_with(0, pad.inputs[0])
                clone.graph.remove(pad, safe=True)
        return Counted(ONNX_REFERENCE.open(clone), model)


OUTPUTS: list[int] = []
"""Number of outputs of every model that Counted opened."""


class Counted:
    def __init__(self, session: OnnxReferenceSession, model: ir.Model) -> None:
        self._session = session
        self.runtime, self.precision = "fusing", session.precision
        OUTPUTS.append(len(model.graph.outputs))

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return self._session.run(feeds)

    def close(self) -> None:
        self._session.close()


@dataclass(frozen=True)
class Rounding:
    """onnx.reference, but the results of ``op`` are rounded to ``dtype``."""

    op: str
    dtype: str
    name = "rounding"

    def open(self, model: ir.Model, **_: Any) -> OnnxReferenceSession:
        clone = model.clone()
        kind = ir.DataType.from_numpy(np.dtype(self.dtype))
        for node in [n for n in clone.graph if n.op_type == self.op]:
            old = node.outputs[0]
            down = ir.node("Cast", [old], {"to": kind})
            up = ir.node("Cast", [down.outputs[0]], {"to": ir.DataType.FLOAT})
            name = old.name
            old.replace_all_uses_with(up.outputs[0], replace_graph_outputs=True)
            down.replace_input_with(0, old)
            clone.graph.insert_after(node, [down, up])
            old.name, up.outputs[0].name = f"{name}_unrounded", name
        return ONNX_REFERENCE.open(clone)


def normal(what: ir.Model) -> list[Case]:
    """One case, which says enough where what is wrong is wrong everywhere."""
    return [case for case in model_cases(input_specs(what)) if case.name == "normal"]
