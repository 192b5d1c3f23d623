"""OpenVINO: float32 unless asked, right numbers, run in a process that may die."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from gn_deploy.errors import InputError
from gn_deploy.runtimes import RUNTIMES
from gn_deploy.runtimes.base import RuntimeFailure
from tests.runtimes.small_models import formula, group_norm, instance_norm, model_of, relative_error, sample

OPENVINO = RUNTIMES.require("openvino")


@pytest.fixture
def opened():
    sessions = []

    def open_model(model, **options):
        sessions.append(OPENVINO.open(model, **options))
        return sessions[-1]

    yield open_model
    for session in sessions:
        session.close()
        session.close()


def test_two_pass_in_float32_whatever_the_cpu_would_rather(opened) -> None:
    """Limits as in test_onnx_reference: float32 spacing at the mean over std."""
    for make in (instance_norm, group_norm):
        model, scale, bias = make()
        session = opened(model)
        assert session.precision == "float32"
        for mean, std, limit in ((0, 1, 2e-6), (1e3, 1, 2e-3), (1e4, 1e-2, 0.2)):
            x = sample((2, 8, 32, 32), mean=mean, std=std)
            assert relative_error(session.run({"x": x})["y"], formula(x, 2, scale, bias)) < limit


@pytest.mark.parametrize(("dtype", "limit"), [("float16", 3e-3), ("bfloat16", 2e-2)])  # a few roundings of the type
def test_half_types_go_in_and_come_out(opened, dtype: str, limit: float) -> None:
    model, scale, bias = group_norm(dtype=dtype)
    x = sample((2, 8, 16, 16), dtype)
    y = opened(model).run({"x": x})["y"]
    assert y.dtype == x.dtype
    assert relative_error(y, formula(x, 2, scale, bias)) < limit


def test_asked_precision_is_read_back(opened) -> None:
    from openvino import Core

    wanted = "bfloat16" if "BF16" in Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "float32"
    assert opened(instance_norm()[0], precision="bfloat16").precision == wanted
    with pytest.raises(InputError, match="cannot run in float8"):
        OPENVINO.open(instance_norm()[0], precision="float8")


def test_names_survive_shared_tensors_and_unused_inputs(opened) -> None:
    nodes = [
        helper.make_node("Identity", ["x"], ["same"]),
        helper.make_node("Relu", ["x"], ["first"]),
        helper.make_node("Identity", ["first"], ["second"]),
    ]
    inputs = dict.fromkeys(("unused", "x"), (TensorProto.FLOAT, (2,)))
    outputs = dict.fromkeys(("second", "same", "first"), TensorProto.FLOAT)
    got = opened(model_of(nodes, inputs, outputs)).run({"x": np.float32([-1, 2]), "unused": np.float32([0, 0])})
    assert {name: array.tolist() for name, array in got.items()} == {
        "second": [0, 2],
        "same": [-1, 2],
        "first": [0, 2],
    }


def test_refusals_are_one_line() -> None:
    node = helper.make_node("Nonsense", ["x"], ["y"])
    with pytest.raises(RuntimeFailure, match="Nonsense") as failure:
        OPENVINO.open(model_of([node], {"x": (TensorProto.FLOAT, (2,))}, {"y": TensorProto.FLOAT}))
    assert "\n" not in failure.value.message
    assert ".cpp" not in failure.value.message


def test_a_missing_input_is_named(opened) -> None:
    with pytest.raises(InputError, match="'x'"):
        opened(instance_norm()[0]).run({})
