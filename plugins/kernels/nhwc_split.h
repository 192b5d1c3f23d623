// NHWC: units beyond what registers hold: a kernel for statistics of chunks, and one that normalizes, last chunk first.
#pragma once
#include "exchange.h"
#include "nhwc_apply.h"

namespace gn {

// Statistics of chunk `rank` of a unit: those of kSlabGroups groups at most, side by side.
GN_DEVICE Partial *chunk_groups(const Arguments &a, uint32_t unit, uint32_t rank) {
    const int64_t groups = (a.slab + a.group_channels - 1) / a.group_channels;
    return reinterpret_cast<Partial *>(a.partials) + (int64_t{unit} * a.slices + rank) * groups;
}

template <int dtype>
GN_DEVICE void nhwc_statistics(const Arguments &a) {
    const uint32_t unit = block() / static_cast<uint32_t>(a.slices), rank = block() - unit * static_cast<uint32_t>(a.slices);
    const Bench b = bench_of<dtype>(a);
    const Patch p = patch_of<dtype>(a, unit, rank);
    const Place t = place_of<dtype>(a, p);
    const int64_t tile = t.stride * kSplitVectors;
    let_next_start();
#pragma unroll 1
    for (int64_t begin = 0; begin < p.rows; begin += tile) {
        const int64_t rows = p.rows - begin < tile ? p.rows - begin : tile;
        const int count = t.share(static_cast<uint32_t>(rows), a);
        Bits128 held[kSplitVectors];
        load_rows<dtype>(held, a, p, t, begin, count, a.x, a.residual, a.sum);
        measure_rows<dtype>(held, count, rows, a, p, t, b);
        each_group(p, [&](uint32_t group) {
            if (thread() % 32 == 0) b.united[group] = begin == 0 ? b.own[group] : combine(b.united[group], b.own[group]);
        });
    }
    each_group(p, [&](uint32_t group) {
        if (thread() % 32 == 0) store_partial(chunk_groups(a, unit, rank) + group, b.united[group]);
    });
    pad_sum<dtype>(a, p);
}

// The statistics of each group from its chunks', consecutive ones by each lane, so that the order of ranks is kept.
template <bool pivoted>
GN_DEVICE void combine_groups(const Arguments &a, uint32_t unit, const Patch &p, const Bench &b) {
    const uint32_t all = static_cast<uint32_t>(a.slices), share = (all + 31) / 32, begin = thread() % 32 * share;
    each_group(p, [&](uint32_t group) {
        Partial s{0, 0, 0, 0};
        for (uint32_t i = begin; i < begin + share && i < all; ++i) {
            s = combine(s, load_partial<pivoted>(chunk_groups(a, unit, i) + group));
        }
        s = combine_warp<pivoted>(s);
        if (thread() % 32 == 0) b.united[group] = s, b.pivots[group] = s.pivot;
    });
    barrier();
}

// Where the sum was written it is read, so that it may have taken x's or the residual's place.
template <int dtype, Epilogue epilogue>
GN_DEVICE void nhwc_apply(const Arguments &a) {
    constexpr bool kPivoted = Number<dtype>::kPivoted;
    const uint32_t number = blocks() - 1 - block();
    const uint32_t unit = number / static_cast<uint32_t>(a.slices), rank = number - unit * static_cast<uint32_t>(a.slices);
    const Bench b = bench_of<dtype>(a);
    const Patch p = patch_of<dtype>(a, unit, rank);
    const Place t = place_of<dtype>(a, p);
    const void *tensor = a.sum ? a.sum : a.x, *residual = a.sum ? nullptr : a.residual;
    const bool large = fill_bench<dtype>(a, p, b);
    wait_for_previous();
    combine_groups<kPivoted>(a, unit, p, b);
    const bool care = prepare<dtype>(b.united, large, a, p, b);

    const int64_t tile = t.stride * kSplitVectors;
#pragma unroll 1
    for (int64_t begin = (p.rows - 1) / tile * tile; begin >= 0; begin -= tile) {
        const int64_t rows = p.rows - begin < tile ? p.rows - begin : tile;
        const int count = t.share(static_cast<uint32_t>(rows), a);
        Bits128 held[kSplitVectors];
        load_rows<dtype>(held, a, p, t, begin, count, tensor, residual, nullptr);
        if constexpr (kPivoted) {
            float pivots[Number<dtype>::kVector];
            const uint32_t into = t.channel - p.begin;
#pragma unroll
            for (int k = 0; k < Number<dtype>::kVector; ++k) {
                const bool inside = k >= t.first && k < t.end;
                pivots[k] = inside ? b.pivots[group_of(a, p, into + static_cast<uint32_t>(k))] : 0.0f;
            }
#pragma unroll
            for (int j = 0; j < kSplitVectors; ++j) {
                if (j < count) change<dtype>(held[j], [&](int k, float x) { return x - pivots[k]; });
            }
        }
        apply_rows<dtype, epilogue>(held, begin, care, a, p, t, b, count);
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
