"""Loading: what a model may be, and one line with a hint for everything else."""

import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from gn_deploy.graph.io import as_model, load, save
from tests.graph.io_models import RELU, parse, refused


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    onnx.save(parse(RELU), path)
    return path


def test_everything_in_the_file_is_kept(tmp_path: Path) -> None:
    proto = parse(RELU)
    proto.producer_name, proto.doc_string, proto.model_version, proto.domain = "me", "what it does", 3, "org.me"
    proto.graph.doc_string = "graph"
    helper.set_model_props(proto, {"b": "2", "a": "1"})
    proto.ir_version = 10
    for node in proto.graph.node:
        node.ClearField("domain")  # set to "", which onnx_ir does not write
    node = proto.graph.node[0]
    node.name, node.doc_string = "first", "node"
    node.metadata_props.add(key="k", value="v")
    proto.graph.value_info.add().CopyFrom(helper.make_tensor_value_info("t", TensorProto.FLOAT, ["N", 4]))
    proto.opset_import.add(domain="org.me", version=5)
    onnx.save(proto, tmp_path / "in.onnx")
    save(load(tmp_path / "in.onnx"), tmp_path / "out.onnx")
    kept = onnx.load(tmp_path / "out.onnx")
    proto.ClearField("metadata_props")
    helper.set_model_props(proto, {"a": "1", "b": "2"})  # onnx_ir sorts them, so that bytes do not depend on history
    assert kept == proto


