"""ONNX Runtime: right numbers, the asked provider or none, one-line reasons."""

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from gn_deploy.errors import InputError, UnavailableError
from gn_deploy.runtimes import RUNTIMES
from gn_deploy.runtimes.base import NoKernelError, RuntimeFailure
from tests.runtimes.small_models import ELEMENT, formula, group_norm, instance_norm, model_of, relative_error, sample

ORT = RUNTIMES.require("onnxruntime")


@pytest.mark.parametrize(("mean", "std", "limit"), [(0, 1, 2e-6), (1e3, 1, 2e-3), (1e4, 1e-2, 0.2)])
def test_instance_norm_spelling_is_two_pass(mean: float, std: float, limit: float) -> None:
    """limit: float32 spacing at the mean over std, as in test_onnx_reference."""
    model, scale, bias = instance_norm()
    x = sample((2, 8, 32, 32), mean=mean, std=std)
    session = ORT.open(model)
    assert session.precision == "float32"
    assert relative_error(session.run({"x": x})["y"], formula(x, 2, scale, bias)) < limit


def test_its_group_normalization_is_one_pass() -> None:
    """Why the native form is not written for this runtime; should this fail, its kernel has been mended."""
    model, scale, bias = group_norm()
    x = sample((2, 8, 32, 32), mean=1e4, std=1e-2)
    error = relative_error(ORT.open(model).run({"x": x})["y"], formula(x, 2, scale, bias))
    assert not error < 0.2


def test_half_precision_is_named_by_the_model() -> None:
    model, scale, bias = instance_norm(dtype="float16")
    x = sample((2, 8, 16, 16), "float16")
    session = ORT.open(model)
    y = session.run({"x": x})["y"]
    assert session.precision == "float16" == y.dtype.name
    assert relative_error(y, formula(x, 2, scale, bias)) < 3e-3  # three float16 roundings


def test_bfloat16_goes_in_and_comes_out() -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["f", "f"], ["q"]),
        helper.make_node("Cast", ["q"], ["y"], to=TensorProto.BFLOAT16),
    ]
    model = model_of(nodes, {"x": (TensorProto.BFLOAT16, (2, 2))}, {"y": TensorProto.BFLOAT16})
    x = np.array([[1, -2], [3, 0.5]], ELEMENT["bfloat16"][1])
    y = ORT.open(model).run({"x": x})["y"]
    assert y.dtype == x.dtype
    np.testing.assert_array_equal(y.astype(np.float32), x.astype(np.float32) ** 2)


def test_missing_kernels_are_told_on_one_line() -> None:
    with pytest.raises(NoKernelError, match=r"no kernel for \w+\(\d+\) on these element types") as failure:
        ORT.open(group_norm(dtype="bfloat16")[0])
    assert "\n" not in failure.value.message


def test_what_is_wrong_at_run_time_is_told_without_source_paths() -> None:
    session = ORT.open(group_norm(shape=(2, 8, 4, 4))[0])
    with pytest.raises(RuntimeFailure) as failure:
        session.run({"x": sample((2, 7, 4, 4))})
    assert "/onnxruntime" not in failure.value.message
    assert "x" in failure.value.message
    session.close()
    session.close()
    with pytest.raises(RuntimeFailure, match="closed"):
        session.run({"x": sample((2, 8, 4, 4))})


def test_a_failing_node_is_told_once(capfd: pytest.CaptureFixture[str]) -> None:
    node = helper.make_node("Reshape", ["x", "shape"], ["y"], "reshape")
    inputs = {"x": (TensorProto.FLOAT, ("N",))}
    session = ORT.open(model_of([node], inputs, {"y": TensorProto.FLOAT}, {"shape": np.array([7, 3])}))
    with pytest.raises(RuntimeFailure, match=r"Name:'reshape'.*Input shape:\{5\}") as failure:
        session.run({"x": sample((5,))})
    assert "/onnxruntime" not in failure.value.message
    assert capfd.readouterr().err == ""


def test_options_and_paths(tmp_path) -> None:
    model, scale, bias = instance_norm()
    path = tmp_path / "m.onnx"
    ir.save(model, path, external_data="m.data", size_threshold_bytes=30)  # Reshape's stay inside
    x = sample((2, 8, 8, 8))
    for given in (path, str(path), ir.load(path)):
        y = ORT.open(given, optimization="none", threads=1).run({"x": x})["y"]
        assert relative_error(y, formula(x, 2, scale, bias)) < 2e-6  # a few float32 roundings
    with pytest.raises(InputError, match="unknown graph optimization"):
        ORT.open(path, optimization="most")
    with pytest.raises(InputError, match="written in float32"):
        ORT.open(path, precision="float16")
    with pytest.raises(InputError, match="no such file"):
        ORT.open(tmp_path / "absent.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"\xff not onnx")
    with pytest.raises(InputError, match="cannot read"):
        ORT.open(tmp_path / "bad.onnx")


def test_large_models_go_through_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gn_deploy.runtimes.onnxruntime.PROTOBUF_LIMIT", 0)
    monkeypatch.setattr("gn_deploy.runtimes.handover.PROTOBUF_LIMIT", 0)
    model, scale, bias = instance_norm()
    x = sample((2, 8, 8, 8))
    assert relative_error(ORT.open(model).run({"x": x})["y"], formula(x, 2, scale, bias)) < 2e-6  # as above


@pytest.mark.parametrize("name", ["ort-cuda", "ort-tensorrt"])
def test_absent_providers_never_become_the_cpu(name: str) -> None:
    import onnxruntime

    runtime = RUNTIMES.require(name)
    if runtime.provider in onnxruntime.get_available_providers():
        pytest.skip("this machine has it")
    assert runtime.provider in runtime.probe().run.reason
    with pytest.raises(UnavailableError, match=runtime.provider):
        runtime.open(group_norm()[0])
