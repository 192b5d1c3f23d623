"""What was promised of each shape, and whether it held: a part of the speed of a copy, and never slower than torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scripts.gpu.cases import MIB, Case

NOISE = 0.02  # of a ratio: what two medians of the same kernel differ by on a GPU that nobody else uses
BASELINES = ("eager", "compile")


@dataclass(frozen=True, slots=True)
class Target:
    """A copy of the same bytes must take at least ``ratio`` of our time."""

    ratio: float
    why: str


def target(case: Case) -> Target:
    """Between two classes that were named, the easier one counts; sizes in MiB of x, groups or slabs in bytes."""
    size, unit = case.tensor_bytes / MIB, case.unit_bytes
    if size < 10:  # named for less than 6.5; there is no class between that and 10
        return Target(0.65, "a tensor of less than 6.5 MB" if size < 6.5 else "a tensor between 6.5 and 10 MB")
    if case.layout == "nhwc":
        if unit > 10 * MIB:
            return Target(0.64, "channels last, slabs beyond 10 MB: read twice")
        return Target(min(0.82, 0.80 if size < 24 else 1.0), "channels last")
    if size < 24:
        return Target(0.80, "a tensor of 10 to 24 MB")
    if unit <= 640 * 1024:
        return Target(0.90, "24 MB or more, groups up to 640 KB")
    if unit <= 10 * MIB:
        return Target(0.85, "groups up to 10 MB")
    if unit <= 16 * MIB:
        return Target(0.75, "groups up to 16 MB")
    return Target(0.64, "groups beyond 16 MB: read twice")


def verdict(case: Case, row: Mapping[str, Any]) -> dict[str, str]:
    """Name of each promise -> "held", "missed" or "not measured"; ``row`` holds the times in microseconds."""
    ours = row.get("us")
    promised = {"copy": _judged(ours, row.get("copy_us"), target(case).ratio)}
    for name in BASELINES:  # each was timed beside its own run of ours
        promised[name] = _judged(row.get(f"{name}_beside_us"), row.get(f"{name}_us"), 1.0)
    return promised


def ratio(ours: float | None, other: float | None) -> float | None:
    """How many times as long the other takes; below 1 it is faster than ours."""
    return other / ours if ours and other else None


def _judged(ours: float | None, other: float | None, needed: float) -> str:
    found = ratio(ours, other)
    if found is None:
        return "not measured"
    return "held" if found >= needed * (1 - NOISE) else "missed"
