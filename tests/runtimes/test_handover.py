"""Models on their way into a runtime: whole, wherever their weights lie, and left as they were."""

import subprocess
import sys

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from gn_deploy.errors import InputError
from gn_deploy.runtimes import handover
from tests.runtimes.small_models import group_norm


@pytest.fixture
def external(tmp_path):
    """A model read from a file whose weights lie beside it."""
    model, scale, _ = group_norm()
    ir.save(model, tmp_path / "m.onnx", external_data="m.data", size_threshold_bytes=0)
    return ir.load(tmp_path / "m.onnx"), scale


def weights(proto: onnx.ModelProto) -> np.ndarray:
    return onnx.numpy_helper.to_array(proto.graph.initializer[0])


@pytest.mark.parametrize("limit", [0, handover.PROTOBUF_LIMIT], ids=["too large", "small"])
def test_a_file_holds_every_weight_and_goes_away(external, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, scale = external
    monkeypatch.setattr(handover, "PROTOBUF_LIMIT", limit)
    with handover.as_file(model) as path:
        np.testing.assert_array_equal(weights(onnx.load(path)), scale)
        assert path.with_name("model.onnx.data").exists() == (limit == 0)
    assert not path.parent.exists()
    assert isinstance(model.graph.initializers["w"].const_value, ir.ExternalTensor), "the model given was changed"


def test_a_path_is_handed_over_as_it_is(external, tmp_path) -> None:
    with handover.as_file(tmp_path / "m.onnx") as path:
        assert path == tmp_path / "m.onnx"
    with pytest.raises(InputError, match="no such file"), handover.as_file(tmp_path / "absent.onnx"):
        pass


def test_a_proto_holds_every_weight(external, tmp_path) -> None:
    model, scale = external
    for given in (model, tmp_path / "m.onnx"):
        np.testing.assert_array_equal(weights(handover.to_proto(given)), scale)
    assert handover.weight_bytes(model) == 2 * scale.nbytes


def test_a_path_tells_its_types_as_the_model_does(external, tmp_path) -> None:
    model, _ = external
    assert handover.stored_dtypes(model) == handover.stored_dtypes(tmp_path / "m.onnx") == {"float32"}
    made = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 21]>
        g (bfloat16[N] x, optional(seq(float16[N])) s, int64 n) => (seq(double[N]) y)
        <float8e4m3fn[1] w = {1}> { y = SequenceEmpty <dtype = 11> () }"""
    )
    onnx.save(made, tmp_path / "kinds.onnx")
    kinds = {"bfloat16", "float16", "int64", "float64", "float8_e4m3fn"}
    assert (
        handover.stored_dtypes(tmp_path / "kinds.onnx")
        == handover.stored_dtypes(ir.load(tmp_path / "kinds.onnx"))
        == kinds
    )
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    with pytest.raises(InputError, match="as ONNX"):
        handover.stored_dtypes(tmp_path / "bad.onnx")


def test_a_worker_of_onnx_runtime_does_without_onnx_ir(external, tmp_path) -> None:
    """Its import takes longer than all else the process does, and there are two of them for each comparison."""
    code = (
        "import sys; from pathlib import Path; from gn_deploy.runtimes import RUNTIMES, child; "
        f"RUNTIMES.require('onnxruntime').open(Path({str(tmp_path / 'm.onnx')!r})); assert 'onnx_ir' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
