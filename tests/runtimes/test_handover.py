"""Models on their way into a runtime: whole, wherever their weights lie, and left as they were."""

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
    assert handover.float_dtypes(model) == {"float32"}
    assert handover.weight_bytes(model) == 2 * scale.nbytes
