"""Every spelling of an activation is one, nothing that only looks like one is, and what is written is found again."""

import warnings
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from gn_deploy.around.activation import activation_after, write_activation
from gn_deploy.graph.facts import Facts
from gn_deploy.graph.splice import Builder, Names, splice
from gn_deploy.reference import activate
from gn_deploy.rounding import FORMATS
from gn_deploy.runtimes import RUNTIMES
from gn_deploy.spec import Activation
from tests.around.spellings import RIGHT, WRONG, model

GOLDEN = Path(__file__).parent.parent / "golden" / "exporters"
ACTIVATIONS = [activation for activation in Activation if activation is not Activation.NONE]


def after(model: ir.Model, name: str = "y") -> tuple[Activation, tuple[ir.Node, ...]] | None:
    values = {v.name: v for v in (*model.graph.inputs, *(v for n in model.graph for v in n.outputs))}
    return activation_after(values[name], Facts(model.opset_imports[""], model.graph.inputs))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
@pytest.mark.parametrize("name", RIGHT)
def test_every_spelling(name: str, dtype: str) -> None:
    activation, body = RIGHT[name]
    written = model(body, dtype)
    found = after(written)
    assert found is not None
    assert found[0] is activation
    assert {n.name or n.outputs[0].name for n in found[1]} == {n.name or n.outputs[0].name for n in written.graph}
    assert found[1][-1].outputs[0] is written.graph.outputs[0]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
@pytest.mark.parametrize("name", WRONG)
def test_lookalikes(name: str, dtype: str) -> None:
    assert after(model(WRONG[name], dtype)) is None


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
def test_a_constant_is_what_was_rounded_to_its_type(dtype: str) -> None:
    """1.41421 is the root of two to a half, where both are one number, and to nobody else."""
    body = "t = Div(y, bert) e = Erf(t) a = Add(e, one) m = Mul(y, a) z = Mul(m, half)"
    assert (after(model(body, dtype)) is not None) is (dtype in ("float16", "bfloat16"))


@pytest.mark.parametrize("name", RIGHT)
@pytest.mark.parametrize("rest", ["out = Neg(y)", "out = Neg(VALUE)", "out = Mul(VALUE, other)"])
def test_not_where_somebody_else_reads(name: str, rest: str) -> None:
    body = RIGHT[name][1]
    for value in {part.split(" = ")[0] for part in body.split(") ")} - {"z"} or {"y"}:
        assert after(model(body, rest=rest.replace("VALUE", value))) is None, value


@pytest.mark.parametrize(("attributes", "right"), [("", True), ("<alpha = 1.0>", True), ("<alpha = 1.702>", False)])
def test_swish(attributes: str, right: bool) -> None:
    assert (after(model(f"z = Swish{attributes}(y)", opset=24)) is not None) is right


def test_not_where_the_value_on_the_way_is_an_output() -> None:
    written = model("g = Sigmoid(y) z = Mul(y, g)")
    written.graph.outputs.append(written.graph[0].outputs[0])
    assert after(written) is None


def test_what_follows_does_not_matter() -> None:
    body = RIGHT["TorchScript gelu"][1].replace("z = ", "w = ")
    found = after(model(body + " z = Mul(w, other) a2 = Relu(w)"))
    assert found is not None
    assert found[1][-1].outputs[0].name == "w"


@pytest.mark.parametrize(
    "body",
    [
        "g = Sigmoid(other) z = Mul(y, g)",
        "a = Add(y, other) g = Sigmoid(a) z = Mul(y, g)",
        "g = Sigmoid(y) z = Mul(other, g)",
        "w = ReduceMean<keepdims = 1>(y) g = Sigmoid(w) z = Mul(y, g)",
    ],
)
def test_a_gate_of_another_value(body: str) -> None:
    assert after(model(body, opset=18)) is None


@pytest.mark.parametrize(("to", "back", "right"), [(1, 10, True), (11, 10, True), (16, 10, False), (1, 1, False)])
def test_casts_may_widen_and_must_return(to: int, back: int, right: bool) -> None:
    body = f"a = Cast<to = {to}>(y) g = Sigmoid(a) m = Mul(a, g) z = Cast<to = {back}>(m)"
    assert (after(model(body, "float16")) is not None) is right


def test_constants_that_enlarge_the_value_are_no_numbers() -> None:
    for shape, right in [((), True), ((1, 1, 1), True), ((4, 1), True), ((1, 1, 1, 1), False), ((5, 1, 1), False)]:
        written = model("z = Max(y, zero)")
        zero = written.graph.initializers["zero"]
        zero.const_value = ir.tensor(np.zeros(shape, np.float32), name="zero")
        zero.shape = ir.Shape(shape)
        assert (after(written) is not None) is right, shape


def test_odd_nodes_are_no_activation() -> None:
    for body in (
        "z = other.Cast(y)",
        "b = Cast<to = 9>(y) z = Cast<to = 1>(b)",
        "b = Greater(y, other) z = Where(b, y, other)",
        "f = Constant<value = bool {1}>() z = Where(f, y, y)",
        "z = Div(y, zero)",
        "z = Pow(y, half)",
        "z = Max(y, y)",
    ):
        assert after(model(body)) is None, body


