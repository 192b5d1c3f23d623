"""Labelled data: the user's arrays, one row per sample, dealt to the models in batches."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gn_deploy.errors import InputError
from gn_deploy.parity.cases import Case, InputSpec
from gn_deploy.parity.sources.archive import mapped, read_npz

Array = NDArray[Any]
LABELS = ("labels", "label", "y", "target", "targets")
"""Names that an array of labels goes by when none was given."""
KINDS = "needed: a .npz, an .npy or a folder of .npy files, one row per sample"
BATCH = 32  # samples run at once where the model leaves that free: memory stays small, a runtime is busy enough


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """Inputs by the reference's own names, the first axis of each counting the samples; labels where there are any."""

    inputs: Mapping[str, Any]
    """Arrays, or what is read as it is sliced."""
    labels: Array | None
    samples: int
    batch: int = BATCH
    fixed: bool = False
    """The models take ``batch`` samples and no other number: the last batch is filled up."""
    archive: Any = None
    """What has to stay open for the inputs to be read."""

    def __len__(self) -> int:
        return self.samples

    def batches(self) -> Iterator[tuple[slice, Case]]:
        """Which samples, and what to feed; a filled-up batch holds its last sample more than once."""
        for start in range(0, len(self), self.batch):
            rows = slice(start, min(start + self.batch, len(self)))
            feeds = {name: np.asarray(array[rows]) for name, array in self.inputs.items()}
            if self.fixed and (short := self.batch - (rows.stop - start)):
                feeds = {name: np.concatenate([a, np.repeat(a[-1:], short, 0)]) for name, a in feeds.items()}
            yield rows, Case(f"samples {rows.start} to {rows.stop - 1}", feeds, "user", conditioned=True)

    def first(self) -> Case:
        """The first batch, to judge every GroupNorm on."""
        return next(self.batches())[1]


def read_labelled(
    data: Any, specs: Sequence[InputSpec], labels: "str | Path | Array | None" = None, *, limit: int | None = None
) -> Labelled:
    """Arrays from a .npz, a folder of .npy files named after inputs, one .npy, or a mapping by name.

    ``labels`` is the name of the array of labels, an .npy file, or the labels; without it one of LABELS that is no
    input. At most ``limit`` samples are used, and inputs are read batch by batch. Raises InputError when arrays are
    missing or do not fit.
    """
    if not isinstance(data, str | Path | Mapping):
        raise InputError(
            f"labelled data cannot be a {type(data).__name__}",
            "needed: a path, or a mapping of arrays with all samples",
        )
    arrays, kept = (dict(data), None) if isinstance(data, Mapping) else _read(Path(data))
    where = "the data" if isinstance(data, Mapping) else Path(data).name
    known = {s.name for s in specs}
    found: Array | None = None
    if isinstance(labels, str | Path) and str(labels) not in arrays and Path(labels).suffix == ".npy":
        found = np.asarray(_npy(Path(labels)))
    elif isinstance(labels, str | Path):
        if str(labels) not in arrays:
            raise InputError(f"{where} has no array '{labels}'", f"it has: {', '.join(sorted(arrays)) or 'none'}")
        found = np.asarray(arrays.pop(str(labels)))
    elif labels is not None:
        found = np.asarray(labels)
    elif len(arrays) > 1 and (name := next((n for n in LABELS if n in arrays and n not in known), None)):
        found = np.asarray(arrays.pop(name))
    if len(specs) == 1 and len(arrays) == 1:
        arrays = {specs[0].name: next(iter(arrays.values()))}
    inputs = {spec.name: _checked(arrays, spec, where) for spec in specs}
    if not inputs:
        raise InputError("the model takes no input", "a task metric needs samples to run it on")
    counts = {name: int(array.shape[0]) for name, array in inputs.items()} | (
        {} if found is None else {"labels": _rows(found)}
    )
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{count} of '{name}'" for name, count in counts.items())
        raise InputError(f"{where} does not hold one row per sample: {told}", "the first axis counts the samples")
    if not max(counts.values()):
        raise InputError(f"{where} holds no sample", "save at least one; an interval needs dozens")
    sizes = [size for size in dict.fromkeys(s.shape[0] for s in specs) if isinstance(size, int)]
    if len(sizes) > 1:
        raise InputError(f"the inputs take {' and '.join(map(str, sizes))} samples at once", "they must agree")
    samples = min(max(counts.values()), limit or max(counts.values()))
    whole = None if found is None else found[:samples]
    return Labelled(inputs, whole, samples, sizes[0] if sizes else BATCH, bool(sizes), kept)


def _rows(labels: Array) -> int:
    if not labels.ndim:
        raise InputError("the labels are one number", "one row per sample")
    return len(labels)


def _checked(arrays: Mapping[str, Array], spec: InputSpec, where: str) -> Array:
    if spec.name not in arrays:
        raise InputError(
            f"{where} has no array for input '{spec.name}'", f"it has: {', '.join(sorted(arrays)) or 'none'}"
        )
    array = arrays[spec.name] if hasattr(arrays[spec.name], "shape") else np.asarray(arrays[spec.name])
    inner = zip(spec.shape[1:], array.shape[1:], strict=False)
    if not spec.shape or array.ndim != len(spec.shape) or any(isinstance(d, int) and d != n for d, n in inner):
        dims = ", ".join("?" if d is None else str(d) for d in spec.shape)
        raise InputError(f"{where}: '{spec.name}' has shape {array.shape}, the model takes ({dims})", "samples first")
    return array


def _read(path: Path) -> tuple[dict[str, Any], Any]:
    """Arrays by name, and what has to stay open while they are read."""
    if path.is_dir():
        found = {p.stem: mapped(p) for p in sorted(path.glob("*.npy"))}
        if not found:
            raise InputError(f"no .npy file in {path}", "name them after the inputs, and labels.npy")
        return found, None
    if path.suffix != ".npz":
        return {path.stem: _npy(path)}, None
    if not path.exists():
        raise InputError(f"no such file: {path}", KINDS)
    archive = read_npz(path)
    return dict(next(archive).arrays), archive


def _npy(path: Path) -> Array:
    if path.suffix != ".npy":
        raise InputError(f"'{path}' is no labelled data", KINDS)
    if not path.exists():
        raise InputError(f"no such file: {path}", KINDS)
    return mapped(path)
