"""Large weights stay in the file they came in and pass through to the one they go to; the bytes are protobuf's own."""

import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gn_deploy as gn
from gn_deploy.errors import InputError
from gn_deploy.graph.io import load, save
from gn_deploy.graph.wire import INSIDE, LARGE, with_weights, without_weights
from tests.benchmarks.find_and_lower import peak_added


def network(*sizes: int, dtype: type[np.generic] = np.float32) -> onnx.ModelProto:
    """A GroupNorm, and beside it a weight of each of ``sizes`` elements."""
    x = onnx.helper.make_tensor_value_info("x", 1, ["N", 4, "L"])
    y = onnx.helper.make_tensor_value_info("y", 1, ["N", 4, "L"])
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal(size).astype(dtype) for size in sizes]
    held = [onnx.numpy_helper.from_array(w, f"w{i}") for i, w in enumerate(weights)]
    for i, tensor in enumerate(held):
        tensor.doc_string = f"weight {i}"
    held += [onnx.numpy_helper.from_array(np.array([0, 2, -1]), "groups")]
    held += [onnx.numpy_helper.from_array(np.full(2, n, np.float32), name) for n, name in ((1, "one"), (0, "zero"))]
    nodes = [
        onnx.helper.make_node("Reshape", ["x", "groups"], ["v"]),
        onnx.helper.make_node("InstanceNormalization", ["v", "one", "zero"], ["n"]),
        onnx.helper.make_node("Shape", ["x"], ["shape"]),
        onnx.helper.make_node("Reshape", ["n", "shape"], ["y"]),
        *(onnx.helper.make_node("Identity", [f"w{i}"], [f"i{i}"]) for i in range(len(sizes))),
    ]
    graph = onnx.helper.make_graph(nodes, "g", [x], [y], held)
    return onnx.helper.make_model(graph, ir_version=8, opset_imports=[onnx.helper.make_opsetid("", 17)])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, LARGE), max_size=5), st.sampled_from([np.float32, np.float16, np.int8, np.float64]))
def test_there_and_back_are_the_same_bytes(sizes: list[int], dtype: type[np.generic]) -> None:
    whole = network(*sizes, dtype=dtype).SerializeToString(deterministic=True)
    light = without_weights(memoryview(whole))
    large = [t for t in onnx.load_from_string(whole).graph.initializer if len(t.raw_data) >= LARGE]
    assert len(light) < len(whole) - sum(len(t.raw_data) for t in large) + 200 * len(large) + 1
    proto = onnx.ModelProto.FromString(light)
    inside = [t for t in proto.graph.initializer if t.data_location == t.EXTERNAL]
    assert [t.name for t in inside] == [t.name for t in large]
    for pointer, tensor in zip(inside, large, strict=True):
        told = {entry.key: entry.value for entry in pointer.external_data}
        start = int(told["offset"])
        assert (told["location"], whole[start : start + int(told["length"])]) == (INSIDE, tensor.raw_data)
    offsets = {int(e.value): t for p, t in zip(inside, large, strict=True) for e in p.external_data[1:2]}
    pieces = with_weights(memoryview(light), lambda at: ir.from_proto(offsets[at]))
    back = b"".join(bytes(p) if isinstance(p, bytes | memoryview) else p.tobytes() for p in pieces)
    assert back == whole


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int8, np.bool_])
def test_a_saved_file_is_what_protobuf_writes(tmp_path: Path, dtype: type[np.generic]) -> None:
    whole = network(LARGE, 3, 2 * LARGE, dtype=dtype).SerializeToString(deterministic=True)
    (tmp_path / "in.onnx").write_bytes(whole)
    model = load(tmp_path / "in.onnx")
    save(model, tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx").read_bytes() == ir.to_proto(model).SerializeToString(deterministic=True)
    for tensor in onnx.load_from_string(whole).graph.initializer:
        held = model.graph.initializers[tensor.name].const_value
        assert held is not None
        np.testing.assert_array_equal(held.numpy(), onnx.numpy_helper.to_array(tensor))
        assert (held.doc_string or "") == tensor.doc_string


def test_a_loaded_model_can_be_handed_to_others(tmp_path: Path) -> None:
    onnx.save(network(LARGE), tmp_path / "in.onnx")
    lowered = gn.lower(tmp_path / "in.onnx", "onnx+native").model
    proto = ir.to_proto(lowered)
    assert not any(t.external_data for t in proto.graph.initializer)
    onnx.checker.check_model(proto, full_check=True)


def test_the_input_is_never_the_output(tmp_path: Path) -> None:
    onnx.save(network(LARGE), tmp_path / "in.onnx")
    before = (tmp_path / "in.onnx").read_bytes()
    with pytest.raises(InputError, match="input itself"):
        save(load(tmp_path / "in.onnx"), tmp_path / "in.onnx")
    assert (tmp_path / "in.onnx").read_bytes() == before


@pytest.mark.parametrize("cut", [1, LARGE, 3 * LARGE])
def test_a_file_cut_off_is_said_to_be(tmp_path: Path, cut: int) -> None:
    whole = network(LARGE, LARGE).SerializeToString()
    (tmp_path / "in.onnx").write_bytes(whole[:-cut])
    with pytest.raises(InputError, match="cut off or damaged"):
        load(tmp_path / "in.onnx")


def test_a_weight_of_the_wrong_size_is_said_to_be(tmp_path: Path) -> None:
    proto = network(LARGE)
    proto.graph.initializer[0].dims[0] += 1
    (tmp_path / "in.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(InputError, match=r"'w0' takes .* bytes, the file holds"):
        load(tmp_path / "in.onnx")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")
def test_lowering_a_file_of_100_mb_takes_no_more_memory_than_that(tmp_path: Path) -> None:
    onnx.save(network(4), tmp_path / "small.onnx")
    onnx.save(network(*[1 << 22] * 6), tmp_path / "large.onnx")  # 6 times 16 MB
    size = (tmp_path / "large.onnx").stat().st_size
    # pages of the mapped file count as its memory while they are written; protobuf alone would hold it three times
    assert peak_added(tmp_path) * 2**20 < size + (20 << 20)
