"""Inputs of the user's own as a stream of cases, whatever they are given as."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from gn_deploy.errors import InputError
from gn_deploy.parity.cases import Case, InputSpec
from gn_deploy.parity.sources.archive import SAVE, mapped, read_npy, read_npz, unreadable
from gn_deploy.parity.sources.fit import fit
from gn_deploy.parity.sources.function import names_function, read_function, read_items
from gn_deploy.parity.sources.given import Given
from gn_deploy.parity.sources.onnx_tests import is_test_data, read_test_data
from gn_deploy.parity.sources.polygraphy import read_json
from gn_deploy.parity.sources.torch_file import read_torch

READERS: dict[str, Callable[[Path], Iterator[Given]]] = {
    ".npz": read_npz,
    ".npy": read_npy,
    ".json": read_json,
    ".pt": read_torch,
    ".pth": read_torch,
}
"""By the ending of the file's name."""
KINDS = ".npz, .npy, Polygraphy .json, .pt, ONNX test data, a folder of them, or FILE.py:FUNCTION"


class Data:
    """Cases for a model with inputs ``specs``; each is read when it is its turn, and nothing of it is kept here.

    1. ``source`` is the path of a file or a folder, FILE.py:FUNCTION or package.module:FUNCTION as text, or a mapping,
       an iterable or a function without arguments that gives one.
    2. At most ``limit`` cases are read.
    3. ``notes`` says what a reader should know of what has been read so far.
    4. Iterating raises InputError for what cannot be read or does not fit, and when there is nothing at all.
    """

    def __init__(self, source: Any, specs: Sequence[InputSpec], *, limit: int | None = None) -> None:
        if limit is not None and limit < 1:
            raise InputError(f"a limit of {limit} inputs leaves nothing to judge", "give 1 or more")
        self._source, self._specs, self._limit = source, specs, limit
        self._notes: dict[str, None] = {}

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(self._notes)

    def __iter__(self) -> Iterator[Case]:
        opened = _opened(self._source, [s.name for s in self._specs], self._note)
        cases = (case for given in opened for case in fit(given, self._specs, self._note))
        count = 0
        for case in itertools.islice(cases, self._limit):
            count += 1
            yield case
        if not count:
            raise InputError(f"{_named(self._source)} gives no input at all", "at least one is needed")

    def _note(self, text: str) -> None:
        self._notes.setdefault(text)


def _opened(source: Any, names: Sequence[str], note: Callable[[str], None]) -> Iterator[Given]:
    if not isinstance(source, str | Path):
        if hasattr(source, "shape") and hasattr(source, "dtype"):  # an array: its rows are no inputs of their own
            source = [source]
        return read_items(source, "data")
    path = Path(source)
    if isinstance(source, str) and names_function(source) and not path.exists():
        return read_function(source)
    if path.is_dir():
        return read_test_data(path) if is_test_data(path) else _read_folder(path, names, note)
    if not path.exists():
        raise InputError(f"no such file: {path}", f"needed: {KINDS}")
    if path.suffix == ".py":
        return read_function(str(path))
    if path.suffix not in READERS:
        raise unreadable(path, ValueError("magic string"), KINDS)
    return READERS[path.suffix](path)


def _read_folder(path: Path, names: Sequence[str], note: Callable[[str], None]) -> Iterator[Given]:
    """The files in the order of their names, each a case or several; .npy files named after all inputs are one case."""
    files = sorted(p for p in path.iterdir() if p.suffix in READERS and p.is_file())
    if not files:
        raise InputError(f"no .npz or .npy file in {path}", f"{SAVE}, or give {KINDS}")
    arrays = {p.stem: p for p in files if p.suffix == ".npy"}
    if arrays.keys() >= set(names):
        if others := sorted(arrays.keys() - set(names)):
            note(f"{path.name}: {', '.join(f'{other}.npy' for other in others)} is named after no input and not read")
        yield Given(path.name, {name: mapped(arrays[name]) for name in names}, path.name)
        files = [p for p in files if p.suffix != ".npy"]
    for file in files:
        yield from READERS[file.suffix](file)


def _named(source: Any) -> str:
    return f"'{source}'" if isinstance(source, str | Path) else "data"
