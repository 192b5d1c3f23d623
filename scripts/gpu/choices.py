"""All sensible ways to run a problem on a device, and what kernels rely on in every one of them."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, product

from gn_deploy.plugin.problem import Device, Problem
from gn_deploy.plugin.select import CHUNK_BYTES, SLICE_BYTES, Choice, Question, look_ahead, question, team_words
from gn_deploy.plugin.units import (
    CHUNKS,
    GRID,
    PARTIAL_BYTES,
    SHARED_BYTES,
    SPLIT_VECTORS,
    THREADS,
    VECTOR_BYTES,
    VECTORS,
    WARP_VECTORS,
    WARPS,
    Tile,
    Units,
    ceil_div,
    shared_bytes,
    slabs_of,
    split_threads,
    units_of,
    whole_warps,
)

MOST_RESIDENT = 4  # blocks of a team on a multiprocessor: with more, waiting for each other is all they do

Key = tuple[str, int, int, int, int, int, int]
COLUMNS = ("variant", "vectors", "threads", "slices", "slab", "blocks", "ahead")
"""Of a key: they determine a choice."""


def key(c: Choice) -> Key:
    return c.variant, c.vectors, c.threads, c.slices, c.slab, c.blocks, c.ahead


def name(k: Key) -> str:
    """team 5x256 of 80 channels, 2 for a unit, 264 in all, 5 ahead"""
    variant, vectors, threads, slices, slab, blocks, ahead = k
    return f"{variant} {vectors}x{threads} of {slab} channels, {slices} for a unit, {blocks} in all, {ahead} ahead"


def choices(p: Problem, d: Device) -> list[Choice]:
    """Each once, none of them ``broken``; all that gn_select could choose of them, whatever its constants."""
    found: dict[Key, Choice] = {}
    for slab in slabs_of(p):
        q = question(p, d, slab)
        for c in chain(_warps(q), _blocks(q), _clusters(q), _teams(q), _splits(q)):
            if not broken(p, d, c):
                found.setdefault(key(c), c)
    return list(found.values())


def broken(p: Problem, d: Device, c: Choice) -> str:
    """What the kernels rely on and this choice does not give them; empty where it may be launched."""
    if c.slab not in slabs_of(p) and p.layout == "nhwc":
        return f"slabs of {c.slab} channels are none of {slabs_of(p)}"
    q = question(p, d, c.slab)
    u = q.units
    if not (0 < c.threads <= THREADS and c.threads % 32 == 0 and 0 < c.blocks <= GRID and c.units == u.count):
        return "no such launch"
    needed = shared_bytes(p, u, c.variant, Tile(c.vectors, c.threads), c.slices)
    if needed > SHARED_BYTES or c.shared != needed + c.ahead * c.threads * VECTOR_BYTES:
        return f"{c.shared} bytes of shared memory, where {needed} are needed besides what is ahead"
    if c.ahead and c.variant != "team":
        return "only teams look ahead"
    if c.variant == "warp":
        wrong = p.layout == "nhwc" or c.slices != 1 or c.blocks * (c.threads // 32) < u.count
        return "no such warps" if wrong or c.vectors not in WARP_VECTORS or c.vectors * 32 < u.steps else ""
    if c.slices < 1 or c.slices % u.column_slices:
        return f"{c.slices} blocks do not divide {u.column_slices} parts of a row"
    across = c.slices // u.column_slices
    rows, steps = c.threads // u.columns, ceil_div(u.steps, across)
    if rows < 1 or (across - 1) * steps >= u.steps:
        return "a block without work"
    if c.variant != "split" and (c.vectors not in VECTORS or rows * c.vectors < steps):
        return f"{steps} steps do not fit {rows} rows of {c.vectors} vectors"
    match c.variant:
        case "block":
            return "" if (c.slices, c.blocks) == (1, u.count) else "a block for each unit is needed"
        case "cluster":
            fits = 2 <= c.slices <= d.cluster_blocks and c.blocks == u.count * c.slices
            return "" if fits else "no such clusters"
        case "team":
            return _broken_team(q, c)
    fits = c.vectors == SPLIT_VECTORS and across <= CHUNKS and c.blocks == u.count * c.slices
    return "" if fits and c.workspace >= c.blocks * u.groups * PARTIAL_BYTES else "no such chunks"


def _broken_team(q: Question, c: Choice) -> str:
    d, teams = q.device, c.blocks // c.slices
    if not d.cooperative or c.slices < 2 or c.blocks != teams * c.slices or teams > q.units.count:
        return "no such teams"
    if c.counters < team_words(teams, c.slices, q.units.groups) or not 0 <= c.ahead <= c.vectors:
        return "no room for what they tell each other"
    here = ceil_div(c.blocks, q.multiprocessors)
    room = c.shared <= d.shared_per_block and here * (c.shared + 1024) <= d.shared  # CUDA keeps 1 KB of each block's
    return "" if room and q.resident(c) >= c.blocks else "they wait for blocks that cannot start"


def _tiles(u: Units, steps: int) -> Iterator[Tile]:
    for vectors in VECTORS:
        rows = ceil_div(steps, vectors)
        if rows <= THREADS // u.columns:
            yield Tile(vectors, whole_warps(rows * u.columns))


def _warps(q: Question) -> Iterator[Choice]:
    for vectors, warps in product(WARP_VECTORS, range(1, WARPS + 1)):
        yield q.choice("warp", Tile(vectors, 32 * warps), 1, ceil_div(q.units.count, warps))


def _blocks(q: Question) -> Iterator[Choice]:
    for tile in _tiles(q.units, q.units.steps):
        yield q.choice("block", tile, 1, q.units.count)


def _clusters(q: Question) -> Iterator[Choice]:
    u, size = q.units, q.units.column_slices
    while size <= q.device.cluster_blocks:
        for tile in _tiles(u, ceil_div(u.steps, size // u.column_slices)):
            yield q.choice("cluster", tile, size, u.count * size)
        size *= 2


def _teams(q: Question) -> Iterator[Choice]:
    u = q.units
    least = ceil_div(SLICE_BYTES, VECTOR_BYTES * u.columns)
    fit = {q.all_resident(n) // q.multiprocessors for n in (THREADS // 2, THREADS) if u.columns <= n}
    for here in sorted(fit | set(range(1, MOST_RESIDENT + 1))):
        everyone = here * q.multiprocessors
        for teams in _each_of_so_many_rounds(u.count, everyone // (2 * u.column_slices)):
            steps = max(least, ceil_div(u.steps, everyone // teams // u.column_slices))
            size = ceil_div(u.steps, steps) * u.column_slices
            for tile in _tiles(u, steps):
                room = team_words(teams, size, u.groups)
                c = q.choice("team", tile, size, teams * size, room)
                yield c
                if u.count > teams and size > 1:
                    most = look_ahead(q, c).ahead
                    for ahead in {most, most // 2}:
                        yield replace(c, ahead=ahead, shared=c.shared + ahead * c.threads * VECTOR_BYTES)


def _each_of_so_many_rounds(units: int, most: int) -> list[int]:
    """Teams, none of which could be spared without another round, the most of them first."""
    found, rounds = [], ceil_div(units, max(most, 1))
    while most > 0 and (not found or found[-1] > 1):
        found.append(ceil_div(units, rounds))
        rounds = ceil_div(units, found[-1] - 1) if found[-1] > 1 else rounds
    return found


def _splits(q: Question) -> Iterator[Choice]:
    u, p = q.units, q.problem
    wide, least = u.count * u.column_slices, ceil_div(CHUNK_BYTES, VECTOR_BYTES * u.columns)
    most = max(1, min(CHUNKS // u.column_slices, GRID // wide))
    wanted = max(1, (2 if u.groups == 1 else 1) * q.all_resident() // wide)
    for chunks, threads in product((wanted, 2 * wanted, wanted // 2, 4 * wanted), (1, 2, 4)):
        limit = split_threads(p) // threads
        if limit < u.columns or not chunks:
            continue
        steps = max(least, ceil_div(u.steps, min(most, chunks)))
        slices = ceil_div(u.steps, steps) * u.column_slices
        rows = ceil_div(min(steps, limit // u.columns * SPLIT_VECTORS, u.steps), SPLIT_VECTORS)
        tile, room = Tile(SPLIT_VECTORS, whole_warps(rows * u.columns)), u.count * slices * u.groups * PARTIAL_BYTES
        yield q.choice("split", tile, slices, u.count * slices, 0, room)


def of_key(p: Problem, d: Device, k: Key) -> Choice:
    """The choice that a key names; what it holds is not looked at."""
    variant, vectors, threads, slices, slab, blocks, ahead = k
    q, counters, workspace = question(p, d, slab), 0, 0
    groups = units_of(p, slab).groups
    if variant == "team":
        counters = team_words(blocks // slices, slices, groups)
    elif variant == "split":
        workspace = blocks * groups * PARTIAL_BYTES
    c = q.choice(variant, Tile(vectors, threads), slices, blocks, counters, workspace)
    return replace(c, ahead=ahead, shared=c.shared + ahead * threads * VECTOR_BYTES)
