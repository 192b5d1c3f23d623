"""The bound after each activation: every spelling in every runtime is inside, every other activation outside."""

import ml_dtypes  # noqa: F401  (registers bfloat16 with NumPy)
import numpy as np
import onnx_ir as ir
import pytest
import torch

from gn_deploy.parity.cases import deal
from gn_deploy.parity.metrics import measure
from gn_deploy.parity.tolerance import Bounds, bounds
from gn_deploy.runtimes import RUNTIMES
from gn_deploy.spec import Activation, GroupNormSpec
from tests.around.spellings import RIGHT, model
from tests.test_reference import TORCH

SHAPE, GROUPS, CHANNELS = (2, 16, 12, 12), 4, 16
Case = tuple[np.ndarray, Bounds]


def parameters(dtype: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return (3 * rng.standard_normal(CHANNELS)).astype(dtype), (2 * rng.standard_normal(CHANNELS)).astype(dtype)


def cases(activation: Activation, dtype: str, stores: int) -> list[Case]:
    spec = GroupNormSpec(GROUPS, CHANNELS, activation=activation, dtype=dtype)
    return [(x, bounds(x, spec, *parameters(dtype), stores=stores)) for x in deal(SHAPE, spec)]


def worst(outputs: list[np.ndarray], dealt: list[Case], dtype: str) -> float:
    return max(
        measure(y, limits.reference, limits.two_pass, dtype=dtype).error_over_bound
        for y, (_, limits) in zip(outputs, dealt, strict=True)
    )


def by_torch(activation: Activation, dealt: list[Case], dtype: str) -> list[np.ndarray]:
    def tensor(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array.astype(np.float32)).to(getattr(torch, dtype))

    scale, bias = map(tensor, parameters(dtype))
    normalized = (torch.nn.functional.group_norm(tensor(x), GROUPS, scale, bias, 1e-5) for x, _ in dealt)
    return [TORCH[activation](y).float().numpy() for y in normalized]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("activation", Activation)
def test_torch_is_inside(activation: Activation, dtype: str) -> None:
    dealt = cases(activation, dtype, stores=0)
    assert worst(by_torch(activation, dealt, dtype), dealt, dtype) <= 1


@pytest.mark.parametrize("activation", Activation)
def test_another_activation_is_outside(activation: Activation) -> None:
    """In float32 also erf for tanh in GELU, 4.7e-4 apart."""
    dealt = cases(activation, "float32", stores=0)
    for other in set(Activation) - {activation}:
        assert worst(by_torch(other, dealt, "float32"), dealt, "float32") > 100, other


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("activation", Activation)
def test_another_activation_is_outside_in_half_precision(activation: Activation, dtype: str) -> None:
    """But for the two kinds of GELU, which are closer to each other than what is stored on the way to them."""
    gelu = {Activation.GELU, Activation.GELU_TANH}
    dealt = cases(activation, dtype, stores=0)
    for other in set(Activation) - (gelu if activation in gelu else {activation}):
        assert worst(by_torch(other, dealt, dtype), dealt, dtype) > 1, other


@pytest.mark.parametrize(
    ("runtime", "dtype"),
    [
        ("onnxruntime", "float32"),
        ("onnxruntime", "float16"),
        ("onnx-reference", "float32"),
        ("onnx-reference", "float16"),
        ("onnx-reference", "bfloat16"),
        pytest.param("openvino", "float32", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("activation", [a for a in Activation if a is not Activation.NONE])
def test_every_spelling_is_inside(activation: Activation, runtime: str, dtype: str) -> None:
    dealt = cases(activation, dtype, stores=2)  # the normalized value and its product with the scale
    for name, (meaning, body) in RIGHT.items():
        if meaning is activation and not (runtime != "onnxruntime" and "com.microsoft" in body):
            session = RUNTIMES.require(runtime).open(normalized(body, dtype))
            outputs = [session.run({"x": x})["z"] for x, _ in dealt]
            assert worst(outputs, dealt, dtype) <= 1, name


def normalized(body: str, dtype: str) -> ir.Model:
    """GroupNorm by InstanceNormalization, which is two-pass everywhere, and ``body`` after it."""
    before = (
        "xg = Reshape(x, grouped) xn = InstanceNormalization<epsilon = 0.00001>(xg, ones, zeros) "
        "xf = Reshape(xn, full) xs = Mul(xf, scale) y = Add(xs, bias) "
    )
    scale, bias = (array.reshape(CHANNELS, 1, 1) for array in parameters(dtype))
    weights = {
        "grouped": np.array([0, GROUPS, -1]),
        "full": np.array(SHAPE),
        "ones": np.ones(GROUPS, dtype),
        "zeros": np.zeros(GROUPS, dtype),
        "scale": scale,
        "bias": bias,
    }
    return model(before + body, dtype, opset=22, inputs=["x"], shape=SHAPE, weights=weights)
