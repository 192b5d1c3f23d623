// NCHW: slices and their tables of channels, as the choice needs them and as the kernels are given them. Host code.
#pragma once
#include <math.h>

#include <algorithm>

#include "arguments.h"
#include "gn.h"
#include "tiles.h"

namespace gn {

constexpr int64_t kAffineBytes = 8;         // of a channel in a table
constexpr int64_t kTableBytes = 40 * 1024;  // of a chunk's table, at most: beside kReservedBytes within what needs no opt-in

inline int nchw_vector(const gn_problem &p) { return p.dtype == GN_F32 ? 4 : 8; }

// One gain and one offset serve all elements of a unit.
inline bool nchw_flat(const gn_problem &p) {
    return (!p.has_affine && !p.has_modulation) || p.channels / p.groups <= 1;
}

// Vectors of a slice: a unit of L elements has L / vector whole aligned ones, or one less.
inline int64_t nchw_slice(const gn_problem &p, int64_t slices) {
    const int64_t vectors = p.channels / p.groups * p.positions / nchw_vector(p);
    return std::max<int64_t>(1, vectors / slices + (vectors % slices != 0));
}

// Channels that `vectors` and what stands before and after them may touch.
inline int64_t nchw_channels(const gn_problem &p, int64_t vectors) {
    if (nchw_flat(p)) return 1;
    const int64_t elements = (vectors + 2) * nchw_vector(p);
    return std::min(p.channels / p.groups, (elements - 1) / p.positions + 2);
}

struct NchwTable {
    int64_t channels;  // of one table
    int64_t shared;    // bytes of dynamic shared memory
    bool refill;       // split: filled for each tile, as a chunk's would be too large
};

// At most kThreads of split may be too many for a tile's table where P is 1 to 3: see nchw_split_threads.
inline NchwTable nchw_table(const gn_problem &p, int variant, int64_t vectors, int64_t threads, int64_t slices) {
    const int64_t slice = nchw_slice(p, slices);
    NchwTable table{nchw_channels(p, slice), 0, false};
    if (variant == GN_SPLIT && table.channels * kAffineBytes > kTableBytes) {
        table = NchwTable{nchw_channels(p, std::min(slice, threads * vectors)), 0, true};
    }
    const int64_t tables = variant == GN_TEAM ? 2 : variant == GN_WARP ? threads / 32 : 1;
    table.shared = kReservedBytes + tables * table.channels * kAffineBytes;
    return table;
}

// Of a block, at most, such that the table of a tile fits kTableBytes.
inline int nchw_split_threads(const gn_problem &p) {
    int threads = kThreads;
    while (threads > 32 && nchw_channels(p, threads * kSplitVectors) * kAffineBytes > kTableBytes) threads /= 2;
    return threads;
}

// Those of the arguments that only NCHW has; the others are set already.
inline void nchw_arguments(const gn_problem &p, const gn_choice &c, const gn_buffers &b, Arguments &a) {
    const int64_t vector = nchw_vector(p), size = 16 / vector;
    const bool flat = nchw_flat(p);
    const NchwTable table = nchw_table(p, c.variant, c.vectors, c.threads, c.slices);
    a.length = p.channels / p.groups * p.positions;
    a.slice = static_cast<int32_t>(nchw_slice(p, c.slices));
    a.table = static_cast<int32_t>(table.channels);
    a.refill = table.refill;
    a.flat = flat;
    a.floor = p.activation == GN_RELU ? 0.0f : -INFINITY;
    a.by_positions = divisor_of(static_cast<uint32_t>(flat ? kLongPositions : std::min(p.positions, kLongPositions)));

    const auto phase = [&](const void *pointer, int64_t bytes) {
        return static_cast<uint32_t>(reinterpret_cast<uintptr_t>(pointer) / static_cast<uintptr_t>(bytes) %
                                     static_cast<uintptr_t>(vector));
    };
    a.phase = phase(b.x, size);
    const int64_t output = p.output_dtype == p.dtype ? size : 1;
    a.scattered = phase(b.y, output) != a.phase || (b.residual && p.has_residual && phase(b.residual, size) != a.phase) ||
                  (b.sum && p.has_sum && phase(b.sum, size) != a.phase);
}

}  // namespace gn
