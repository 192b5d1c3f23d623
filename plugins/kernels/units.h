// How a problem is cut into units, and how much of one fits a block: arithmetic on shapes, no CUDA.
#pragma once
#include <stdint.h>

#include <algorithm>
#include <numeric>

#include "gn.h"
#include "nchw_arguments.h"
#include "tiles.h"

namespace gn {

constexpr int64_t kGrid = 2147483647;            // blocks of a launch, at most (CUDA)
constexpr int64_t kTensorBytes = int64_t{1} << 40;  // of a tensor, at most; so no chunk has 2^30 elements

inline int64_t ceil_div(int64_t a, int64_t b) { return a / b + (a % b != 0); }
inline int element_bytes(int dtype) { return dtype == GN_F32 ? 4 : dtype == GN_F16 || dtype == GN_BF16 ? 2 : 1; }

// a * b, or limit + 1 where that is more than `limit`. Neither is negative.
inline int64_t product(int64_t a, int64_t b, int64_t limit) {
    if (a == 0 || b == 0) return 0;
    return a > limit / b ? limit + 1 : std::min(a * b, limit + 1);
}

// Units share nothing. The blocks of a unit share its steps: NCHW, whole vectors; NHWC, positions, each a row of columns.
struct Units {
    int64_t count, bytes;    // bytes of x in one
    int64_t slab, slabs;     // channels of one, units of a sample
    int64_t groups;          // of a slab
    int64_t steps;           // of one
    int64_t columns;         // vectors of a step that one block takes
    int64_t column_slices;   // blocks side by side in a step; they divide the blocks of a unit
    int64_t pieces;          // floats that a thread gives to a reduction over its block
    int64_t group_pieces;    // of a group in a row of the block; of a row, where there is one group
    int64_t gap;             // floats between a row's and the next: the lanes that sum a group's read different banks
};

// Channels of the narrowest slab: whole groups, whole vectors, kSlabBytes wide; all of C where that is less. One group
// where that would be wider than a block.
inline int64_t slab_of(const gn_problem &p) {
    const int64_t lanes = kVectorBytes / element_bytes(p.dtype), group = p.channels / p.groups;
    const int64_t whole = std::lcm(group, lanes);
    const int64_t slab = whole * ceil_div(kSlabBytes / element_bytes(p.dtype), whole);
    if (std::min(slab, p.channels) <= kColumns * lanes) return std::min(slab, p.channels);
    return group;
}

// Channels of the next wider slab: twice as many, or all of C; 0 where a block has no room for them.
inline int64_t wider(const gn_problem &p, int64_t slab) {
    const int64_t lanes = kVectorBytes / element_bytes(p.dtype), group = p.channels / p.groups;
    const int64_t next = std::min(2 * slab, p.channels);
    if (p.layout == GN_NCHW || next == slab || slab % lanes != 0) return 0;
    return ceil_div(next, group) <= kSlabGroups && next <= kColumns * lanes ? next : 0;
}

// A problem that gn_check has accepted and that is not empty, in slabs of slab_of or wider; NCHW has no slabs.
inline Units units_of(const gn_problem &p, int64_t slab) {
    const int64_t size = element_bytes(p.dtype), lanes = kVectorBytes / size, group = p.channels / p.groups;
    Units u{};
    if (p.layout == GN_NCHW) {
        const int64_t elements = group * p.positions;
        u.slab = group, u.slabs = p.groups, u.groups = 1;
        u.steps = std::max<int64_t>(1, elements / lanes);  // the elements before and after them are held besides
        u.columns = u.column_slices = u.pieces = u.group_pieces = 1;
        u.bytes = elements * size;
    } else {
        u.slab = slab, u.slabs = ceil_div(p.channels, u.slab), u.groups = ceil_div(u.slab, group);
        u.steps = p.positions;
        // A slab that is no whole number of vectors and not all of C begins anywhere in its first one.
        const bool inside = u.slab % lanes != 0 && u.slabs > 1;
        const int64_t columns = ceil_div(u.slab + (inside ? lanes - 1 : 0), lanes);
        u.column_slices = ceil_div(columns, kColumns), u.columns = ceil_div(columns, u.column_slices);
        u.pieces = u.groups == 1 ? 1 : lanes / std::gcd(lanes, group);
        u.group_pieces = u.groups == 1 ? u.columns : u.pieces * group / lanes;
        u.gap = u.groups % 2 ? 0 : u.group_pieces;  // so that a row and its gap are an odd number of them
        u.bytes = u.slab * p.positions * size;
    }
    u.count = p.samples * u.slabs;
    return u;
}

struct Tile {
    int vectors, threads;  // threads 0: it does not fit
};

inline int64_t whole_warps(int64_t threads) { return ceil_div(threads, 32) * 32; }

// The smallest tile that holds `steps` of a unit: many threads, for blocks that have a multiprocessor to themselves.
inline Tile tile_of(const Units &u, int64_t steps, int64_t threads = kThreads) {
    for (int vectors : kVectors) {
        const int64_t rows = ceil_div(steps, vectors);
        if (rows <= threads / u.columns) return Tile{vectors, static_cast<int>(whole_warps(rows * u.columns))};
    }
    return Tile{0, 0};
}

// The largest tile with three warps or more: small blocks, many of which are on a multiprocessor, out of step.
inline Tile small_tile_of(const Units &u, int64_t steps) {
    Tile tile = tile_of(u, steps);
    for (int vectors : kVectors) {
        const int64_t threads = ceil_div(steps, vectors) * u.columns;
        if (tile.threads && vectors > tile.vectors && threads > 64) tile = Tile{vectors, static_cast<int>(whole_warps(threads))};
    }
    return tile;
}

// Steps that fit a block of kThreads whose threads hold `vectors`.
inline int64_t steps_of_block(const Units &u, int vectors) { return kThreads / u.columns * vectors; }

inline int64_t reduced_bytes(const Units &u, int64_t threads) {
    return ceil_div((threads * u.pieces + (threads - 1) / u.columns * u.gap) * 4, kVectorBytes) * kVectorBytes;
}

// Dynamic shared memory of a block: tables of the channels it sees, and what its threads reduce.
inline int64_t shared_bytes(const gn_problem &p, const Units &u, int variant, Tile tile, int64_t slices) {
    if (p.layout == GN_NCHW) return nchw_table(p, variant, tile.vectors, tile.threads, slices).shared;
    const int64_t table = u.columns * (kVectorBytes / element_bytes(p.dtype)) * kChannelBytes;
    const int64_t parts = variant == GN_CLUSTER ? slices : variant == GN_TEAM ? ceil_div(slices, 32) : 0;
    return kReservedBytes + reduced_bytes(u, tile.threads) + table + parts * u.groups * kPartialBytes;
}

// Blocks that are resident on one multiprocessor at a time.
inline int64_t resident(const gn_device &d, int64_t threads, int64_t shared) {
    const int64_t by_registers = d.registers / (kRegisters * threads), by_threads = d.threads / threads;
    const int64_t by_shared = d.shared / (shared + 1024);  // CUDA keeps 1 KB of each block's
    const int64_t by_slots = 16;                           // of sm_75 and sm_86, the fewest of any
    return std::max<int64_t>(1, std::min({by_registers, by_threads, by_shared, by_slots}));
}

}  // namespace gn
