"""NumPy's files, .npy and .npz: mapped or read row by row, so that an array larger than memory is never held whole."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any
from zipfile import BadZipFile, ZipFile

import numpy as np

from gn_deploy.errors import InputError
from gn_deploy.parity.cases import Array
from gn_deploy.parity.sources.given import Given

SAVE = "save inputs with numpy.savez(file, name=array, ...)"
_NPY = ".npy"


def read_npy(path: Path) -> Iterator[Given]:
    """One array: a case of a model with one input."""
    yield Given(path.stem, [mapped(path)], path.name)


def mapped(path: Path) -> Array:
    """The array of an .npy, mapped into memory, not read."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise unreadable(path, error) from None
    if not isinstance(array, np.ndarray):
        raise InputError(f"{path} is an archive of arrays", f"rename it to {path.stem}.npz")
    return array


def read_npz(path: Path) -> Iterator[Given]:
    """One case, or several where arrays are named ``case/input``, which ``fit`` tells apart by the model's inputs."""
    try:
        with ZipFile(path) as archive:
            members = {name.removesuffix(_NPY): Member(archive, name) for name in archive.namelist()}
            if not members:
                raise InputError(f"{path.name} holds no array", SAVE)
            yield Given(path.stem, members, path.name)
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise unreadable(path, error) from None


class Member:
    """An array inside an .npz, read row by row as it is sliced, forwards."""

    def __init__(self, archive: ZipFile, name: str) -> None:
        self._archive, self._name = archive, name
        self._file: IO[bytes] | None = None
        with archive.open(name) as file:
            self.shape, self._fortran, self.dtype = _header(file, name)
            self._start = file.tell()

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def __getitem__(self, rows: slice) -> Array:
        """Rows ``start`` to ``stop``; a stride is not for archives."""
        if self._fortran or not self.shape:
            return self.__array__()[rows]
        start, stop, _ = rows.indices(self.shape[0])
        row = self.dtype.itemsize * math.prod(self.shape[1:])
        if self._file is None:
            self._file = self._archive.open(self._name)
        self._file.seek(self._start + start * row)
        data = self._file.read((stop - start) * row)
        return np.frombuffer(data, self.dtype).reshape(stop - start, *self.shape[1:])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        with self._archive.open(self._name) as file:
            array: Array = np.lib.format.read_array(file, allow_pickle=False)
        return array if dtype is None else array.astype(dtype)


def _header(file: IO[bytes], name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"'{name}' is of .npy version {version[0]}.{version[1]}")
    shape, fortran, dtype = read(file)
    if dtype.hasobject:
        raise ValueError(f"'{name}' holds pickled objects, which are not loaded")
    return shape, fortran, dtype


def unreadable(path: Path, error: BaseException, needed: str = ".npz or .npy without pickled objects") -> InputError:
    """Of a file that is no array at all NumPy says that it holds pickled objects."""
    text = str(error)
    alien = "pickle.load" in text or "not a zip file" in text or "magic string" in text
    return InputError(f"cannot read {path}: {'it is not a NumPy file' if alien else text}", f"needed: {needed}")
