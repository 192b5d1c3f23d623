"""What a source gave, matched with the inputs of a model: cases, or one sentence about what does not fit."""

import itertools
import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from zipfile import BadZipFile

import numpy as np

from gn_deploy.errors import InputError
from gn_deploy.parity.cases import Array, Case, InputSpec
from gn_deploy.parity.sources.given import Given
from gn_deploy.spec import FLOAT_DTYPES

PIECE_BYTES = 1 << 25  # of one case's inputs: more samples than fit in 32 MB are judged in several cases
_SHOWN = 8  # names in a message before it is cut short


def fit(given: Given, specs: Sequence[InputSpec], note: Callable[[str], None]) -> Iterator[Case]:
    """The case, or several where it holds more samples than the model takes at once or than should be held at once.

    Arrays are matched by name, or by position where they have none; a model with one input takes the only array there
    is under whatever name, which is told to ``note``. Raises InputError for what does not fit.
    """
    for one in _told_apart(given, [s.name for s in specs]):
        arrays = _matched(one, specs, note)
        pieces = _pieces(arrays, specs)
        for rows in pieces:
            name = one.name if rows is None else f"{one.name}[{rows.start}:{rows.stop}]"
            parts = {s.name: rows if s.name in pieces.cut else None for s in specs}
            feeds = {s.name: _taken(one, arrays[s.name], s, parts[s.name]) for s in specs}
            yield Case(name, feeds, "user", True)


def _told_apart(given: Given, names: Sequence[str]) -> list[Given]:
    """Arrays named ``case/input`` are cases of their own, unless the inputs themselves are called so."""
    if not isinstance(given.arrays, Mapping) or given.arrays.keys() >= set(names):
        return [given]
    cases: dict[str, dict[str, Any]] = {}
    for key, array in given.arrays.items():
        case, slash, name = str(key).partition("/")
        cases.setdefault(case if slash else given.name, {})[name if slash else str(key)] = array
    return [Given(case, arrays, given.where) for case, arrays in cases.items()]


class _Pieces:
    """Slices of the first axis, for the inputs named in ``cut``; one None when nothing is cut."""

    def __init__(self, cut: frozenset[str] = frozenset(), samples: int = 0, size: int = 0) -> None:
        self.cut, self._samples, self._size = cut, samples, size

    def __iter__(self) -> Iterator[slice | None]:
        if not self.cut:
            yield None
            return
        for start in range(0, self._samples, self._size):
            yield slice(start, min(start + self._size, self._samples))


def _matched(given: Given, specs: Sequence[InputSpec], note: Callable[[str], None]) -> dict[str, Any]:
    names = [s.name for s in specs]
    if not isinstance(given.arrays, Mapping):
        if len(given.arrays) != len(names):
            raise InputError(
                f"{given.where}: case '{given.name}' has {_count(given.arrays, 'array')}, the model has "
                f"{_count(names, 'input')}: {_some(names)}",
                "give one array for each input, in this order or by its name",
            )
        return {name: as_array(array, given, name) for name, array in zip(names, given.arrays, strict=True)}
    held = {str(name): array for name, array in given.arrays.items()}
    if len(names) == 1 and len(held) == 1 and names[0] not in held:
        (other,) = held
        note(f"{given.where}: its only array '{other}' was taken for input '{names[0]}'")
        held = {names[0]: held[other]}
    if missing := [name for name in names if name not in held]:
        raise InputError(
            f"{given.where}: case '{given.name}' has no array for input '{missing[0]}'",
            f"it has: {_some(sorted(held))}",
        )
    return {name: as_array(held[name], given, name) for name in names}


def as_array(value: Any, given: Given, name: str) -> Any:
    """An array as it is, a torch tensor or a number as one; refused in words when it is neither."""
    if hasattr(value, "detach"):  # torch's, whose bfloat16 NumPy does not know
        value = value.detach().cpu()
        return (value.float() if str(value.dtype) == "torch.bfloat16" else value).numpy()
    if hasattr(value, "shape") and hasattr(value, "dtype") and hasattr(value, "nbytes"):
        return value
    try:
        return np.asarray(value)
    except (TypeError, ValueError):
        raise InputError(
            f"{given.where}: '{name}' of case '{given.name}' is a {type(value).__name__}, not an array",
            "give NumPy arrays",
        ) from None


def _pieces(arrays: Mapping[str, Any], specs: Sequence[InputSpec]) -> _Pieces:
    """How to cut along the first axis: a fixed batch of which there are several, or a free one of which there is a lot.

    All inputs that share this axis are cut alike; where they do not agree nothing is cut.
    """
    batched = [s for s in specs if s.shape and arrays[s.name].ndim == len(s.shape)]
    fixed = [s for s in batched if isinstance(s.shape[0], int) and arrays[s.name].shape[0] != s.shape[0]]
    if fixed:
        sizes = {(s.shape[0], arrays[s.name].shape[0]) for s in fixed}
        (size, samples), *others = sizes
        if others or not isinstance(size, int) or samples % size or not samples:
            return _Pieces()
        return _Pieces(frozenset(s.name for s in fixed), samples, size)
    total = sum(a.nbytes for a in arrays.values())
    free = [s for s in batched if not isinstance(s.shape[0], int)]
    if total <= PIECE_BYTES or not free:
        return _Pieces()
    symbol, counts = free[0].shape[0], {arrays[s.name].shape[0] for s in free}
    elsewhere = [d for s in specs for d in s.shape[1:] if symbol is not None and d == symbol]
    if len(counts) != 1 or elsewhere or len({s.shape[0] for s in free}) != 1:
        return _Pieces()
    (samples,) = counts
    size = max(1, math.floor(PIECE_BYTES / (total / samples)))
    return _Pieces(frozenset(s.name for s in free), samples, size)


def _taken(given: Given, array: Any, spec: InputSpec, rows: slice | None) -> Array:
    shape = tuple(array.shape)
    if rows is not None:
        shape = (rows.stop - rows.start, *shape[1:])
    fits = len(shape) == len(spec.shape) and all(
        not isinstance(d, int) or d == a for d, a in zip(spec.shape, shape, strict=True)
    )
    if not fits:
        raise InputError(
            f"{given.where}: '{spec.name}' has shape {shape}, the model takes {_dims(spec.shape)}",
            "names stand for sizes that are free, numbers are fixed",
        )
    if 0 in shape:
        raise InputError(f"{given.where}: '{spec.name}' has shape {shape}: it holds no number", "save a larger batch")
    dtype = np.dtype(array.dtype)
    whole = np.issubdtype(dtype, np.integer) or dtype.kind == "b"
    real = whole or np.issubdtype(dtype, np.floating) or dtype.name in FLOAT_DTYPES
    if not (real if spec.dtype in FLOAT_DTYPES else whole):
        raise InputError(
            f"{given.where}: '{spec.name}' has dtype {dtype}, the model takes {spec.dtype}",
            f"save it with .astype('{spec.dtype}')",
        )
    try:
        return np.array(array if rows is None else array[rows], dtype=spec.dtype)
    except (OSError, ValueError, EOFError, BadZipFile, zlib.error) as error:
        raise InputError(f"{given.where}: '{spec.name}' cannot be read: {error}", "the file is not whole") from None


def _dims(shape: Sequence[int | str | None]) -> str:
    return f"({', '.join('?' if d is None else str(d) for d in shape)})"


def _count(things: Sequence[Any], word: str) -> str:
    return f"{len(things)} {word}{'' if len(things) == 1 else 's'}"


def _some(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join([*itertools.islice(names, _SHOWN), *([f"{more} more"] if more > 0 else [])])
