"""Saving: the same bytes, the right layout, the input untouched, and a file that is whole or not there."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from gn_deploy.graph import atomic as atomic_module
from gn_deploy.graph import io
from gn_deploy.graph.io import as_model, load, save
from tests.graph.io_models import RELU, parse, refused, weighted, write_external


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.onnx", "b.onnx"):
        save(as_model(weighted(3, 2000)), tmp_path / name)
    save(load(tmp_path / "a.onnx"), tmp_path / "c.onnx")
    assert len(set(tree(tmp_path).values())) == 1


def test_small_models_stay_one_file_and_external_ones_stay_external(tmp_path: Path) -> None:
    save(as_model(weighted(3, 2000)), tmp_path / "inline.onnx")
    assert set(tree(tmp_path)) == {"inline.onnx"}
    (tmp_path / "in").mkdir()
    model = load(write_external(tmp_path / "in", 3, 2000))
    before = [v.const_value for v in model.graph.initializers.values()]
    save(model, tmp_path / "out.onnx")
    assert [v.const_value for v in model.graph.initializers.values()] == before
    proto = onnx.load(tmp_path / "out.onnx", load_external_data=False)
    assert [{e.key: e.value for e in t.external_data} for t in proto.graph.initializer] == [
        {"location": "out.onnx.data", "offset": "0", "length": "12"},
        {"location": "out.onnx.data", "offset": "64", "length": "8000"},
    ]
    onnx.checker.check_model(tmp_path / "out.onnx")
    for written, expected in zip(onnx.load(tmp_path / "out.onnx").graph.initializer, (3, 2000), strict=True):
        assert len(onnx.numpy_helper.to_array(written)) == expected


def test_the_layout_can_be_asked_for(tmp_path: Path) -> None:
    save(as_model(weighted(3, 2000)), tmp_path / "out.onnx", external_data=True)
    proto = onnx.load(tmp_path / "out.onnx", load_external_data=False)
    assert [t.data_location for t in proto.graph.initializer] == [0, 1]  # 12 bytes stay where shape inference sees them
    save(load(tmp_path / "out.onnx"), tmp_path / "one.onnx", external_data=False)
    assert tree(tmp_path)["one.onnx"] == as_one_file(weighted(3, 2000))


def as_one_file(proto: onnx.ModelProto) -> bytes:
    model = as_model(proto)
    for value in model.graph.initializers.values():
        assert value.const_value is not None
        value.const_value = ir.Tensor(value.const_value.numpy(), name=value.name)
    return ir.to_proto(model).SerializeToString(deterministic=True)


def test_a_shared_tensor_is_written_once(tmp_path: Path) -> None:
    model = as_model(weighted(2000, 2000))
    first, second = model.graph.initializers.values()
    second.const_value = first.const_value
    save(model, tmp_path / "out.onnx", external_data=True)
    assert (tmp_path / "out.onnx.data").stat().st_size == 8000
    again = load(tmp_path / "out.onnx").graph.initializers
    assert np.array_equal(again["w0"].const_value.numpy(), again["w1"].const_value.numpy())


def test_more_than_protobuf_holds_moves_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(io, "_PROTOBUF_LIMIT", io._MARGIN + 4000)
    save(as_model(weighted(2000)), tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx.data").stat().st_size == 8000
    model = as_model(weighted(2000))
    refused(lambda: save(model, tmp_path / "one.onnx", external_data=False), "protobuf holds 2 GB", "external data")


def test_ir_version_rises_only_for_the_opset(tmp_path: Path) -> None:
    for opset, expected in ((17, 8), (21, 10), (23, 11)):
        model = as_model(parse(RELU.replace("17", str(opset))))
        save(model, tmp_path / "out.onnx")
        assert onnx.load(tmp_path / "out.onnx").ir_version == expected
        assert model.ir_version == 8


@pytest.mark.parametrize("name", ["model.onnx", "model.onnx_data", "link.onnx", "hard.onnx", "data-link"])
def test_the_input_is_never_overwritten(name: str, tmp_path: Path) -> None:
    path = write_external(tmp_path, 3, 2000)
    model = load(path)
    (tmp_path / "link.onnx").symlink_to(path)
    os.link(path, tmp_path / "hard.onnx")
    (tmp_path / "data-link").symlink_to("model.onnx_data")
    before = tree(tmp_path)
    refused(lambda: save(model, tmp_path / name), "is the input itself", "choose another output")
    refused(lambda: save(model.clone(), tmp_path / name), "is the input itself")
    assert tree(tmp_path) == before


def test_the_data_file_of_the_input_is_never_overwritten(tmp_path: Path) -> None:
    model = load(write_external(tmp_path, 3, 2000, location="out.onnx.data"))
    before = tree(tmp_path)
    refused(lambda: save(model, tmp_path / "out.onnx"), "out.onnx.data' is the input itself")
    assert tree(tmp_path) == before


def test_a_link_is_replaced_and_its_target_kept(tmp_path: Path) -> None:
    (tmp_path / "v1.onnx").write_bytes(b"version 1")
    (tmp_path / "latest.onnx").symlink_to("v1.onnx")
    save(as_model(parse(RELU)), tmp_path / "latest.onnx")
    assert (tmp_path / "v1.onnx").read_bytes() == b"version 1"
    assert not (tmp_path / "latest.onnx").is_symlink()


def test_permissions_are_those_of_a_new_file_or_of_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    (tmp_path / "old.onnx").touch(mode=0o600)
    for name in ("new.onnx", "old.onnx"):
        save(as_model(parse(RELU)), tmp_path / name)
    modes = {p.name: p.stat().st_mode & 0o777 for p in tmp_path.iterdir()}
    assert modes["new.onnx"] == modes["plain"]
    assert modes["old.onnx"] == 0o600


def test_a_place_where_nothing_can_be_written(tmp_path: Path) -> None:
    model = as_model(parse(RELU))
    refused(lambda: save(model, tmp_path / "no" / "m.onnx"), "is missing", "mkdir -p")
    refused(lambda: save(model, tmp_path), "is a folder")
    refused(lambda: save(model, "/dev/null"), "not a regular file")
    refused(lambda: save(model, tmp_path / ("n" * 300)), "shorter name")
    refused(lambda: save(model, "/proc/m.onnx"), "cannot write")
    assert tree(tmp_path) == {}


class Failing:
    """Stands for a function; raises at its call number ``at``, else does what the function does."""

    def __init__(self, real: Callable[..., object], error: BaseException, at: int) -> None:
        self.real, self.error, self.left = real, error, at

    def __call__(self, *args: object, **kwargs: object) -> object:
        self.left -= 1
        if self.left == 0:
            raise self.error
        return self.real(*args, **kwargs)


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize(("place", "at"), [("fsync", 1), ("fsync", 2), ("replace", 1), ("replace", 2), ("replace", 3)])
@pytest.mark.parametrize("existing", [False, True])
def test_after_a_failure_everything_is_as_before(
    error: BaseException, place: str, at: int, existing: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.onnx"
    if existing:
        save(as_model(weighted(1000)), out, external_data=True)
    before = tree(tmp_path)
    model = as_model(weighted(3, 2000))
    monkeypatch.setattr(atomic_module.os, place, Failing(getattr(os, place), error, at))
    if place == "replace" and at == 3 and not existing:
        save(model, out, external_data=True)  # two renames are all it takes
        return
    if isinstance(error, OSError):
        refused(lambda: save(model, out, external_data=True), "No space left", "disk or the quota is full")
    else:
        with pytest.raises(KeyboardInterrupt):
            save(model, out, external_data=True)
    assert tree(tmp_path) == before


def test_an_interrupt_while_weights_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    model = load(write_external(tmp_path / "in", 3, 2000))
    before = tree(tmp_path)
    failing = Failing(ir.ExternalTensor.tofile, KeyboardInterrupt(), 2)
    monkeypatch.setattr(ir.ExternalTensor, "tofile", lambda self, file: failing(self, file))
    with pytest.raises(KeyboardInterrupt):
        save(model, tmp_path / "out.onnx")
    assert tree(tmp_path) == before


def test_a_full_disk(tmp_path: Path) -> None:
    """The kernel itself refuses to write: the file size limit of a child process."""
    resource = pytest.importorskip("resource")
    path = write_external(tmp_path, 3, 200_000)
    before = tree(tmp_path)
    code = (
        "import sys\nfrom gn_deploy.errors import InputError\nfrom gn_deploy.graph.io import load, save\n"
        "try:\n    save(load(sys.argv[1]), sys.argv[2])\nexcept InputError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), str(tmp_path / "out.onnx")],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: (
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN),
        ),
    )
    assert "the disk or the quota is full" in done.stdout
    assert tree(tmp_path) == before