def test_golden_exports() -> None:
    for name, value, activation in [
        ("ts13__hardswish", "/n/Add_output_0", Activation.HARDSWISH),
        ("dyn18__hardswish", "group_norm", Activation.HARDSWISH),
        ("ts17__gelu", "/n/Add_output_0", Activation.GELU),
        ("dyn20__gelu", "group_norm", Activation.GELU),
        ("ts17__relu", "/n/Add_output_0", Activation.RELU),
        ("dyn18__silu", "group_norm", Activation.SILU),
    ]:
        found = after(ir.load(GOLDEN / f"{name}.onnx"), value)
        assert found is not None, name
        assert found[0] is activation


TORCH: list[tuple[Activation, Callable[[torch.Tensor], torch.Tensor]]] = [
    (Activation.RELU, functional.relu),
    (Activation.RELU, lambda y: y.clamp(min=0)),
    (Activation.SILU, functional.silu),
    (Activation.SILU, lambda y: torch.sigmoid(y) * y),
    (Activation.HARDSWISH, functional.hardswish),
    (Activation.HARDSWISH, lambda y: y * functional.relu6(y + 3) / 6),
    (Activation.HARDSWISH, lambda y: y * functional.hardsigmoid(y)),
    (Activation.GELU, functional.gelu),
    (Activation.GELU_TANH, lambda y: functional.gelu(y, approximate="tanh")),
    (Activation.GELU_TANH, lambda y: 0.5 * y * (1 + torch.tanh(0.7978845608 * (y + 0.044715 * torch.pow(y, 3))))),
    (Activation.MISH, functional.mish),
    (Activation.MISH, lambda y: y * torch.tanh(functional.softplus(y))),
    (Activation.NONE, functional.leaky_relu),
    (Activation.NONE, functional.elu),
    (Activation.NONE, lambda y: y * torch.sigmoid(1.702 * y)),
    (Activation.NONE, functional.softsign),
]


class Every(torch.nn.Module):
    def forward(self, *inputs: torch.Tensor) -> list[torch.Tensor]:
        return [function(y) for (_, function), y in zip(TORCH, inputs, strict=True)]


@pytest.mark.parametrize(
    ("dynamo", "opset", "dtype"),
    [
        (False, 13, torch.float32),
        (False, 13, torch.float16),
        (False, 17, torch.float32),
        (True, 18, torch.float32),
        (True, 20, torch.float16),
        pytest.param(True, 21, torch.float32, marks=pytest.mark.slow),
        pytest.param(True, 21, torch.float16, marks=pytest.mark.slow),
    ],
)
def test_torch_exports(dynamo: bool, opset: int, dtype: torch.dtype) -> None:
    inputs, file = tuple(torch.randn(2, 4, 3, dtype=dtype) for _ in TORCH), BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            program = torch.onnx.export(Every(), inputs, opset_version=opset, dynamo=True, verbose=False)
            exported = ir.from_proto(program.model_proto)
        else:
            torch.onnx.export(Every(), inputs, file, opset_version=opset, dynamo=False)
            exported = ir.from_proto(onnx.load_from_string(file.getvalue()))
    for (activation, _), value, result in zip(TORCH, exported.graph.inputs, exported.graph.outputs, strict=True):
        found = activation_after(value, Facts(opset, exported.graph.inputs))
        if activation is Activation.NONE:
            assert found is None
        else:
            assert found is not None
            assert (found[0], found[1][-1].outputs[0]) == (activation, result)


def written(activation: Activation, dtype: str, opset: int) -> ir.Model:
    made = model("z = Identity(y)", dtype, opset)
    builder = Builder(Names(made), "n", opset)
    value = write_activation(made.graph.inputs[0], activation, builder)
    splice([made.graph[0]], made.graph.outputs[0], value, builder, in_function=False)
    return made


@settings(deadline=None, max_examples=150)
@given(
    activation=st.sampled_from(ACTIVATIONS),
    dtype=st.sampled_from(["float32", "float16", "bfloat16", "float64"]),
    opset=st.integers(13, 23),
    seed=st.integers(0, 1000),
)
def test_what_is_written_is_found_and_right(activation: Activation, dtype: str, opset: int, seed: int) -> None:
    made = written(activation, dtype, opset)
    onnx.checker.check_model(ir.to_proto(made), full_check=True)
    found = after(made)
    assert found is not None
    assert found[0] is activation
    assert len(found[1]) == len(list(made.graph))
    y = (4 * np.random.default_rng(seed).standard_normal((9, 4, 3))).astype(np.dtype(dtype))
    exact = activate(y.astype(np.float64), activation)
    wide = torch.from_numpy(y.astype(np.float64))
    np.testing.assert_allclose(exact, dict(TORCH[::-1])[activation](wide).numpy(), atol=1e-15)
    # ONNX Runtime has kernels for two of the types on the CPU.
    for runtime in ("onnx-reference", *(["onnxruntime"] if dtype in ("float32", "float16") else [])):
        z = RUNTIMES.require(runtime).open(made).run({"y": y, "other": y})["z"].astype(np.float64)
        u = FORMATS[dtype].u
        error = np.abs(z - exact) / (u * np.abs(y.astype(np.float64)) + FORMATS[dtype].least)
        assert error.max() <= 8, runtime  # the 4 u of the functions and at most 4 u of what is stored on the way
