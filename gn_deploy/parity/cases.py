"""Cases: whole-model inputs drawn from the families, and probes dealt over groups."""

import itertools
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import ml_dtypes  # noqa: F401  (registers bfloat16 with NumPy)
import numpy as np
from numpy.typing import NDArray

from gn_deploy.errors import InputError
from gn_deploy.parity.families import FAMILIES
from gn_deploy.spec import FLOAT_DTYPES, GroupNormSpec

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["FAMILIES", "Case", "InputSpec", "bind", "deal", "fresh_cases", "hands", "input_specs", "model_cases"]

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
    size: str = ""
    """Such as "batch=3" where sizes are tried out: one that the reference itself refuses is not the subject's fault."""


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
    specs = named(specs)
    known = {d for s in specs for d in s.shape if isinstance(d, str)}
    if unknown := sorted(chosen.keys() - known):
        raise InputError(f"no input has a dim named '{unknown[0]}'", f"dynamic dims: {', '.join(sorted(known)) or '-'}")
    bound = []
    for spec in specs:
        shape = []
        for axis, dim in enumerate(spec.shape):
            default = DEFAULT_BATCH if axis == 0 and len(spec.shape) > 1 else DEFAULT_SIZE
            shape.append(chosen.setdefault(dim, default) if isinstance(dim, str) else dim)
        bound.append(InputSpec(spec.name, spec.dtype, tuple(shape)))
    return bound


def named(specs: Sequence[InputSpec]) -> list[InputSpec]:
    """Dims of unknown size and no name get one, "input[axis]", by which a size can be given."""
    return [
        replace(s, shape=tuple(f"{s.name}[{axis}]" if d is None else d for axis, d in enumerate(s.shape)))
        for s in specs
    ]


def model_cases(
    specs: Sequence[InputSpec], families: Iterable[str] = IN_PLACE, dims: Mapping[str, int] | None = None
) -> list[Case]:
    """One case per family. Integers (token ids, time steps) are 0 or 1 and booleans true: valid everywhere."""
    return [_drawn(bind(specs, dims), name) for name in families]


def fresh_cases(
    specs: Sequence[InputSpec], families: Sequence[str] = IN_PLACE, dims: Mapping[str, int] | None = None
) -> Iterator[Case]:
    """The families in turn, without an end and never the same numbers twice; first those of ``model_cases``."""
    bound = bind(specs, dims)
    for turn in itertools.count():
        for name in families:
            yield replace(_drawn(bound, name, turn), name=f"{name} {turn + 1}")


def _drawn(bound: Sequence[InputSpec], family: str, turn: int = 0) -> Case:
    return Case(family, {s.name: _fill(s, family, turn) for s in bound}, family, FAMILIES[family].conditioned)


def deal(shape: Sequence[int], spec: GroupNormSpec, seed: int = 0, *, dtype: str | None = None) -> list[Array]:
    """Tensors of ``shape`` whose (sample, group) slots hold the families in turn, so one run probes all of them.

    Several tensors come back, rotated until each family was in some slot, and each slot had more than one family: an
    element that is wrong wherever it stands does not show where the values around it drown it.
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
    defined = (name for name, family in FAMILIES.items() if spec.epsilon or not family.needs_epsilon)
    slots, names = shape[0] * spec.num_groups, list(defined)
    starts = range(0, len(names), slots) if slots < len(names) else (0, len(names) // 2)
    return [[names[(start + i) % len(names)] for i in range(slots)] for start in starts]


def _rng(name: str, *seeds: int) -> np.random.Generator:
    return np.random.default_rng([zlib.crc32(name.encode()), *seeds])


def _fill(spec: InputSpec, name: str, turn: int) -> Array:
    shape = tuple(int(d or 0) for d in spec.shape)
    rng = _rng(name, zlib.crc32(spec.name.encode()), *([turn] if turn else []))
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
