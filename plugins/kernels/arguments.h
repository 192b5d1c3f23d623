// What every kernel is given: one struct, read in place.
#pragma once
#include <stdint.h>

namespace gn {

// n / divisor for 0 <= n < 2^31 and 1 <= divisor < 2^31 by a multiplication (Granlund & Montgomery 1994).
struct Divisor {
    uint32_t divisor, multiplier, shift;
};

// The multiplier is 2^(31 + shift) / divisor rounded up, and 2 n is divided, so that a divisor of 1 needs no branch.
inline Divisor divisor_of(uint32_t divisor) {
    uint32_t bits = 0;
    while ((uint64_t{1} << bits) < divisor) ++bits;
    const uint64_t power = uint64_t{1} << (31 + bits);
    return Divisor{divisor, static_cast<uint32_t>((power + divisor - 1) / divisor), bits};
}

// No slice has as many elements, so that larger numbers of positions need no larger numbers.
constexpr int64_t kLongPositions = int64_t{1} << 30;

// In the order of their use, NCHW's first: they lie in constant memory, which is cold at every launch and comes in lines
// of 64 bytes. On sm_90 the first line holds 48 of them.
struct Arguments {
    const void *x;
    int64_t length;  // NCHW: elements of a unit, C / G * P
    int32_t slices;  // blocks that share a unit
    Divisor by_slices;   // block -> unit, rank
    int32_t slice;       // NCHW: 16-byte vectors of a slice or chunk; the last ones may hold fewer or none
    uint32_t phase;      // NCHW: elements of x from the last multiple of 16 bytes to its begin
    int32_t scattered;   // NCHW: residual, sum or y has another phase, counted in its own elements, than x;
                         // NHWC: not every row of every tensor begins at a multiple of 16 bytes
    int32_t flat;        // NCHW: all elements of a unit have one gain and offset: no parameters, or one channel
    // 48 bytes
    const void *residual;        // null when absent
    const void *scale, *bias;    // null when absent
    void *y;
    Divisor by_positions;        // NCHW: min(P, kLongPositions), and kLongPositions when flat
    Divisor by_slabs;            // unit -> sample, slab
    int32_t groups, group_channels;  // G, C / G
    // 112 bytes
    const void *modulation_scale, *modulation_shift;  // null when absent
    void *sum;                                        // null when absent
    int32_t channels;                                 // C
    int32_t parameter_f32;  // scale, bias, s and t are float32 and x is not
    float epsilon;
    float floor;            // of y: 0 for ReLU, -infinity otherwise
    int32_t received_at;    // where in shared memory is what the blocks of a cluster, or each 32 of a team, give: parts of groups
    int32_t activation;     // gn_activation
    int32_t table;          // NCHW: channels that the table of a block, or a warp, has room for
    int32_t slab;           // channels of a unit
    int32_t slabs;          // units of a sample
    int32_t columns;        // NHWC: 16-byte columns of a block, see nhwc_columns
    // 176 bytes
    int64_t positions;      // P
    int64_t rows;           // NHWC: positions of a slice or chunk; the last ones may hold fewer
    int64_t pitch;          // NHWC: elements from one position of x, residual and sum to the next
    int64_t step;           // NHWC: elements from one of a thread's rows to its next
    Divisor by_columns;
    Divisor by_rows;        // NHWC: rows that a block has threads for
    int32_t column_slices;  // NHWC: blocks side by side in a row of the slab; divides slices
    int32_t pieces;         // NHWC: floats that a thread gives to a reduction: a vector's parts that share a group
    // 240 bytes
    Divisor by_column_slices;
    Divisor by_group_channels;
    Divisor by_group_pieces;  // NHWC: pieces of a group in a row; of a row, where there is one group
    int32_t gap;            // NHWC: floats between the pieces of a row and those of the next, see units.h
    int32_t table_at;       // NHWC: where in shared memory the table of channels is, in bytes; see Bench
    int32_t origins_at;     // NHWC: the same of their origins
    int64_t output_pitch;   // NHWC: as pitch, of y
    int64_t output_step;    // NHWC: as step, in y
    // 304 bytes
    float *partials;        // the workspace, see tiles.h
    uint32_t *counters;     // and slots of teams, see exchange.h
    int64_t units;
    int32_t teams;          // GN_TEAM: how many
    int32_t ahead;          // GN_TEAM: of a thread's vectors, those copied to shared memory while the unit before is computed
    int32_t ahead_at;       // where there, in bytes
    int32_t refill;         // NCHW, split: the table is filled for each tile
    int32_t output_dtype;   // gn_dtype
    float output_scale;
    float output_reciprocal;  // 1 / output_scale, rounded
};
static_assert(__builtin_offsetof(Arguments, residual) == 48 && __builtin_offsetof(Arguments, modulation_scale) == 112 &&
              __builtin_offsetof(Arguments, positions) == 176 && __builtin_offsetof(Arguments, by_column_slices) == 240);

}  // namespace gn
