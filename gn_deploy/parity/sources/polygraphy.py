"""Polygraphy's JSON of inputs and of results, read without polygraphy and one case at a time."""

import base64
import binascii
import io
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from gn_deploy.errors import InputError
from gn_deploy.parity.sources.given import Given

_KIND = "polygraphy_class"
_LEGACY = "__polygraphy_encoded_"  # before 0.35: {"__polygraphy_encoded_ndarray": "__polygraphy__", "array": ...}
_CHUNK = 1 << 20
_MARKS = re.compile(r'\\.|["{}\[\]]', re.DOTALL)
_HINT = "needed: what polygraphy --save-inputs or polygraphy.json.save_json wrote: {input: array} or a list of them"


def read_json(path: Path) -> Iterator[Given]:
    """A dict of arrays, a list of such dicts, or RunResults, of which each iteration's outputs are the arrays.

    Of a list one entry is held at a time. Raises InputError for any other JSON.
    """
    count = 0
    try:
        with path.open(encoding="utf-8") as file:
            for text, listed in _entries(file):
                entry = json.loads(text, object_hook=_decoded)
                for feeds in _cases(entry):
                    if not isinstance(feeds, Mapping) or not all(isinstance(a, np.ndarray) for a in feeds.values()):
                        raise ValueError("it is no Polygraphy JSON of arrays")
                    name = f"{path.stem} {count}" if listed or isinstance(entry, _Results) else path.stem
                    yield Given(name, feeds, path.name)
                    count += 1
    except (OSError, ValueError, KeyError, EOFError) as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        raise InputError(f"cannot read {path}: {error}", _HINT) from None


class _Results(list[Any]):
    """RunResults: pairs of a runner's name and its iterations."""


def _cases(entry: Any) -> Iterator[Any]:
    if isinstance(entry, _Results):
        yield from (iteration for _, iterations in entry[:1] for iteration in iterations)  # of the first runner
    else:
        yield entry


def _decoded(data: dict[str, Any]) -> Any:
    kind = data.get(_KIND) or next((key.removeprefix(_LEGACY) for key in data if key.startswith(_LEGACY)), None)
    if kind == "ndarray":
        return _array(data["array"])
    if kind == "Tensor":
        return _tensor(data["tensor"])
    if kind in ("LazyArray", "LazyNumpyArray"):
        return data["values"]
    if kind == "IterationResult":
        return data["outputs"]
    if kind == "RunResults":
        return _Results(data["lst"])
    if kind is not None:
        raise ValueError(f"it holds a {kind}, not arrays")
    return data


def _array(text: str) -> Any:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        data = text.encode("latin-1")  # before 0.35
    loaded = np.load(io.BytesIO(data), allow_pickle=False)
    return loaded if isinstance(loaded, np.ndarray) else next(iter(loaded.values()))


def _tensor(text: str) -> Any:
    from gn_deploy.exporters.failure import need

    need("torch")
    import torch

    tensor = torch.load(io.BytesIO(base64.b64decode(text, validate=True)), weights_only=True, map_location="cpu")
    return (tensor.float() if tensor.dtype is torch.bfloat16 else tensor).numpy()


def _entries(file: IO[str]) -> Iterator[tuple[str, bool]]:
    """The texts of a list's objects one after the other, and True; a single object's text, and False.

    Brackets are counted outside of strings; the base64 of the arrays holds none of the marks, so this is one search.
    """
    depth, listed, quoted = 0, False, False
    parts: list[str] = []
    while chunk := file.read(_CHUNK):
        while chunk.endswith("\\"):  # an escape stays whole
            chunk += file.read(1) or " "
        start = 0
        for mark in _MARKS.finditer(chunk):
            sign = mark.group()
            if sign == '"':
                quoted = not quoted
            elif quoted or len(sign) > 1:
                continue
            elif sign in "{[":
                if sign == "[" and not depth and not listed:
                    listed = True
                    continue
                start = start if depth else mark.start()
                depth += 1
            elif depth:
                depth -= 1
                if not depth:
                    yield "".join([*parts, chunk[start : mark.end()]]), listed
                    parts.clear()
        if depth:
            parts.append(chunk[start:])
    if depth or quoted:
        raise ValueError("it ends in the middle")
