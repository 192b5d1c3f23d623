"""What gn_select expects of a choice, in nanoseconds and for any constants; a sum of what each constant counts."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields

from gn_deploy.plugin import select
from gn_deploy.plugin.problem import Device, Problem
from gn_deploy.plugin.select import question
from gn_deploy.plugin.units import ELEMENT_BYTES, ceil_div
from scripts.gpu.choices import Key


@dataclass(frozen=True, slots=True)
class Constants:
    """Those of select.py and select.cpp, under the same names in small letters."""

    cached_rate: float
    memory_rate: float
    block_ns: float
    cluster_ns: float
    team_ns: float
    alone_ns: float
    ahead_ns: float
    launch_ns: float
    row_bytes: float
    crowd: float
    start_ns: float = 0.0
    """Of every launch. Not in select, as all choices have it."""


SELECTING = tuple(f.name for f in fields(Constants) if f.name != "start_ns")
TIMES = ("start_ns", "block_ns", "cluster_ns", "team_ns", "alone_ns", "ahead_ns", "launch_ns")
"""Constants whose multiples are added to the time of the bytes."""


def current() -> Constants:
    return Constants(**{name: getattr(select, name.upper()) for name in SELECTING})


def whole(c: Constants) -> Constants:
    """As select computes: in integers, with rates that are something."""
    rounded = {name: round(getattr(c, name)) for name in SELECTING}
    return Constants(**rounded | {name: max(1, rounded[name]) for name in ("cached_rate", "memory_rate", "crowd")})


@contextmanager
def selecting(c: Constants) -> Iterator[None]:
    """gn_deploy.plugin.select chooses by these, as they are when ``whole``."""
    before, given = current(), whole(c)
    try:
        for name in SELECTING:
            setattr(select, name.upper(), getattr(given, name))
        yield
    finally:
        for name in SELECTING:
            setattr(select, name.upper(), getattr(before, name))


@dataclass(frozen=True, slots=True)
class Parts:
    """Of one choice: (``plain`` + ``rows`` * row_bytes) / rate, and so often each of TIMES."""

    cached: bool
    plain: float
    """Bytes of x that the busiest multiprocessor reads, and what costs as much."""
    rows: float
    times: dict[str, float]

    def nanoseconds(self, c: Constants) -> float:
        rate = c.cached_rate if self.cached else c.memory_rate
        return (self.plain + self.rows * c.row_bytes) / rate + sum(getattr(c, n) * v for n, v in self.times.items())


def parts(p: Problem, d: Device, k: Key) -> Parts:
    variant, vectors, _, slices, slab, blocks, ahead = k
    q = question(p, d, slab)
    u, size = q.units, ELEMENT_BYTES[p.dtype]
    bytes_ = q.slice(ceil_div(u.steps, slices // u.column_slices))
    busy, told, times = q.busiest(u.count * slices, 1), 0, {"start_ns": 1.0}
    factor = 1.0
    match variant:
        case "block":
            times["block_ns"] = 1.0
        case "cluster":
            times["cluster_ns"] = float(slices * slices)
        case "team":
            teams = blocks // slices
            rounds = ceil_div(u.count, teams)
            busy, told = rounds * q.busiest(blocks, 1), q.told(slices)
            waited = 1 + (rounds - 1) * (vectors - ahead) / vectors
            times |= {"alone_ns" if teams == 1 else "team_ns": waited, "ahead_ns": (rounds - 1) * ahead / vectors}
        case "split":
            told = q.told(slices)
            missing = max(0, q.bytes - d.l2 // 3 * 2) / (q.bytes + 1024)
            factor, times["launch_ns"] = 1.5 + missing / 3, 1.0
    rows, extra = 0.0, 0.0
    if p.layout == "nhwc" and not u.slabs == u.column_slices == 1:
        rows = bytes_ / (u.columns * 16)
        aligned = slab * size % select.SECTOR_BYTES == 0 and p.pitch * size % select.SECTOR_BYTES == 0
        extra = 0.0 if aligned else rows * select.SECTOR_BYTES / 2
    return Parts(q.cached, busy * factor * (bytes_ + extra + told), busy * factor * rows, times)
