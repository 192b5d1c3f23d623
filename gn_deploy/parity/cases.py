"""Cases: whole-model inputs drawn from the families or read from the user's files, and probes dealt over groups."""

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import ml_dtypes  # noqa: F401  (registers bfloat16 with NumPy)
import numpy as np
from numpy.typing import NDArray

from gn_deploy.errors import InputError
from gn_deploy.parity.families import FAMILIES
from gn_deploy.spec import FLOAT_DTYPES, GroupNormSpec

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["FAMILIES", "Case", "InputSpec", "bind", "deal", "from_files", "hands", "input_specs", "model_cases"]

Array = NDArray[Any]
IN_PLACE = ("normal", "offset", "constant", "small")
"""Families fed to whole models by default: enough to move every activation's mean and spread."""
_USUAL = 1e-5  # the epsilon of nearly every model, for drawing where the spec has none
DEFAULT_BATCH = 2  # more than one, so that statistics mixed over the batch show
DEFAULT_SIZE = 32  # divisible by the 2^5 that U-Nets and ResNets downsample by


@dataclass(frozen=True, slots=True)
class InputSpec:
    """One model input: name, NumPy dtype name, and its dims (a number, a symbol, or None)."""

    name: str
    dtype: str
    shape: tuple[int | str | None, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One set of model inputs. ``conditioned``: judging a whole network's output on it has a meaning."""

    name: str
    feeds: dict[str, Array]
    family: str
    conditioned: bool


def input_specs(model: "ir.Model") -> list[InputSpec]:
    """The inputs a caller must feed (initializers that are also listed as inputs are not)."""
    found = []
    for value in model.graph.inputs:
        if value.is_initializer():
            continue
        if value.dtype is None or value.shape is None:
            raise InputError(f"input '{value.name}' has no type or shape", "export the model again with both")
        dims = tuple(d if isinstance(d, int) else d.value for d in value.shape)
        found.append(InputSpec(value.name or "", str(value.dtype.numpy()), dims))
    return found


def bind(specs: Sequence[InputSpec], dims: Mapping[str, int] | None = None) -> list[InputSpec]:
    """Every dynamic dim becomes a number: the one given by name, else a default, equal for equal names."""
    chosen: dict[str, int] = dict(dims or {})
    known = {d for s in specs for d in s.shape if isinstance(d, str)}
    if unknown := sorted(chosen.keys() - known):
        raise InputError(f"no input has a dim named '{unknown[0]}'", f"dynamic dims: {', '.join(sorted(known)) or '-'}")
    bound = []
    for spec in specs:
        shape = []
        for axis, dim in enumerate(spec.shape):
            default = DEFAULT_BATCH if axis == 0 and len(spec.shape) > 1 else DEFAULT_SIZE
            shape.append(chosen.setdefault(dim, default) if isinstance(dim, str) else default if dim is None else dim)
        bound.append(InputSpec(spec.name, spec.dtype, tuple(shape)))
    return bound


def model_cases(
    specs: Sequence[InputSpec], families: Iterable[str] = IN_PLACE, dims: Mapping[str, int] | None = None
) -> list[Case]:
    """One case per family. Integers (token ids, time steps) are 0 or 1 and booleans true: valid everywhere."""
    return [
        Case(name, {s.name: _fill(s, name) for s in bind(specs, dims)}, name, FAMILIES[name].conditioned)
        for name in families
    ]


def deal(shape: Sequence[int], spec: GroupNormSpec, seed: int = 0, *, dtype: str | None = None) -> list[Array]:
    """Tensors of ``shape`` whose (sample, group) slots hold the families in turn, so one run probes all of them.

    With fewer slots than families several tensors come back, rotated until each family was in some slot.
    """
    dtype = dtype or spec.dtype
    epsilon = spec.epsilon or _USUAL
    channels_last = spec.channel_axis == -1
    moved = (shape[0], shape[-1], *shape[1:-1]) if channels_last else tuple(shape)
    tensors = []
    for hand in hands(shape, spec):
        x = np.empty((len(hand), int(np.prod(moved)) // len(hand)))
        for name in dict.fromkeys(hand):
            rows = [i for i, held in enumerate(hand) if held == name]
            x[rows] = FAMILIES[name].draw(_rng(name, seed), (len(rows), x.shape[1]), epsilon, dtype)
        x = x.reshape(moved)
        tensors.append(np.ascontiguousarray(np.moveaxis(x, 1, -1) if channels_last else x).astype(dtype))
    return tensors


def hands(shape: Sequence[int], spec: GroupNormSpec) -> list[list[str]]:
    """For each tensor of ``deal`` the family's name in each of its (sample, group) slots."""
    defined = (name for name in FAMILIES if spec.epsilon or name != "constant")  # 0 / 0 is nobody's answer
    slots, names = shape[0] * spec.num_groups, list(defined)
    return [[names[(start + i) % len(names)] for i in range(slots)] for start in range(0, len(names), slots)]


def from_files(path: str | Path, specs: Sequence[InputSpec]) -> list[Case]:
    """The user's own data: a .npz (one case, or one per ``case/input`` prefix), an .npy (a model with one input), or
    a folder of them (each .npz a case; .npy files named after inputs form one case, else each is a case)."""
    path = Path(path)
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix in (".npz", ".npy"))
        if not files:
            raise InputError(f"no .npz or .npy file in {path}", "save inputs with numpy.savez(file, name=array, ...)")
        arrays = [p for p in files if p.suffix == ".npy"]
        if arrays and {p.stem for p in arrays} == {s.name for s in specs}:
            together = _user_case(path.name, {p.stem: _load(p) for p in arrays}, specs, path)
            return [together, *(c for p in files if p.suffix == ".npz" for c in from_files(p, specs))]
        return [c for p in files for c in from_files(p, specs)]
    content = _load(path)
    if isinstance(content, np.ndarray):
        if len(specs) != 1:
            raise InputError(f"{path.name} holds one array, the model has {len(specs)} inputs", "use a .npz file")
        return [_user_case(path.stem, {specs[0].name: content}, specs, path)]
    if not content:
        raise InputError(f"{path.name} holds no array", "save inputs with numpy.savez(file, name=array, ...)")
    names = {s.name for s in specs}
    if content.keys() >= names:  # input names may themselves contain a slash
        return [_user_case(path.stem, content, specs, path)]
    cases: dict[str, dict[str, Array]] = {}
    for key, array in content.items():
        case, _, name = key.partition("/") if "/" in key else (path.stem, "", key)
        cases.setdefault(case, {})[name] = array
    return [_user_case(name, feeds, specs, path) for name, feeds in cases.items()]


def _user_case(name: str, feeds: Mapping[str, Array], specs: Sequence[InputSpec], path: Path) -> Case:
    needed = {s.name: s for s in specs}
    given = dict(feeds)
    if len(specs) == 1 and len(given) == 1:
        given = {specs[0].name: next(iter(given.values()))}
    if missing := [n for n in needed if n not in given]:
        raise InputError(
            f"{path.name}: case '{name}' has no array for input '{missing[0]}'", f"it has: {', '.join(sorted(given))}"
        )
    arrays = {}
    for key, spec in needed.items():
        array = given[key]
        fits = array.ndim == len(spec.shape) and all(
            not isinstance(d, int) or d == a for d, a in zip(spec.shape, array.shape, strict=True)
        )
        if not fits:
            raise InputError(
                f"{path.name}: '{key}' has shape {array.shape}, the model takes {_dims(spec.shape)}",
                "names stand for sizes that are free, numbers are fixed",
            )
        if not array.size:
            raise InputError(f"{path.name}: '{key}' has shape {array.shape}: it holds no number", "save a larger batch")
        whole = np.issubdtype(array.dtype, np.integer) or array.dtype == bool
        real = whole or np.issubdtype(array.dtype, np.floating) or array.dtype.name in FLOAT_DTYPES
        if not (real if spec.dtype in FLOAT_DTYPES else whole):
            raise InputError(
                f"{path.name}: '{key}' has dtype {array.dtype}, the model takes {spec.dtype}",
                f"save it with .astype('{spec.dtype}')",
            )
        arrays[key] = array.astype(spec.dtype)
    return Case(name, arrays, "user", True)


def _dims(shape: Sequence[int | str | None]) -> str:
    return f"({', '.join('?' if d is None else str(d) for d in shape)})"


def _load(path: Path) -> Any:
    try:
        loaded = np.load(path, allow_pickle=False)
        return loaded if isinstance(loaded, np.ndarray) else dict(loaded)
    except FileNotFoundError:
        raise InputError(f"no such file: {path}", "a .npz, an .npy or a folder of them") from None
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        # of a file that is no array at all NumPy says that it holds pickled objects
        why = "it is not a NumPy file" if "pickle.load" in str(error) else str(error)
        raise InputError(f"cannot read {path}: {why}", "needed: .npz or .npy without pickled objects") from None


def _rng(name: str, seed: int = 0) -> np.random.Generator:
    return np.random.default_rng([zlib.crc32(name.encode()), seed])


def _fill(spec: InputSpec, name: str) -> Array:
    shape = tuple(int(d or 0) for d in spec.shape)
    rng = _rng(name, zlib.crc32(spec.name.encode()))
    if spec.dtype not in FLOAT_DTYPES:
        return np.ones(shape, bool) if spec.dtype == "bool" else rng.integers(0, 2, shape).astype(spec.dtype)
    rows = shape[0] if len(shape) > 1 else 1
    size = int(np.prod(shape))
    if not size:
        return np.zeros(shape, spec.dtype)
    x = FAMILIES[name].draw(
        rng, (rows, size // rows), 1e-5, spec.dtype
    )  # 1e-5: the usual epsilon; sites have their own
    return x.reshape(shape).astype(spec.dtype)
