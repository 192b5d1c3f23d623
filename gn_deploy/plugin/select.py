"""Which kernel runs a problem on a device, how, and why: plugins/kernels/select.cpp in Python."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from gn_deploy.decision import Rejected
from gn_deploy.errors import InputError
from gn_deploy.plugin.binding import VARIANTS
from gn_deploy.plugin.check import bytes_text, wrong
from gn_deploy.plugin.problem import Device, Problem
from gn_deploy.plugin.units import (
    CHUNKS,
    COUNTER_STRIDE,
    ELEMENT_BYTES,
    FIRST_WITH_COPIES,
    GRID,
    PARTIAL_BYTES,
    RESERVED_BYTES,
    SHARED_BYTES,
    SLOT_WORDS,
    SPLIT_VECTORS,
    THREADS,
    VECTOR_BYTES,
    VECTORS,
    WARP_VECTORS,
    WARPS,
    Tile,
    Units,
    ceil_div,
    resident,
    shared_bytes,
    slabs_of,
    small_tile_of,
    split_threads,
    steps_of_block,
    tile_of,
    units_of,
    whole_warps,
)

CACHED_RATE, MEMORY_RATE = 24, 12
"""Bytes of x that a multiprocessor reads in a nanosecond, with as many of y written; select.cpp says where from."""
BLOCK_NS, CLUSTER_NS, TEAM_NS, ALONE_NS, AHEAD_NS, LAUNCH_NS = 100, 350, 3500, 6000, 1500, 3500
CROWD = 4
CHUNK_BYTES, SLICE_BYTES = 8192, 512
ROW_BYTES, SECTOR_BYTES = 40, 32


@dataclass(frozen=True, slots=True)
class Choice:
    """gn_choice."""

    variant: str
    vectors: int = 0
    threads: int = 0
    slices: int = 0
    slab: int = 0
    units: int = 0
    blocks: int = 0
    shared: int = 0
    ahead: int = 0
    counters: int = 0
    workspace: int = 0


@dataclass(frozen=True, slots=True)
class Candidate:
    """A variant that could run the problem."""

    choice: Choice
    cost: int
    """Bytes of x that a multiprocessor could have read and written in the same time; only ratios mean something."""
    reason: str


@dataclass(frozen=True, slots=True)
class Selection:
    """The choice, what there was to choose from, and one line that says why this, and why none of those before it."""

    choice: Choice
    candidates: dict[str, Candidate | Rejected]
    reason: str


@dataclass(frozen=True, slots=True)
class Question:
    """A problem on a device, cut into units."""

    problem: Problem
    device: Device
    units: Units
    """Of one width."""
    bytes: int
    """Of x."""
    strain: int
    """Bytes of whole lines that take as long as 1024 of a slice."""

    @property
    def multiprocessors(self) -> int:
        return max(1, self.device.multiprocessors)

    @property
    def cached(self) -> bool:
        """x and y fit half of the second-level cache together."""
        return self.bytes <= self.device.l2 // 4

    @property
    def a_unit(self) -> str:
        return f"a unit of {bytes_text(self.units.bytes)}"

    @property
    def steps_of_block(self) -> int:
        return steps_of_block(self.units, VECTORS[-1])

    def all_resident(self, threads: int = THREADS) -> int:
        """Blocks of so many threads, at most: those of the largest tile, with the least of tables."""
        largest = Tile(VECTORS[-1], whole_warps(threads // self.units.columns * self.units.columns))
        rows = self.problem.layout == "nhwc"
        shared = shared_bytes(self.problem, self.units, "team", largest, 1) if rows else RESERVED_BYTES
        return self.multiprocessors * resident(self.device, largest.threads, shared)

    def resident(self, choice: Choice) -> int:
        return self.multiprocessors * resident(self.device, choice.threads, choice.shared)

    def nanoseconds(self, time: int) -> int:
        return time * (CACHED_RATE if self.cached else MEMORY_RATE)

    def busiest(self, blocks: int, work: int) -> int:
        """What the busiest multiprocessor does when ``blocks`` each do ``work``."""
        return ceil_div(blocks, self.multiprocessors) * work

    def slice(self, steps: int) -> int:
        """Bytes."""
        return steps * self.units.columns * VECTOR_BYTES

    def work(self, steps: int) -> int:
        return self.slice(steps) * self.strain // 1024

    def told(self, slices: int) -> int:
        """Bytes that a block reads of what ``slices`` blocks tell each other."""
        return slices * self.units.groups * PARTIAL_BYTES

    def choice(
        self, variant: str, tile: Tile, slices: int, blocks: int, counters: int = 0, workspace: int = 0
    ) -> Choice:
        u, shared = self.units, shared_bytes(self.problem, self.units, variant, tile, slices)
        place = (slices, u.slab, u.count, blocks, shared, 0, counters, workspace)
        return Choice(variant, tile.vectors, tile.threads, *place)


def clearly_less(cost: int, best: int) -> bool:
    """By a tenth: so coarse is the estimate, and the simpler kernel waits for nobody."""
    return cost < best - best // 10


def select(p: Problem, d: Device, variant: str | None = None, slabs: Sequence[int] = ()) -> Selection | Rejected:
    """The best variant, or the one asked for; Rejected where that is not suited. InputError for a bad problem.

    ``slabs`` are those of ``slabs_of`` from which to choose, by default all.
    """
    if why := wrong(p):
        raise InputError(why)
    if variant is not None and variant not in VARIANTS:
        raise InputError(f"there is no variant {variant!r}", f"one of {', '.join(VARIANTS)}")
    if 0 in (p.samples, p.channels, p.positions):
        return Selection(Choice(variant or "split"), {}, "nothing to compute")
    questions = [question(p, d, slab) for slab in slabs or slabs_of(p)]
    variants = (_warp, _block, _cluster, _team, _split)
    candidates = {name: _best_width(questions, ask) for name, ask in zip(VARIANTS, variants, strict=True)}
    suited = {name: found for name, found in candidates.items() if isinstance(found, Candidate)}
    if variant is not None:
        if variant not in suited:
            return Rejected(f"{variant}: {candidates[variant].reason}")
        chosen = suited[variant]
        return Selection(chosen.choice, candidates, f"{variant} as asked: {chosen.reason}")
    best = next(iter(suited))
    for name, found in suited.items():
        if clearly_less(found.cost, suited[best].cost):
            best = name
    return Selection(suited[best].choice, candidates, _why(candidates, suited[best], best))


def _why(candidates: dict[str, Candidate | Rejected], chosen: Candidate, best: str) -> str:
    told = []
    for name in VARIANTS[: VARIANTS.index(best)]:
        found = candidates[name]
        if isinstance(found, Candidate):
            tenths = found.cost // (chosen.cost // 10 + 1)
            told.append(f"{name}: {tenths // 10}.{tenths % 10} times as long by estimate ({found.reason}); ")
        else:
            told.append(f"{name}: {found.reason}; ")
    return "".join(told) + f"{best} chosen: {chosen.reason}"


def question(p: Problem, d: Device, slab: int) -> Question:
    """Of one of the ``slabs_of(p)``."""
    u, size = units_of(p, slab), ELEMENT_BYTES[p.dtype]
    strain = 1024
    if p.layout == "nhwc" and not u.slabs == u.column_slices == 1:
        aligned = slab * size % SECTOR_BYTES == 0 and p.pitch * size % SECTOR_BYTES == 0
        strain += 1024 * (ROW_BYTES + (0 if aligned else SECTOR_BYTES // 2)) // (u.columns * VECTOR_BYTES)
    row = p.pitch if p.layout == "nhwc" else p.channels
    return Question(p, d, u, p.samples * p.positions * row * size, strain)


def _best_width(questions: Sequence[Question], ask: Callable[[Question], Candidate | Rejected]) -> Candidate | Rejected:
    """The cheapest width; for a block the narrowest of those that do as well, as it makes most units."""
    best, *others = map(ask, questions)
    less = clearly_less if ask is _block else int.__lt__
    for found in others:
        if isinstance(found, Candidate) and (isinstance(best, Rejected) or less(found.cost, best.cost)):
            best = found
    p = questions[0].problem
    if isinstance(best, Rejected) or p.layout == "nchw":
        return best
    return replace(best, reason=f"{best.reason}, rows of {best.choice.slab * ELEMENT_BYTES[p.dtype]} bytes")


def _candidate(choice: Choice, cost: int, reason: str) -> Candidate | Rejected:
    if choice.shared > SHARED_BYTES:
        return Rejected(f"its channels need {bytes_text(choice.shared)} of shared memory")
    return Candidate(choice, max(1, cost), reason)


def _warp(q: Question) -> Candidate | Rejected:
    u = q.units
    if q.problem.layout == "nhwc":
        return Rejected("is for NCHW")
    for vectors in WARP_VECTORS:
        if u.steps <= 32 * vectors:
            warps = min(WARPS, ceil_div(u.count, q.multiprocessors))
            choice = q.choice("warp", Tile(vectors, 32 * warps), 1, ceil_div(u.count, warps))
            reason = f"{u.count} units of {bytes_text(u.bytes)}, {warps} to a block"
            return _candidate(choice, q.busiest(u.count, q.work(u.steps)), reason)
    return Rejected(f"{q.a_unit} does not fit {bytes_text(32 * VECTOR_BYTES * WARP_VECTORS[-1])}")


def _block(q: Question) -> Candidate | Rejected:
    u = q.units
    if u.column_slices > 1:
        return Rejected(f"a row of {u.slab} channels is wider than a block")
    many = u.count >= CROWD * q.multiprocessors
    tile = small_tile_of(u, u.steps) if many else tile_of(u, u.steps)
    if tile is None:
        return Rejected(f"{q.a_unit} does not fit {bytes_text(q.slice(q.steps_of_block))}")
    cost = q.busiest(u.count, q.work(u.steps)) + q.nanoseconds(BLOCK_NS)
    reason = f"{u.count} units of {bytes_text(u.bytes)} for {q.multiprocessors} multiprocessors"
    return _candidate(q.choice("block", tile, 1, u.count), cost, reason)


def _cluster(q: Question) -> Candidate | Rejected:
    u, most = q.units, q.device.cluster_blocks
    if most < 2:
        return Rejected("compute capability 9.0 or later is needed")
    best: Candidate | Rejected = Rejected(f"{q.a_unit} is too small to share")
    fits = False
    size = u.column_slices
    while size <= most:
        rows = size // u.column_slices
        steps = ceil_div(u.steps, rows)
        tile = tile_of(u, steps)
        if tile is not None:
            fits = True
            if size >= 2 and (rows - 1) * steps < u.steps:
                if u.count * size > GRID:
                    return Rejected("more blocks than a grid has")
                cost = q.busiest(u.count * size, q.work(steps)) + q.nanoseconds(CLUSTER_NS * size * size)
                if isinstance(best, Rejected) or clearly_less(cost, best.cost):
                    choice = q.choice("cluster", tile, size, u.count * size)
                    blocks = f"{u.count * size} blocks for {q.multiprocessors} multiprocessors"
                    found = _candidate(choice, cost, f"{size} blocks share {q.a_unit}, {blocks}")
                    if isinstance(found, Candidate) or isinstance(best, Rejected):
                        best = found
        size *= 2
    if not fits:
        return Rejected(f"{q.a_unit} does not fit {most} blocks of {bytes_text(q.slice(q.steps_of_block))}")
    return best


def _team(q: Question) -> Candidate | Rejected:
    u, most, everyone = q.units, q.steps_of_block, q.all_resident()
    if not q.device.cooperative:
        return Rejected("the device has no cooperative launch")
    if u.column_slices * ceil_div(u.steps, most) > everyone:
        return Rejected(f"{q.a_unit} does not fit {everyone} blocks of {bytes_text(q.slice(most))}")
    best: Candidate | Rejected = Rejected(f"{q.a_unit} is too small to share")
    for threads in (THREADS // 2, THREADS):  # small blocks first: where they do as well they are better, out of step
        if u.columns <= threads:
            best = _teams(q, threads, best)
    return best


def team_words(teams: int, size: int, groups: int) -> int:
    """32-bit integers: a counter of each team, and its slots."""
    return teams * (COUNTER_STRIDE + 2 * size * groups * SLOT_WORDS)


def look_ahead(q: Question, c: Choice) -> Choice:
    """As much of the next unit as shared memory holds beside the blocks that must be resident."""
    if q.device.compute_capability < FIRST_WITH_COPIES:
        return c
    here = ceil_div(c.blocks, q.multiprocessors)
    room = min(q.device.shared // here - 1024, q.device.shared_per_block) - c.shared
    ahead = min(c.vectors, max(0, room // (VECTOR_BYTES * c.threads)))
    return replace(c, ahead=ahead, shared=c.shared + ahead * c.threads * VECTOR_BYTES)


def _teams(q: Question, threads: int, best: Candidate | Rejected) -> Candidate | Rejected:
    """Teams of blocks of ``threads`` where they are better than ``best``."""
    u, everyone, most = q.units, q.all_resident(threads), threads // q.units.columns * VECTORS[-1]
    fewest = u.column_slices * ceil_div(u.steps, most)
    least = min(most, ceil_div(SLICE_BYTES, VECTOR_BYTES * u.columns))
    for teams in range(min(u.count, everyone // fewest), 0, -1):
        steps = max(least, ceil_div(u.steps, everyone // teams // u.column_slices))
        size, rounds = ceil_div(u.steps, steps) * u.column_slices, ceil_div(u.count, teams)
        if size < 2 or ceil_div(u.count, rounds) < teams:  # as many rounds with fewer teams
            continue
        tile = tile_of(u, steps, threads)
        if tile is None:
            continue
        who = f"{teams} team{'s' if teams > 1 else ''} of {size} blocks"
        reason = f"{who}, {rounds} round{'s' if rounds > 1 else ''} of units of {bytes_text(u.bytes)}"
        found = _candidate(q.choice("team", tile, size, teams * size, team_words(teams, size, u.groups)), 1, reason)
        if isinstance(found, Candidate) and q.resident(found.choice) < teams * size:
            found = Rejected("its tables leave room for too few blocks")
        if isinstance(found, Rejected):
            best = found if isinstance(best, Rejected) else best
            continue
        choice = look_ahead(q, found.choice) if rounds > 1 else found.choice
        first = ALONE_NS if teams == 1 else TEAM_NS
        waits = first + (rounds - 1) * ((first - AHEAD_NS) * (tile.vectors - choice.ahead) // tile.vectors + AHEAD_NS)
        cost = rounds * q.busiest(teams * size, q.work(steps) + q.told(size)) + q.nanoseconds(waits)
        if isinstance(best, Rejected) or cost < best.cost:
            best = Candidate(choice, cost, reason)
    return best


def _split(q: Question) -> Candidate | Rejected:
    u = q.units
    wide = u.count * u.column_slices
    most = max(1, min(CHUNKS // u.column_slices, GRID // wide))
    tile, least = split_threads(q.problem) // u.columns * SPLIT_VECTORS, ceil_div(CHUNK_BYTES, VECTOR_BYTES * u.columns)
    wanted = max(1, (2 if u.groups == 1 else 1) * q.all_resident() // wide)
    steps = max(least, ceil_div(u.steps, min(most, wanted)))
    slices = ceil_div(u.steps, steps) * u.column_slices
    blocks = u.count * slices
    rows = ceil_div(min(steps, tile, u.steps), SPLIT_VECTORS)
    once = q.busiest(blocks, q.work(min(steps, u.steps)) + q.told(slices))
    missing = max(0, q.bytes - q.device.l2 // 3 * 2) // (q.bytes // 1024 + 1)
    again = once // 2 + once // 1024 * missing // 3
    room = 0, blocks * u.groups * PARTIAL_BYTES
    choice = q.choice("split", Tile(SPLIT_VECTORS, whole_warps(rows * u.columns)), slices, blocks, *room)
    reason = f"{slices} chunk{'' if slices == 1 else 's'} of each of {u.count} units of {bytes_text(u.bytes)}"
    return _candidate(choice, once + again + q.nanoseconds(LAUNCH_NS), reason)
