"""ONNX's own test data: folders test_data_set_0, test_data_set_1, ... of input_0.pb, input_1.pb, ..."""

import re
from collections.abc import Iterator
from pathlib import Path

from gn_deploy.errors import InputError
from gn_deploy.parity.cases import Array
from gn_deploy.parity.sources.given import Given

_SET = re.compile(r"test_data_set_(\d+)")
_INPUT = re.compile(r"input_(\d+)\.pb")


def is_test_data(folder: Path) -> bool:
    return bool(_inputs(folder) or _sets(folder))


def read_test_data(folder: Path) -> Iterator[Given]:
    """One case for each set, or the set itself. Arrays go by their names where all have one, else by their numbers."""
    files = _inputs(folder)
    if not files:
        for inner in _sets(folder):
            yield from read_test_data(inner)
        return
    loaded = [_load(file) for file in files]
    names = [name for name, _ in loaded]
    arrays = [array for _, array in loaded]
    named = all(names) and len(set(names)) == len(names)
    yield Given(folder.name, dict(zip(names, arrays, strict=True)) if named else arrays, folder.name)


def _sets(folder: Path) -> list[Path]:
    found = {path: match for path in folder.iterdir() if (match := _SET.fullmatch(path.name)) and path.is_dir()}
    return sorted(found, key=lambda path: int(found[path][1]))


def _inputs(folder: Path) -> list[Path]:
    found = {path: match for path in folder.iterdir() if (match := _INPUT.fullmatch(path.name))}
    return sorted(found, key=lambda path: int(found[path][1]))


def _load(path: Path) -> tuple[str, Array]:
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from onnx import numpy_helper

    try:
        tensor = onnx.TensorProto.FromString(path.read_bytes())
        if not tensor.data_type:
            raise ValueError("it holds no tensor")
        return tensor.name, numpy_helper.to_array(tensor)
    except (OSError, DecodeError, ValueError, TypeError, KeyError) as error:
        told = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"cannot read {path}: {told}", "needed: a TensorProto, as ONNX's backend tests have") from None
