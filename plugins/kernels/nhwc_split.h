// NHWC: units beyond what registers hold: a kernel for statistics of chunks, and one that normalizes, last chunk first.
#pragma once
#include "exchange.h"
#include "nhwc_apply.h"

namespace gn {

// Statistics of a group of a unit: those of all chunks side by side, as every block of the second kernel reads them.
GN_DEVICE Partial *chunks_of(const Arguments &a, uint32_t unit, uint32_t group) {
    const int64_t groups = (a.slab + a.group_channels - 1) / a.group_channels;
    return reinterpret_cast<Partial *>(a.partials) + (unit * groups + group) * a.slices;
}

template <int dtype>
GN_DEVICE void nhwc_statistics(const Arguments &a) {
    const uint32_t unit = block() / static_cast<uint32_t>(a.slices), rank = block() - unit * static_cast<uint32_t>(a.slices);
    let_next_start();
    if (thread() == 0) bench::patch() = patch_of<dtype>(a, unit, rank);
    barrier();
    const Patch &p = bench::patch();
    const int64_t tile = int64_t{a.by_rows.divisor} * kSplitVectors;
#pragma unroll 1
    for (int64_t begin = 0; begin < p.rows; begin += tile) {
        const uint32_t rows = static_cast<uint32_t>(p.rows - begin < tile ? p.rows - begin : tile);
        const Place t = place_of<dtype>(a, p);
        const int count = t.share(rows, a);
        Bits128 held[kSplitVectors];
        load_rows<dtype, kLooped>(held, a, p, t, begin, count, a.x);
        if (a.residual) add_rows<dtype>(held, a, p, begin, count, a.residual, a.sum);
        if (!Number<dtype>::kPivoted && begin > 0) barrier();  // all have read what the tile before gave
        measure_rows<dtype>(held, Known{count}, rows, a);
        each_group(p, [&](uint32_t group) {
            Partial &all = bench::united()[group];
            if (thread() % 32 == 0) all = begin == 0 ? bench::own()[group] : combine(all, bench::own()[group]);
        });
    }
    each_group(p, [&](uint32_t group) {
        if (thread() % 32 == 0) store_partial(chunks_of(a, unit, group) + rank, bench::united()[group]);
    });
    pad_sum<dtype>(a, p);
}

// The statistics of each group from its chunks', every 32nd by each lane: a fixed order, and side by side.
// They are of the launch before, so need no loads that see other blocks' stores: a block may have thousands to read.
template <bool pivoted>
GN_DEVICE void combine_groups(const Arguments &a, uint32_t unit) {
    each_group(bench::patch(), [&](uint32_t group) {
        const Bits128 *from = reinterpret_cast<const Bits128 *>(chunks_of(a, unit, group));
        Partial s{0, 0, 0, 0};
#pragma unroll 4
        for (uint32_t i = thread() % 32; i < static_cast<uint32_t>(a.slices); i += 32) {
            const Bits128 v = load_once(from + i);
            s = combine(s, Partial{as_float(v.word[0]), as_float(v.word[1]), as_float(v.word[2]), as_float(v.word[3])});
        }
        s = combine_warp<pivoted>(s);
        if (thread() % 32 == 0) bench::united()[group] = s, bench::pivots()[group] = s.pivot;
    });
    barrier();
}

// Where the sum was written it is read, so that it may have taken x's or the residual's place.
template <int dtype, Epilogue epilogue>
GN_DEVICE void nhwc_apply(const Arguments &a) {
    constexpr bool kPivoted = Number<dtype>::kPivoted;
    const uint32_t number = blocks() - 1 - block();
    const uint32_t unit = number / static_cast<uint32_t>(a.slices), rank = number - unit * static_cast<uint32_t>(a.slices);
    if (thread() == 0) bench::patch() = patch_of<dtype>(a, unit, rank);
    barrier();
    const Patch &p = bench::patch();
    const void *tensor = a.sum ? a.sum : a.x, *residual = a.sum ? nullptr : a.residual;
    fill_table<dtype>(a);
    wait_for_previous();
    combine_groups<kPivoted>(a, unit);
    const bool care = prepare<dtype, kPivoted>(bench::united(), a);

    const int64_t tile = int64_t{a.by_rows.divisor} * kSplitVectors;
#pragma unroll 1
    for (int64_t begin = (p.rows - 1) / tile * tile; begin >= 0; begin -= tile) {
        const Place t = place_of<dtype>(a, p);
        const int count = t.share(static_cast<uint32_t>(p.rows - begin < tile ? p.rows - begin : tile), a);
        Bits128 held[kSplitVectors];
        load_rows<dtype, kLooped>(held, a, p, t, begin, count, tensor);
        if (residual) add_rows<dtype>(held, a, p, begin, count, residual, nullptr);
        apply_rows<dtype, epilogue, kPivoted>(held, begin, care, a, Known{count});
    }
    pad_output<dtype>(a, p);
}

template <int dtype>
GN_KERNEL(kThreads, 2)
nhwc_statistics_kernel(GN_PARAMETER Arguments a) {
    nhwc_statistics<dtype>(a);
}

template <int dtype, Epilogue epilogue>
GN_KERNEL(kThreads, 2)
nhwc_apply_kernel(GN_PARAMETER Arguments a) {
    nhwc_apply<dtype, epilogue>(a);
}

}  // namespace gn
