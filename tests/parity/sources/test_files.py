"""Files of the user's own: every kind is read as what it holds, or refused in one sentence."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from gn_deploy.errors import InputError
from gn_deploy.parity.cases import Case, InputSpec
from gn_deploy.parity.sources.data import Data
from gn_deploy.parity.sources.polygraphy import _entries

IMAGE = InputSpec("image", "float32", ("batch", 3, "h", "w"))
STEP = InputSpec("step", "int64", ("batch",))
X = InputSpec("x", "float32", ("N", 4, 3, 2))
GOLDEN = Path(__file__).parents[2] / "golden" / "polygraphy"
RAMP = np.arange(24).reshape(1, 4, 3, 2) / 8


def read(source: Any, *specs: InputSpec, **options: Any) -> list[Case]:
    return list(Data(source, specs, **options))


def test_archives_and_folders(tmp_path: Path) -> None:
    image, step = np.ones((1, 3, 4, 4)), np.array([7])
    np.savez(tmp_path / "one.npz", image=image, step=step)
    (case,) = read(tmp_path / "one.npz", IMAGE, STEP)
    assert case.conditioned
    assert case.feeds["image"].dtype == np.float32
    assert case.feeds["step"].tolist() == [7]
    np.savez_compressed(
        tmp_path / "two.npz", **{"a/image": image, "a/step": step, "b/image": 2 * image, "b/step": step}
    )
    assert [c.name for c in read(tmp_path / "two.npz", IMAGE, STEP)] == ["a", "b"]
    cases = read(tmp_path, IMAGE, STEP)
    assert [c.name for c in cases] == ["one", "a", "b"]
    assert [c.feeds["image"].max() for c in cases] == [1, 1, 2]
    assert [c.name for c in read(tmp_path, IMAGE, STEP, limit=2)] == ["one", "a"]


def test_arrays_named_after_the_inputs_are_one_case(tmp_path: Path) -> None:
    np.save(tmp_path / "image.npy", np.ones((1, 3, 4, 4)))
    assert read(tmp_path, IMAGE)[0].feeds["image"].shape == (1, 3, 4, 4)
    np.save(tmp_path / "step.npy", np.array([7]))
    np.save(tmp_path / "labels.npy", np.array([7]))
    data = Data(tmp_path, [IMAGE, STEP])
    (case,) = data
    assert case.feeds.keys() == {"image", "step"}
    assert data.notes == (f"{tmp_path.name}: labels.npy is named after no input and not read",)


def test_input_names_may_hold_a_slash(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", **{"a/x": RAMP, "a/y": RAMP})
    (case,) = read(tmp_path / "x.npz", InputSpec("a/x", *_of(X)), InputSpec("a/y", *_of(X)))
    assert case.feeds.keys() == {"a/x", "a/y"}


def _of(spec: InputSpec) -> tuple[str, tuple[int | str | None, ...]]:
    return spec.dtype, spec.shape


def test_the_only_array_under_another_name_is_taken_and_told(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", picture=np.ones((1, 3, 4, 4)))
    data = Data(tmp_path / "x.npz", [IMAGE])
    assert len(list(data)) == 1
    assert data.notes == ("x.npz: its only array 'picture' was taken for input 'image'",)
    with pytest.raises(InputError, match="no array for input 'image'"):
        read(tmp_path / "x.npz", IMAGE, STEP)


@pytest.mark.parametrize(("file", "counts"), [("inputs.json", [1, 2]), ("one.json", [1]), ("results.json", [1, 1])])
def test_polygraphy(file: str, counts: list[int]) -> None:
    """Files that polygraphy 0.53.6 wrote: --save-inputs, one feed_dict, --save-outputs of two runners."""
    cases = read(GOLDEN / file, X)
    assert [len(c.feeds["x"]) for c in cases] == counts
    np.testing.assert_array_equal(cases[0].feeds["x"], RAMP)
    if file == "results.json":
        np.testing.assert_array_equal(cases[1].feeds["x"], 2 * RAMP)
    assert len({c.name for c in cases}) == len(cases)


def test_a_folder_of_polygraphy_files_is_read_in_order(tmp_path: Path) -> None:
    for i in (1, 0):
        (tmp_path / f"{i:010}.json").write_bytes((GOLDEN / "one.json").read_bytes())
    assert [c.name for c in read(tmp_path, X)] == ["0000000000", "0000000001"]


def test_polygraphy_tensors_and_files_of_old(tmp_path: Path) -> None:
    import base64

    whole = io.BytesIO()
    np.save(whole, RAMP)
    old = {"x": {"array": whole.getvalue().decode("latin-1"), "__polygraphy_encoded_ndarray": "__polygraphy__"}}
    (tmp_path / "old.json").write_text(json.dumps([old]))
    np.testing.assert_array_equal(read(tmp_path / "old.json", X)[0].feeds["x"], RAMP)
    saved = io.BytesIO()
    torch.save(torch.from_numpy(RAMP), saved)
    tensor = {"x": {"tensor": base64.b64encode(saved.getvalue()).decode(), "polygraphy_class": "Tensor"}}
    (tmp_path / "tensor.json").write_text(json.dumps(tensor))
    np.testing.assert_array_equal(read(tmp_path / "tensor.json", X)[0].feeds["x"], RAMP)


@pytest.mark.parametrize("chunk", [1, 2, 3, 1000])
def test_a_list_is_split_wherever_the_reading_stops(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from gn_deploy.parity.sources import polygraphy

    monkeypatch.setattr(polygraphy, "_CHUNK", chunk)
    entries = [{"a": [1, {"b": '}]\\"{'}]}, {"\\": '"', "é": "[\\\\"}, {}]
    for indent in (None, 4):
        found = list(_entries(io.StringIO(json.dumps(entries, indent=indent, ensure_ascii=False))))
        assert [json.loads(text) for text, _ in found] == entries
        assert all(listed for _, listed in found)
    ((text, listed),) = _entries(io.StringIO(json.dumps(entries[0])))
    assert (json.loads(text), listed) == (entries[0], False)


@pytest.mark.parametrize(
    "content",
    [
        '{"x": [1, 2]}',
        "[[1]]",
        "[{]",
        '{"x": ',
        "no JSON",
        '[{"polygraphy_class": "Module"}]',
        '{"x": {"array": "AAAA", "polygraphy_class": "ndarray"}}',
        "\xff",
    ],
)
def test_other_json_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError) as refused:
        read(tmp_path / "x.json", X)
    assert "polygraphy" in refused.value.hint or "gives no input" in refused.value.message


def test_onnx_test_data(tmp_path: Path) -> None:
    for n in (0, 1, 10, 2):
        folder = tmp_path / f"test_data_set_{n}"
        folder.mkdir()
        named = n != 1
        step = numpy_helper.from_array(np.array([n]), "step" if named else "")
        image = numpy_helper.from_array(np.ones((1, 3, 4, 4), np.float32), "image" if named else "")
        for i, tensor in enumerate([step, image] if named else [image, step]):  # names go before numbers
            (folder / f"input_{i}.pb").write_bytes(tensor.SerializeToString())
        (folder / "output_0.pb").write_bytes(b"is not read")
    (tmp_path / "model.onnx").write_bytes(b"")
    cases = read(tmp_path, IMAGE, STEP)
    assert [c.name for c in cases] == ["test_data_set_0", "test_data_set_1", "test_data_set_2", "test_data_set_10"]
    assert [int(c.feeds["step"][0]) for c in cases] == [0, 1, 2, 10]
    assert len(read(tmp_path / "test_data_set_2", IMAGE, STEP)) == 1
    for bad in (b"\xff\xff", b"", onnx.TensorProto(data_type=1, dims=[4]).SerializeToString()):
        (tmp_path / "test_data_set_0" / "input_0.pb").write_bytes(bad)
        with pytest.raises(InputError, match=r"cannot read .*input_0.pb"):
            read(tmp_path, IMAGE, STEP)


def test_torch_files(tmp_path: Path) -> None:
    image, step = torch.ones(1, 3, 4, 4), torch.tensor([7])
    for name, held, count in (
        ("dict", {"image": image, "step": step}, 1),
        ("tuple", (image, step), 1),
        ("tensors", [image, step], 1),
        ("list", [{"image": image, "step": step}, (2 * image, step)], 2),
    ):
        torch.save(held, tmp_path / f"{name}.pt")
        cases = read(tmp_path / f"{name}.pt", IMAGE, STEP)
        assert [c.feeds["image"].max() for c in cases] == [1, 2][:count], name
    torch.save(image.bfloat16(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert read(tmp_path / "old.pth", IMAGE)[0].feeds["image"].dtype == np.float32
    torch.save(torch.nn.ReLU(), tmp_path / "module.pt")
    with pytest.raises(InputError, match="more than tensors, and reading that would run its code"):
        read(tmp_path / "module.pt", IMAGE)
    (tmp_path / "cut.pt").write_bytes((tmp_path / "dict.pt").read_bytes()[:-40])
    with pytest.raises(InputError, match=r"cut\.pt"):
        read(tmp_path / "cut.pt", IMAGE, STEP)
    torch.save(3, tmp_path / "number.pt")
    with pytest.raises(InputError, match="holds a int, not tensors"):
        read(tmp_path / "number.pt", IMAGE)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"image": np.ones((1, 3, 4, 4))}, "no array for input 'step'"),
        ({"image": np.ones((1, 4, 4, 4)), "step": np.ones(1, int)}, r"'image' has shape .* \(batch, 3, h, w\)"),
        ({"image": np.ones((1, 3, 4)), "step": np.ones(1, int)}, r"'image' has shape \(1, 3, 4\)"),
        ({"image": np.ones((1, 3, 4, 4)), "step": np.ones(1)}, "'step' has dtype float64"),
        ({"image": np.full((1, 3, 4, 4), "a"), "step": np.ones(1, int)}, "'image' has dtype <U1"),
        ({"image": np.ones((1, 3, 4, 4)) * 1j, "step": np.ones(1, int)}, "'image' has dtype complex128"),
        ({"image": np.ones((0, 3, 4, 4)), "step": np.ones(0, int)}, "it holds no number"),
        ({}, "holds no array"),
    ],
)
def test_what_does_not_fit(tmp_path: Path, arrays: dict[str, np.ndarray], words: str) -> None:
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(InputError, match=words):
        read(tmp_path / "x.npz", IMAGE, STEP)
    if arrays:
        with pytest.raises(InputError, match=words):
            read(arrays, IMAGE, STEP)


def test_bad_files(tmp_path: Path) -> None:
    for name in ("bad.npz", "bad.npy", "bad.txt"):
        (tmp_path / name).write_bytes(b"no archive")
        with pytest.raises(InputError, match=r"cannot read .*: it is not a NumPy file"):
            read(tmp_path / name, IMAGE)
    np.savez(tmp_path / "whole.npz", image=np.random.default_rng(0).random((1, 3, 64, 64)))
    whole = (tmp_path / "whole.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[:-40])
    with pytest.raises(InputError, match=r"cannot read .*cut\.npz"):
        read(tmp_path / "cut.npz", IMAGE)
    (tmp_path / "spoilt.npz").write_bytes(whole[:9000] + b"\0" * 100 + whole[9100:])
    with pytest.raises(InputError, match=r"spoilt\.npz"):
        read(tmp_path / "spoilt.npz", IMAGE)
    np.save(tmp_path / "half.npy", np.ones((1, 3, 64, 64)))
    (tmp_path / "half.npy").write_bytes((tmp_path / "half.npy").read_bytes()[:-40])
    with pytest.raises(InputError, match=r"cannot read .*half\.npy"):
        read(tmp_path / "half.npy", IMAGE)
    np.savez(tmp_path / "object.npz", image=np.array([{}], object))
    with pytest.raises(InputError, match=r"object\.npz"):
        read(tmp_path / "object.npz", IMAGE)
    with pytest.raises(InputError, match="no such file"):
        read(tmp_path / "absent.npy", IMAGE)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no \.npz or \.npy file"):
        read(tmp_path / "empty", IMAGE)
    np.save(tmp_path / "one.npy", np.ones((1, 3, 4, 4)))
    with pytest.raises(InputError, match="has 1 array, the model has 2 inputs: image, step"):
        read(tmp_path / "one.npy", IMAGE, STEP)
    with pytest.raises(InputError, match="a limit of 0"):
        read(tmp_path / "one.npy", IMAGE, limit=0)