def test_a_file_is_named_by_what_it_looks_like(tmp_path: Path) -> None:
    def write(name: str, data: bytes) -> Path:
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    torch.save({"w": torch.ones(3)}, tmp_path / "model.pt")
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as archive:
        archive.writestr("a.txt", "a")
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    cases = {
        "a PyTorch file": tmp_path / "model.pt",
        "a zip archive": tmp_path / "model.zip",
        "a PNG image": write("a.png", b"\x89PNG\r\n\x1a\n" + bytes(64)),
        "a JSON file": write("a.json", json.dumps({"a": [1, 2]}).encode()),
        "a text file": write("a.txt", b"hello\n"),
        "a Git LFS pointer": write("lfs.onnx", b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 3\n"),
        "a web page": write("page.onnx", b"<!DOCTYPE html><html>not found</html>"),
        "a safetensors file": write("w.safetensors", len(header).to_bytes(8, "little") + header + bytes(4)),
        "a Python pickle": write("old.pt", pickle.dumps({"a": 1}, protocol=2)),
        "a TensorRT engine": write("m.engine", b"ftrt" + bytes(64)),
        "a gzip archive": write("m.onnx.gz", b"\x1f\x8b\x08" + bytes(64)),
    }
    for words, path in cases.items():
        refused(lambda path=path: load(path), "is not an ONNX file", words)


def test_a_path_that_leads_nowhere(model: Path, tmp_path: Path) -> None:
    refused(lambda: load(tmp_path / "modle.onnx"), "does not exist", f"did you mean '{model}'")
    refused(lambda: load(tmp_path / "no" / "model.onnx"), "there is no folder")
    refused(lambda: load(tmp_path), "is a folder", str(model))
    (tmp_path / "empty.onnx").touch()
    refused(lambda: load(tmp_path / "empty.onnx"), "is empty")
    (tmp_path / "link.onnx").symlink_to("gone")
    refused(lambda: load(tmp_path / "link.onnx"), "is a link to", "download")


def test_a_truncated_file(tmp_path: Path) -> None:
    weights = helper.make_tensor("w", TensorProto.FLOAT, [1000], np.ones(1000, np.float32))
    proto = parse(RELU)
    proto.graph.initializer.append(weights)
    data = proto.SerializeToString()
    path = tmp_path / "cut.onnx"
    path.write_bytes(data[: len(data) // 2])
    refused(lambda: load(path), "cut off or damaged")
    path.write_bytes(b"\x08\x08\x12\x07")  # ir_version, then the beginning of a producer's name
    refused(lambda: load(path), "cut off or damaged")
    path.write_bytes(b"\x08\x08")
    refused(lambda: load(path), "holds no graph")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (RELU.replace("17", "99"), ("opset 99", "pip install -U onnx")),
        (RELU.replace("17", "0"), ("opset 0",)),
        (RELU.replace("ir_version: 8", "ir_version: 99"), ("IR version 99",)),
        (RELU.replace("Relu(x)", "com.acme.Relu(x)"), ("com.acme::Relu", "domain without opset import")),
        (RELU.replace("Relu(x)", "Relu(z)"), ("reads the value 'z'", "nothing computes")),
        (RELU.replace("Relu(x)", "Relu(y)"), ("has a cycle",)),
        (RELU.replace("y = Neg(t)", "t = Neg(x) y = Neg(t)"), ("writes the value 't' twice",)),
        (RELU.replace("t = Relu(x)", "x = Relu(x) t = Neg(x)"), ("writes the value 'x' twice",)),
        (RELU.replace("y = Neg(t)", ""), ("output 'y'", "nothing in it computes")),
        (RELU.replace("=> (float[N,4] y)", "=> (float[N,4] y, float[N,4] y)"), ("declares the value 'y' twice",)),
        (
            '<ir_version: 8, opset_import: ["" : 17]> g (bool c, float[4] x) => (float[4] y) '
            "{ y = If (c) <then_branch = a () => (float[4] p) { p = Relu(q) }, "
            "else_branch = b () => (float[4] r) { r = Neg(x) }> }",
            ("reads the value 'q'",),
        ),
    ],
)
def test_a_graph_that_could_not_run(text: str, words: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(parse(text).SerializeToString())
    refused(lambda: load(path), str(path), *words)


def test_a_tensor_that_does_not_hold_its_shape(tmp_path: Path) -> None:
    proto = parse(RELU)
    tensor = proto.graph.initializer.add(name="w", data_type=TensorProto.FLOAT, dims=[3], raw_data=bytes(8))
    refused(lambda: as_model(proto), "tensor 'w' of shape 3 holds 8 entries instead of 12")
    tensor.ClearField("raw_data")
    tensor.float_data.extend([1, 2, 3])
    assert as_model(proto).graph.initializers["w"].const_value.numpy().tolist() == [1, 2, 3]
    tensor.data_type = TensorProto.INT64
    refused(lambda: as_model(proto), "tensor 'w'", "of another element type")
    tensor.data_type = 99
    refused(lambda: as_model(proto), "unknown element type 99")


def test_what_onnx_ir_would_drop_silently_is_refused() -> None:
    proto = parse(RELU)
    proto.graph.sparse_initializer.add()
    refused(lambda: as_model(proto), "sparse_initializer")
    proto = parse(RELU)
    proto.training_info.add()
    refused(lambda: as_model(proto), "training_info")


def test_names_in_a_hostile_file_do_not_break_the_line() -> None:
    proto = parse(RELU)
    proto.graph.node[0].input[0] = "z\n\x1b[31m" + "z" * 1000
    path_error = refused(lambda: as_model(proto), "nothing computes")
    assert "\x1b" not in str(path_error)


def test_custom_domains_are_fine_when_imported() -> None:
    text = RELU.replace("Relu(x)", "com.acme.Relu(x)").replace('"" : 17', '"" : 17, "com.acme" : 7')
    assert as_model(parse(text)).graph.node(0).domain == "com.acme"


def test_a_graph_out_of_order_is_sorted() -> None:
    proto = parse(RELU)
    nodes = list(proto.graph.node)[::-1]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    assert [node.op_type for node in as_model(proto).graph] == ["Relu", "Neg"]


def test_the_default_domain_has_one_name() -> None:
    model = as_model(parse(RELU.replace('"" : 17', '"ai.onnx" : 17').replace("Relu(x)", "ai.onnx.Relu(x)")))
    assert model.opset_imports == {"": 17}
    assert [node.domain for node in model.graph] == ["", ""]


def test_as_model_takes_what_people_have(model: Path) -> None:
    loaded = load(model)
    assert as_model(loaded) is loaded
    assert len(as_model(str(model)).graph) == len(as_model(parse(RELU)).graph) == 2

    class Program:  # what torch.onnx.export(dynamo=True) returns has this attribute
        model = loaded

    assert as_model(Program()) is loaded
    with pytest.raises(TypeError, match=r"got Linear; export an nn\.Module first"):
        as_model(torch.nn.Linear(1, 1))
    with pytest.raises(TypeError, match="got int"):
        as_model(3)


def test_a_proto_with_external_data_has_no_folder() -> None:
    proto = parse(RELU)
    tensor = proto.graph.initializer.add(name="w", data_type=TensorProto.FLOAT, dims=[3])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="w.bin")
    refused(lambda: as_model(proto), "'w' of the ModelProto is in another file", "pass the path")


def test_garbage_collection_is_as_before(model: Path) -> None:
    import gc

    assert gc.isenabled()
    load(model)
    assert gc.isenabled()
    gc.disable()
    try:
        load(model)
        assert not gc.isenabled()
    finally:
        gc.enable()
