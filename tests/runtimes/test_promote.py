"""Promotion to float64: nothing narrow is left, nothing whole is touched, whole networks agree with torch in double."""

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from gn_deploy.runtimes import RUNTIMES
from gn_deploy.runtimes.promote import promote
from gn_deploy.runtimes.torch_eager import TorchModel
from tests.runtimes.small_models import model_of, relative_error, sample

REFERENCE, TORCH = RUNTIMES.require("onnx-reference"), RUNTIMES.require("torch")


def test_every_way_a_float_type_is_written() -> None:
    half = helper.make_tensor("h", TensorProto.FLOAT16, [2], [1.0, 2.0])
    then = helper.make_graph(
        [helper.make_node("Constant", [], ["t"], value_floats=[0.1, 0.2])],
        "then",
        [],
        [helper.make_tensor_value_info("t", TensorProto.FLOAT, [2])],
    )
    other = helper.make_graph(
        [helper.make_node("ConstantOfShape", ["two"], ["e"])],
        "else",
        [],
        [helper.make_tensor_value_info("e", TensorProto.FLOAT, [2])],
    )
    nodes = [
        helper.make_node("Constant", [], ["h"], value=half),
        helper.make_node("Constant", [], ["f"], value_float=0.1),
        helper.make_node("Cast", ["h"], ["c"], to=TensorProto.BFLOAT16),
        helper.make_node("CastLike", ["c", "x"], ["l"]),
        helper.make_node("Cast", ["x"], ["i"], to=TensorProto.INT64),
        helper.make_node("Cast", ["i"], ["k"], to=TensorProto.FLOAT),
        helper.make_node("If", ["yes"], ["r"], then_branch=then, else_branch=other),
        helper.make_node("Sum", ["x", "l", "f", "k", "r"], ["y"]),
    ]
    inputs = {"x": (TensorProto.FLOAT, (2,)), "yes": (TensorProto.BOOL, ())}
    model = model_of(nodes, inputs, {"y": TensorProto.FLOAT, "i": TensorProto.INT64}, {"two": np.array([2])})
    x = np.array([1.25, -3.5], np.float32)
    for yes in (True, False):
        out = REFERENCE.open(model, precision="float64").run({"x": x, "yes": np.array(yes)})
        chosen = np.array([0.1, 0.2], np.float32) if yes else np.zeros(2)
        exact = np.array([1.0, 2.0]) + x + np.float64(np.float32(0.1)) + np.trunc(x) + chosen.astype(np.float64)
        np.testing.assert_allclose(out["y"], exact, rtol=1e-15)  # four float64 additions
        assert out["i"].dtype == np.int64
    narrow = {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16}
    assert model.graph.inputs[0].dtype is ir.DataType.FLOAT, "the model given was changed"
    promote(model)
    assert not narrow & {v.dtype for node in model.graph.all_nodes() for v in node.outputs}


def test_eight_bit_floats_and_integers_keep_their_rounding() -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["q"], to=TensorProto.FLOAT8E4M3FN),
        helper.make_node("Cast", ["q"], ["y"], to=TensorProto.FLOAT),
    ]
    model = model_of(nodes, {"x": (TensorProto.FLOAT, (2,))}, {"y": TensorProto.FLOAT})
    y = REFERENCE.open(model, precision="float64").run({"x": np.array([1.06, 300.0], np.float32)})["y"]
    np.testing.assert_array_equal(y, [1.0, 288.0])  # the nearest 4-bit significands


@pytest.fixture(scope="module")
def network():
    import torch
    from torch import nn
    from torch.nn import functional as fn

    activations = [fn.silu, fn.mish, fn.gelu, fn.hardswish, fn.elu, fn.softplus, fn.relu6, torch.erf, torch.tanh]

    class Network(nn.Module):
        """Convolutions of all kinds, three norms, pooling, resizing, attention, and every usual activation.

        The head size is 16 and every constant a power of two, so that the exporter writes none of them rounded.
        """

        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 16, 3, padding=1)
            self.group = nn.GroupNorm(4, 16)
            self.down = nn.Conv2d(16, 16, 3, stride=2, padding=2, dilation=2, groups=4)
            self.up = nn.ConvTranspose2d(16, 16, 4, stride=2, padding=1)
            self.instance = nn.InstanceNorm2d(16, affine=True)
            self.layer = nn.LayerNorm(16)
            self.attention = nn.MultiheadAttention(16, 1, batch_first=True)
            self.head = nn.Linear(16, 10)

        def forward(self, x):
            x = self.group(self.stem(x))
            x = sum(activation(x) for activation in activations)
            x = x + self.instance(self.up(self.down(x)))
            x = fn.max_pool2d(x, 3, 2, 1) + fn.avg_pool2d(x, 3, 2, 1)
            x = fn.interpolate(x, scale_factor=2, mode="nearest")
            tokens = self.layer(fn.interpolate(x, scale_factor=1.5, mode="bilinear").flatten(2).transpose(1, 2))
            tokens = tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0]
            return self.head(fn.softmax(tokens, -1).mean(1))

    torch.manual_seed(0)
    module = Network().eval()
    for part in module.modules():
        if hasattr(part, "eps"):
            part.eps = float(np.float32(part.eps))  # the number that the ONNX file will hold
    return module


@pytest.mark.filterwarnings("ignore")
def test_whole_network_agrees_with_torch_in_double(network) -> None:
    import torch

    x = sample((1, 3, 16, 16))
    names = {"input_names": ["x"], "output_names": ["y"]}
    program = torch.onnx.export(network, (torch.from_numpy(x),), dynamo=True, opset_version=21, verbose=False, **names)
    oracle = REFERENCE.open(program.model, precision="float64").run({"x": x})["y"]
    double = TORCH.open(TorchModel(network, ("x",), ("y",)), precision="float64").run({"x": x})["y"]
    assert relative_error(oracle, double) < 1e-13  # some hundred float64 roundings; float32 on the way would give 1e-8
