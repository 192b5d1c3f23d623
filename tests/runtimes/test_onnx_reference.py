"""onnx.reference: two-pass on hard data, right in every type and opset, exact when promoted to float64."""

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from gn_deploy.errors import InputError
from gn_deploy.runtimes import RUNTIMES
from gn_deploy.runtimes.base import RuntimeFailure
from tests.runtimes.small_models import (
    formula,
    group_norm,
    instance_norm,
    layer_norm,
    model_of,
    relative_error,
    sample,
)

REFERENCE = RUNTIMES.require("onnx-reference")
ROUNDING = {"float32": 2e-6, "float16": 3e-3, "bfloat16": 2e-2, "float64": 1e-14}  # a few roundings of each type


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("opset", [18, 20, 21, 22, 26])
def test_group_normalization_of_every_opset_and_type(opset: int, dtype: str) -> None:
    model, scale, bias = group_norm(opset, dtype)
    x = sample((2, 8, 5, 7), dtype)
    session = REFERENCE.open(model)
    y = session.run({"x": x})["y"]
    assert session.precision == dtype == y.dtype.name
    assert relative_error(y, formula(x, 2, scale, bias)) < ROUNDING[dtype]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_instance_and_layer_normalization_in_every_type(dtype: str) -> None:
    x = sample((2, 8, 32, 32), dtype)
    for (model, scale, bias), groups in ((instance_norm(dtype=dtype, opset=22), 2), (layer_norm(dtype=dtype), 1)):
        y = REFERENCE.open(model).run({"x": x})["y"]
        assert relative_error(y, formula(x, groups, scale, bias)) < ROUNDING[dtype]


@pytest.mark.parametrize(("mean", "std", "limit"), [(0, 1, 2e-6), (1e3, 1, 2e-3), (1e4, 1e-2, 0.2)])
@pytest.mark.parametrize("make", [group_norm, instance_norm, layer_norm], ids=lambda make: make.__name__)
def test_statistics_are_two_pass(make, mean: float, std: float, limit: float) -> None:
    """limit: float32 spacing at the mean over std, twice (6e-5 and 1e-3 / 1e-2); one pass is off by 0.4 to NaN."""
    model, scale, bias = make()
    x = sample((2, 8, 32, 32), mean=mean, std=std)
    y = REFERENCE.open(model).run({"x": x})["y"]
    assert relative_error(y, formula(x, 1 if make is layer_norm else 2, scale, bias)) < limit


def test_constant_image_gives_the_bias() -> None:
    model, _, bias = group_norm()
    y = REFERENCE.open(model).run({"x": np.full((1, 8, 64, 64), 1234.5, np.float32)})["y"]
    np.testing.assert_array_equal(y, np.broadcast_to(bias.reshape(1, -1, 1, 1), y.shape))


def test_half_overflow_inside_the_statistics_does_not_happen() -> None:
    """Squares of 1e4 overflow float16; statistics are in float32, as stash_type says."""
    for make in (group_norm, instance_norm, layer_norm):
        model, scale, bias = make(dtype="float16") if make is not instance_norm else make(dtype="float16", opset=22)
        x = sample((2, 8, 32, 32), "float16", std=1e4)
        y = REFERENCE.open(model).run({"x": x})["y"]
        assert relative_error(y, formula(x, 1 if make is layer_norm else 2, scale, bias)) < ROUNDING["float16"]


def test_bfloat16_means_do_not_stall() -> None:
    """NumPy sums bfloat16 in bfloat16, where 256 + 1 is 256."""
    node = helper.make_node("ReduceMean", ["x", "axes"], ["y"], keepdims=0)
    model = model_of(
        [node], {"x": (TensorProto.BFLOAT16, (4096,))}, {"y": TensorProto.BFLOAT16}, {"axes": np.array([0])}
    )
    assert float(REFERENCE.open(model).run({"x": sample((4096,), "bfloat16", mean=1, std=0)})["y"]) == 1.0


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
@pytest.mark.parametrize("opset", [18, 21])
def test_promoted_model_is_the_formula(opset: int, dtype: str) -> None:
    model, scale, bias = group_norm(opset, dtype)
    x = sample((2, 8, 32, 32), dtype, mean=100)
    session = REFERENCE.open(model, precision="float64")
    y = session.run({"x": x})["y"]
    assert y.dtype == np.float64
    assert session.precision == "float64"
    assert relative_error(y, formula(x, 2, scale, bias)) < ROUNDING["float64"]


def test_functions_are_inlined_and_keep_our_operators() -> None:
    body = [helper.make_node("GroupNormalization", ["x", "w", "b"], ["y"], num_groups=2)]
    function = helper.make_function("own", "Norm", ["x", "w", "b"], ["y"], body, [helper.make_opsetid("", 21)])
    weights = {"w": np.ones(8, np.float32), "b": np.zeros(8, np.float32)}
    call = helper.make_node("Norm", ["x", "w", "b"], ["y"], domain="own")
    io = {"x": (TensorProto.FLOAT, (2, 8, 16, 16))}, {"y": TensorProto.FLOAT}
    model = model_of([call], *io, weights, functions=[function])
    x = sample((2, 8, 16, 16), mean=1e4)
    expected = formula(x, 2, weights["w"], weights["b"])
    for precision, limit in ((None, 2e-3), ("float64", 1e-10)):  # float32 spacing at 1e4; float64 at 1e4 squared
        assert relative_error(REFERENCE.open(model, precision=precision).run({"x": x})["y"], expected) < limit
    assert len(model.functions) == 1, "the model given was changed"


def test_operators_that_have_no_float64_are_refused() -> None:
    node = helper.make_node("AffineGrid", ["theta", "size"], ["y"])
    inputs = {"theta": (TensorProto.FLOAT, (1, 2, 3)), "size": (TensorProto.INT64, (4,))}
    with pytest.raises(RuntimeFailure, match="AffineGrid in float32"):
        REFERENCE.open(model_of([node], inputs, {"y": TensorProto.FLOAT}), precision="float64")


def test_unknown_operators_and_precisions() -> None:
    node = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)
    model = model_of([node], {"x": (TensorProto.FLOAT, (1,))}, {"y": TensorProto.FLOAT})
    with pytest.raises(InputError, match="not in float16"):
        REFERENCE.open(model, precision="float16")
    model.graph.node(0).op_type = "Nonsense"
    with pytest.raises(RuntimeFailure, match="Nonsense"):
        REFERENCE.open(model)


def test_external_weights_are_read_and_left_external(tmp_path) -> None:
    model, scale, bias = group_norm()
    path = tmp_path / "m.onnx"
    ir.save(model, path, external_data="m.data", size_threshold_bytes=0)
    loaded = ir.load(path)
    x = sample((2, 8, 4, 4))
    for given in (path, loaded):
        y = REFERENCE.open(given, precision="float64").run({"x": x})["y"]
        assert relative_error(y, formula(x, 2, scale, bias)) < ROUNDING["float64"]
    assert isinstance(loaded.graph.initializers["w"].const_value, ir.ExternalTensor)
