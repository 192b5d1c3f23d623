"""External data: where it may stand, links as in the Hugging Face cache, and weights that stay on disk."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from gn_deploy.graph.io import load, save
from tests.graph.io_models import refused, weighted, write_external


def numbers(model: ir.Model) -> list[list[float]]:
    return [v.const_value.numpy().tolist() for v in model.graph.initializers.values() if v.const_value is not None]


def relocate(path: Path, **fields: str) -> None:
    """Overwrites external-data fields of the first weight of the file ``path``."""
    proto = onnx.load(path, load_external_data=False)
    for entry in proto.graph.initializer[0].external_data:
        entry.value = fields.get(entry.key, entry.value)
    path.write_bytes(proto.SerializeToString())


def test_weights_are_found_beside_the_model_and_read_when_asked(tmp_path: Path) -> None:
    path = write_external(tmp_path, 3, 2000)
    loaded = load(path)
    tensors = [v.const_value for v in loaded.graph.initializers.values()]
    assert all(isinstance(t, ir.ExternalTensor) and t.raw is None for t in tensors)
    assert numbers(loaded) == [[0, 1, 2], [k + 1 for k in range(2000)]]


def test_the_working_folder_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_external(tmp_path, 3)
    monkeypatch.chdir(tmp_path)
    loaded = load("model.onnx")
    monkeypatch.chdir("/")
    assert numbers(loaded) == [[0, 1, 2]]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """The layout of the Hugging Face cache; returns the path a user gets from hf_hub_download."""
    source = write_external(tmp_path, 3, 2000)
    blobs, snapshot = tmp_path / "hub/blobs", tmp_path / "hub/snapshots/0123abcd/onnx"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for name, digest in (("model.onnx", "a1" * 20), ("model.onnx_data", "b2" * 32)):
        shutil.move(source.parent / name, blobs / digest)
        (snapshot / name).symlink_to(Path("../../../blobs") / digest)
    return snapshot / "model.onnx"


def test_the_hugging_face_cache_works(cache: Path, tmp_path: Path) -> None:
    loaded = load(cache)
    assert numbers(loaded)[0] == [0, 1, 2]
    save(loaded, tmp_path / "out.onnx")
    assert numbers(load(tmp_path / "out.onnx")) == numbers(load(cache))
    refused(lambda: save(loaded, cache), "is the input itself")
    refused(lambda: save(loaded, cache.parent.parent.parent.parent / "blobs" / ("a1" * 20)), "is the input itself")


def test_the_hugging_face_cache_with_a_blob_missing(cache: Path) -> None:
    os.unlink(os.path.realpath(cache.with_name("model.onnx_data")))
    # a long path is cut in its middle, so only the end of the name is sure to be told
    refused(lambda: load(cache), "onnx_data' leads to", "missing", "download it again")


def test_a_link_to_a_model_finds_the_weights_beside_the_real_file(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    path = write_external(tmp_path / "real", 3)
    (tmp_path / "link.onnx").symlink_to(path)
    assert numbers(load(tmp_path / "link.onnx")) == [[0, 1, 2]]


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    path = write_external(tmp_path / "model", 3)
    data = path.with_name("model.onnx_data")
    shutil.move(data, tmp_path / "secret")
    data.symlink_to(tmp_path / "secret")
    refused(lambda: load(path), "is a link to", "outside the model's folder", "cp --remove-destination")


def test_a_second_hard_link_is_refused(tmp_path: Path) -> None:
    path = write_external(tmp_path, 3)
    os.link(path.with_name("model.onnx_data"), tmp_path / "other")
    refused(lambda: load(path), "second hard link", "its own copy")


@pytest.mark.parametrize("location", ["/etc/passwd", "../secret", "a/../../secret", "..\\secret", "", "a\0b"])
def test_a_location_outside_the_folder_is_refused(location: str, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "secret").write_bytes(bytes(64))
    path = write_external(tmp_path / "model", 3)
    relocate(path, location=location)
    refused(lambda: load(path), "is outside the model's folder")


def test_data_that_is_missing_or_too_short(tmp_path: Path) -> None:
    path = write_external(tmp_path, 3, 2000)
    data = path.with_name("model.onnx_data")
    os.truncate(data, 100)
    refused(lambda: load(path), "too short", "tensor 'w1'", "the file at 100")
    data.unlink()
    refused(lambda: load(path), str(data), "is missing", "beside the model")
    data.mkdir()
    refused(lambda: load(path), "is not a file")


@pytest.mark.parametrize("fields", [{"offset": "-1"}, {"length": "x"}, {"length": "8"}, {"offset": str(2**70)}])
def test_offsets_and_lengths_that_do_not_fit(fields: dict[str, str], tmp_path: Path) -> None:
    path = write_external(tmp_path, 3, 2)
    relocate(path, **fields)
    refused(lambda: load(path), "w0")


def test_a_constant_node_may_have_external_data(tmp_path: Path) -> None:
    (tmp_path / "c.bin").write_bytes(np.arange(3, dtype="<f4").tobytes())
    tensor = onnx.TensorProto(name="c", data_type=TensorProto.FLOAT, dims=[3], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="c.bin")
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [3])
    graph = helper.make_graph([helper.make_node("Constant", [], ["y"], value=tensor)], "g", [], [y])
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "m.onnx")
    save(load(tmp_path / "m.onnx"), tmp_path / "out.onnx")
    node = load(tmp_path / "out.onnx").graph.node(0)
    assert node.attributes["value"].as_tensor().numpy().tolist() == [0, 1, 2]


MEASURE = """
import re, sys
import onnx_ir.passes.common
from gn_deploy.graph.io import load, save
from gn_deploy.graph.normalize import normalize

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024

load(sys.argv[1])  # the modules are loaded now
before = peak()
model = normalize(load(sys.argv[2]))
save(model, sys.argv[3])
print(peak() - before)
"""


@pytest.mark.parametrize("megabytes", [300, pytest.param(2500, marks=pytest.mark.slow)])
def test_weights_stay_on_disk(megabytes: int, tmp_path: Path) -> None:
    """Memory while a model of that many MB is loaded, normalized and saved; the bound is a sixth of the weights."""
    if not Path("/proc/self/status").exists():
        pytest.skip("peak memory is read from Linux's /proc")
    proto = weighted(1)
    graph = proto.graph
    del graph.node[:], graph.initializer[:]
    parts = megabytes // 100
    for k in range(parts):
        tensor = graph.initializer.add(name=f"w{k}", data_type=TensorProto.FLOAT, dims=[25 << 20])
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", "big.data"), ("offset", str(k * (100 << 20))), ("length", str(100 << 20))):
            tensor.external_data.add(key=key, value=value)
        source = "x" if k == 0 else f"s{k - 1}"
        graph.node.append(helper.make_node("Add", [source, f"w{k}"], [f"s{k}"]))
    graph.output[0].name = f"s{parts - 1}"
    (tmp_path / "big.onnx").write_bytes(proto.SerializeToString())
    with open(tmp_path / "big.data", "wb") as file:
        file.truncate(parts * (100 << 20))  # a sparse file: no disk is used
    (tmp_path / "small").mkdir()
    arguments = (write_external(tmp_path / "small", 3), tmp_path / "big.onnx", tmp_path / "out.onnx")
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *map(str, arguments)], capture_output=True, text=True, check=True
    )
    assert (tmp_path / "out.onnx.data").stat().st_size == parts * (100 << 20)
    assert float(done.stdout) < 50  # MB: measured 3, a chunk of the portable copy is 16
