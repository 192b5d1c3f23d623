"""How a problem is cut into units, and how much of one fits a block: plugins/kernels/units.h and tiles.h in Python."""

import math
from dataclasses import dataclass

from gn_deploy.plugin.problem import Device, Problem

VECTOR_BYTES = 16
THREADS = 512
REGISTERS = 64
VECTORS = (2, 5, 10)
WARP_VECTORS = (2, 4, 8)
SPLIT_VECTORS = 5
WARPS = 8
CHUNKS = 1024
PARTIAL_BYTES = 16
SLOT_WORDS = PARTIAL_BYTES // 4
COUNTER_STRIDE = 32
COLUMNS = 256
SLAB_BYTES = 64
SLAB_GROUPS = 32
CHANNEL_BYTES = 12
SHARED_BYTES = 49152
AFFINE_BYTES = 8
TABLE_BYTES = 40 * 1024
RESERVED_BYTES = 1664
FIRST_WITH_COPIES = 80

GRID = 2**31 - 1
TENSOR_BYTES = 2**40

ELEMENT_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1, "float8_e4m3fn": 1}


def ceil_div(a: int, b: int) -> int:
    """The quotient of two numbers that are not negative, rounded up."""
    return -(-a // b)


@dataclass(frozen=True, slots=True)
class Units:
    """Units share nothing; the blocks of one share its steps: NCHW, vectors; NHWC, positions, each a row of columns."""

    count: int
    bytes: int
    """Of x in one."""
    slab: int
    """Channels of one."""
    slabs: int
    """Units of a sample."""
    groups: int
    """Of a slab."""
    steps: int
    columns: int
    """Vectors of a step that one block takes."""
    column_slices: int
    """Blocks side by side in a step; they divide the blocks of a unit."""
    pieces: int
    """Floats that a thread gives to a reduction over its block."""
    gap: int = 0
    """Floats between a row's and the next."""


@dataclass(frozen=True, slots=True)
class Tile:
    """16-byte vectors of x that a thread holds, and threads of a block."""

    vectors: int
    threads: int


def slab_of(p: Problem) -> int:
    """The narrowest: whole groups and vectors, 64 bytes; all of C where that is less; a group if that is too wide."""
    size = ELEMENT_BYTES[p.dtype]
    lanes, group = VECTOR_BYTES // size, p.channels // p.groups
    whole = math.lcm(group, lanes)
    slab = min(whole * ceil_div(SLAB_BYTES // size, whole), p.channels)
    return slab if slab <= COLUMNS * lanes else group


def slabs_of(p: Problem) -> list[int]:
    """All that may be chosen: ``slab_of``, twice as many channels, ... up to all of C or what a block has room for.

    Of NCHW, which has no slabs, one number that means nothing.
    """
    lanes, group = VECTOR_BYTES // ELEMENT_BYTES[p.dtype], p.channels // p.groups
    found = [slab_of(p)]
    while p.layout == "nhwc" and found[-1] < p.channels and found[-1] % lanes == 0:
        wider = min(2 * found[-1], p.channels)
        if ceil_div(wider, group) > SLAB_GROUPS or wider > COLUMNS * lanes:
            break
        found.append(wider)
    return found


def units_of(p: Problem, slab: int) -> Units:
    """Of a problem that ``check.wrong`` has accepted and that is not empty, in slabs out of ``slabs_of``."""
    size = ELEMENT_BYTES[p.dtype]
    lanes, group = VECTOR_BYTES // size, p.channels // p.groups
    if p.layout == "nchw":
        elements = group * p.positions
        steps = max(1, elements // lanes)  # the elements before and after them are held besides
        return Units(p.samples * p.groups, elements * size, group, p.groups, 1, steps, 1, 1, 1)
    slabs, groups = ceil_div(p.channels, slab), ceil_div(slab, group)
    inside = slab % lanes != 0 and slabs > 1
    columns = ceil_div(slab + (lanes - 1 if inside else 0), lanes)
    slices = ceil_div(columns, COLUMNS)
    pieces = 1 if groups == 1 else lanes // math.gcd(lanes, group)
    gap = 0 if groups % 2 else pieces * group // lanes
    count, bytes_ = p.samples * slabs, slab * p.positions * size
    return Units(count, bytes_, slab, slabs, groups, p.positions, ceil_div(columns, slices), slices, pieces, gap)


def whole_warps(threads: int) -> int:
    return ceil_div(threads, 32) * 32


def tile_of(u: Units, steps: int, threads: int = THREADS) -> Tile | None:
    """The smallest tile that holds ``steps`` of a unit: many threads, for a block alone on a multiprocessor."""
    for vectors in VECTORS:
        rows = ceil_div(steps, vectors)
        if rows <= threads // u.columns:
            return Tile(vectors, whole_warps(rows * u.columns))
    return None


def small_tile_of(u: Units, steps: int) -> Tile | None:
    """The largest tile with three warps or more: small blocks, many of which are on a multiprocessor, out of step."""
    tile = tile_of(u, steps)
    for vectors in VECTORS:
        threads = ceil_div(steps, vectors) * u.columns
        if tile is not None and vectors > tile.vectors and threads > 64:
            tile = Tile(vectors, whole_warps(threads))
    return tile


def steps_of_block(u: Units, vectors: int) -> int:
    """Steps that fit a block of 512 threads, each of which holds ``vectors``."""
    return THREADS // u.columns * vectors


def nchw_channels(p: Problem, vectors: int) -> int:
    """Channels that ``vectors`` and what stands before and after them may touch: nchw_arguments.h."""
    group = p.channels // p.groups
    if group <= 1 or not (p.has_affine or p.has_modulation):
        return 1
    elements = (vectors + 2) * (VECTOR_BYTES // ELEMENT_BYTES[p.dtype])
    return min(group, (elements - 1) // p.positions + 2)


def split_threads(p: Problem) -> int:
    """Of a block, at most, such that the table of a tile has room."""
    threads = THREADS
    if p.layout == "nchw":
        while threads > 32 and nchw_channels(p, threads * SPLIT_VECTORS) * AFFINE_BYTES > TABLE_BYTES:
            threads //= 2
    return threads


def shared_bytes(p: Problem, u: Units, variant: str, tile: Tile, slices: int) -> int:
    """Of a block: tables of the channels it sees, and what its threads reduce."""
    if p.layout == "nhwc":
        channels = u.columns * (VECTOR_BYTES // ELEMENT_BYTES[p.dtype])
        floats = tile.threads * u.pieces + (tile.threads - 1) // u.columns * u.gap
        reduced = ceil_div(floats * 4, VECTOR_BYTES) * VECTOR_BYTES
        given = {"cluster": slices, "team": ceil_div(slices, 32)}.get(variant, 0) * u.groups * PARTIAL_BYTES
        return RESERVED_BYTES + reduced + channels * CHANNEL_BYTES + given
    a_slice = ceil_div(u.steps, slices)
    channels = nchw_channels(p, a_slice)
    if variant == "split" and channels * AFFINE_BYTES > TABLE_BYTES:
        channels = nchw_channels(p, min(a_slice, tile.threads * tile.vectors))
    tables = {"team": 2, "warp": tile.threads // 32}.get(variant, 1)
    return RESERVED_BYTES + tables * channels * AFFINE_BYTES


def resident(d: Device, threads: int, shared: int) -> int:
    """Blocks on one multiprocessor at a time."""
    by_registers, by_threads = d.registers // (REGISTERS * threads), d.threads // threads
    by_shared = d.shared // (shared + 1024)  # CUDA keeps 1 KB of each block's
    by_slots = 16  # of sm_75 and sm_86, the fewest of any
    return max(1, min(by_registers, by_threads, by_shared, by_slots))
