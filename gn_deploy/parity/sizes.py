"""Which sizes the dynamic dimensions of a model take: those asked for, or those that find most."""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from gn_deploy.errors import InputError
from gn_deploy.parity.cases import DEFAULT_BATCH, Case, InputSpec, fresh_cases, model_cases, named

MOST = 64  # combinations; each costs a run of every family on every runtime and several in float64
ODD = (33, 35, 37)  # divisible by none of the 2, 4, 8 and 32 that kernels take at once, and nowhere square
ANOTHER_BATCH = 3  # neither 1 nor the usual 2


def drawn(
    specs: Sequence[InputSpec],
    others: Sequence[InputSpec] = (),
    *,
    dims: Mapping[str, int | Sequence[int]] | None = None,
    sizes: str | None = None,
    endless: bool = False,
) -> Iterable[Case]:
    """The families at every combination of sizes; ``endless`` with fresh numbers in every turn.

    ``others`` are the inputs of the model to be judged: what it fixes is not free. ``dims`` gives a size, or several,
    to dimensions by name; ``sizes="auto"`` also tries what finds most, see ``automatic``. Where there are several
    combinations each case carries its own in ``size`` and in its name.
    """
    if sizes not in (None, "auto"):
        raise InputError(f"sizes are '{sizes}'", "the only word is auto; a size is given to a dimension by its name")
    specs = named(specs)
    fixed = pinned(specs, others or specs)
    asked = combined(dims or {})
    if sizes == "auto":
        asked = [chosen for sizes in asked for chosen in automatic(specs, fixed | sizes)]
    if len(asked) > MOST:
        raise InputError(f"{len(asked)} combinations of sizes are more than {MOST}", "name fewer sizes")
    streams = [_at(specs, fixed | chosen, told(chosen, fixed) if len(asked) > 1 else "", endless) for chosen in asked]
    if endless:
        return itertools.chain.from_iterable(zip(*streams, strict=True))
    return [case for stream in streams for case in stream]


def _at(specs: Sequence[InputSpec], dims: Mapping[str, int], size: str, endless: bool) -> Iterator[Case]:
    for case in (fresh_cases if endless else model_cases)(specs, dims=dims):
        yield replace(case, name=f"{case.name} at {size}", size=size) if size else case


def free_dims(specs: Sequence[InputSpec]) -> dict[str, bool]:
    """Dimensions whose size may be chosen, by name, and whether each counts samples."""
    found: dict[str, bool] = {}
    for spec in specs:
        for axis, dim in enumerate(spec.shape):
            if isinstance(dim, str):
                found[dim] = found.get(dim, False) or (axis == 0 and len(spec.shape) > 1)
    return found


def pinned(specs: Sequence[InputSpec], others: Iterable[InputSpec]) -> dict[str, int]:
    """Sizes that another model, whose inputs correspond one by one, fixes where this one leaves them free."""
    return {
        mine: theirs
        for spec, other in zip(specs, others, strict=True)
        for mine, theirs in zip(spec.shape, other.shape, strict=True)
        if isinstance(mine, str) and isinstance(theirs, int)
    }


def combined(dims: Mapping[str, int | Sequence[int]]) -> list[dict[str, int]]:
    """Every combination of the sizes asked for, in their order."""
    lists = {name: [sizes] if isinstance(sizes, int) else list(dict.fromkeys(sizes)) for name, sizes in dims.items()}
    for name, sizes in lists.items():
        if not sizes or any(size < 1 for size in sizes):
            raise InputError(f"'{name}' is given {', '.join(map(str, sizes)) or 'no size'}", "sizes are 1 or more")
    if math.prod(map(len, lists.values())) > MOST:
        counts = " x ".join(f"{len(sizes)} of '{name}'" for name, sizes in lists.items())
        raise InputError(f"{counts} are more than {MOST} combinations", "name fewer sizes")
    return [dict(zip(lists, sizes, strict=True)) for sizes in itertools.product(*lists.values())]


def automatic(specs: Sequence[InputSpec], fixed: Mapping[str, int]) -> list[dict[str, int]]:
    """The usual sizes, then one sample, then another batch of odd sizes, then 1 for all that is not a batch.

    What is in ``fixed`` keeps its size; without anything to choose there is one combination.
    """
    batches = [name for name, samples in free_dims(specs).items() if samples and name not in fixed]
    others = [name for name, samples in free_dims(specs).items() if not samples and name not in fixed]
    found = [
        {},
        dict.fromkeys(batches, 1),
        dict.fromkeys(batches, ANOTHER_BATCH) | dict(zip(others, itertools.cycle(ODD), strict=False)),
        dict.fromkeys(batches, DEFAULT_BATCH) | dict.fromkeys(others, 1) if others else {},
    ]
    distinct = {tuple(sorted(sizes.items())): dict(fixed) | sizes for sizes in found}
    return list(distinct.values())


def told(sizes: Mapping[str, int], fixed: Mapping[str, int]) -> str:
    """Such as "batch=3, height=33": what is chosen."""
    chosen = [f"{name}={size}" for name, size in sizes.items() if fixed.get(name) != size]
    return ", ".join(chosen) or "usual sizes"
