"""What the process that touches the GPU does for the one that watches it: facts, checks, times."""

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from gn_deploy.plugin.binding import as_dict
from scripts.gpu import checks, measure
from scripts.gpu.cases import Case
from scripts.gpu.sample import Check


@cache
def machine(place: str, library: str) -> Any:
    """``place`` is "module:Class"; one of them for the life of this process."""
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)(Path(library))


def facts(place: str, library: str, step: str) -> dict[str, Any]:
    Path(step).write_text("start")
    found: dict[str, Any] = machine(place, library).facts()
    return found


def check(place: str, library: str, step: str, asked: Check, variants: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Variant -> what ``checks.run`` says of it."""
    here = machine(place, library)
    given = checks.draw(asked)
    oracle = checks.expected(asked, given)
    found = {}
    for variant in variants:
        Path(step).write_text(variant)
        found[variant] = checks.run(
            asked, variant, here.library, here.device, here.memory(), given=given, oracle=oracle
        )
    return found


def time(place: str, library: str, step: str, case: Case, options: Mapping[str, Any]) -> dict[str, Any]:
    return measure.measure(machine(place, library), case, say=Path(step).write_text, **options)


def launch_cost(place: str, library: str, step: str) -> float | None:
    """Microseconds of a kernel that does nothing, one of many in a graph."""
    Path(step).write_text("launch cost")
    here = machine(place, library)
    empty = here.empty()
    if empty is None:
        return None
    count, replays = 256, 20
    replay = here.record([empty] * count)
    return sorted(here.elapsed(replay) for _ in range(replays))[replays // 2] / count * measure.MICRO


def described(place: str, library: str, step: str) -> dict[str, Any]:
    """gn_device."""
    Path(step).write_text("start")
    return as_dict(machine(place, library).device)


def sweep(place: str, library: str, step: str, case: Case, options: Mapping[str, Any]) -> dict[str, Any]:
    from scripts.gpu import sweep

    return sweep.sweep(machine(place, library), case, say=Path(step).write_text, **options)
