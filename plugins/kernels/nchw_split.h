// NCHW: units beyond what registers hold: a kernel for statistics of chunks, and one that normalizes, last chunk first.
#pragma once
#include "exchange.h"
#include "nchw_apply.h"

namespace gn {

GN_DEVICE Partial *chunk(const Arguments &a, int64_t unit) {
    return reinterpret_cast<Partial *>(a.partials) + unit * a.slices;
}

// Shared memory: kAllSlots partials and the extra elements. Each thread makes one part of all its vectors, tile
// after tile; then the block does.
template <int dtype>
GN_DEVICE void nchw_statistics(const Arguments &a) {
    constexpr bool kPivoted = Number<dtype>::kPivoted;
    const uint32_t unit = block() / static_cast<uint32_t>(a.slices), rank = block() - unit * static_cast<uint32_t>(a.slices);
    const Crew crew{thread(), threads()};
    let_next_start();
    const Slice whole = slice_of<dtype, true>(a, unit, rank);
    const int32_t tile = static_cast<int32_t>(crew.size) * kSplitVectors;
    Partial *slots = reinterpret_cast<Partial *>(shared());
    Extra *extras = reinterpret_cast<Extra *>(slots + kAllSlots);
    Partial p{0, 0, 0, 0};
#pragma unroll 1
    for (int32_t begin = 0; begin == 0 || begin < whole.vectors; begin += tile) {
        const Slice s = part_of<dtype>(whole, a, begin, tile);
        const int count = crew.share(s.vectors, kSplitVectors);
        Bits128 held[kSplitVectors];
        load_slice<dtype, kLooped>(held, extras, s, a, crew, count, a.x, a.residual, a.sum);
        p = combine(p, measure_slice<dtype>(held, extras, crew, count));
    }
    combine_block<kPivoted>(p, equal_parts(p), false, slots);
    if (thread() == 0) store_partial(chunk(a, unit) + rank, p);
}

// The unit's statistics from its chunks', consecutive ones by each thread, so that the order of ranks is kept.
template <bool pivoted>
GN_DEVICE Partial combine_chunks(const Arguments &a, int64_t unit, Partial *slots) {
    const int each = (a.slices + static_cast<int>(threads()) - 1) / static_cast<int>(threads());
    const int begin = static_cast<int>(thread()) * each;
    Partial p{0, 0, 0, 0};
    for (int i = begin; i < begin + each && i < a.slices; ++i) p = combine(p, load_partial<pivoted>(chunk(a, unit) + i));
    combine_block<pivoted>(p, equal_parts(p), false, slots);
    return p;
}

// Shared memory as for nchw_resident; the table is the chunk's, or a tile's where that would be too large (a.refill).
// Where the sum was written it is read, so that it may have taken x's or the residual's place.
template <int dtype, Epilogue epilogue>
GN_DEVICE void nchw_apply(const Arguments &a) {
    constexpr bool kPivoted = Number<dtype>::kPivoted;
    const uint32_t number = blocks() - 1 - block();
    const uint32_t unit = number / static_cast<uint32_t>(a.slices), rank = number - unit * static_cast<uint32_t>(a.slices);
    const Crew crew{thread(), threads()};
    Affine *table = reinterpret_cast<Affine *>(shared() + kReservedBytes);
    Extra *extras = reinterpret_cast<Extra *>(reinterpret_cast<Partial *>(shared()) + kAllSlots);
    const void *tensor = a.sum ? a.sum : a.x, *residual = a.sum ? nullptr : a.residual;
    const Slice whole = slice_of<dtype, true>(a, unit, rank);
    bool large = false;
    if (!a.refill) large = fill<dtype>(table, a, whole.sample, whole.first, whole.channels, crew.index, crew.size);
    wait_for_previous();
    const Partial p = combine_chunks<kPivoted>(a, unit, reinterpret_cast<Partial *>(shared()));
    large = barrier_any(large);  // the table is filled
    const Normal normal{p.mean, rstd_of(p, a.epsilon)};

    const int32_t tile = static_cast<int32_t>(crew.size) * kSplitVectors;
#pragma unroll 1
    for (int32_t begin = 0; begin == 0 || begin < whole.vectors; begin += tile) {
        const Slice s = part_of<dtype>(whole, a, begin, tile);
        const int count = crew.share(s.vectors, kSplitVectors);
        Bits128 held[kSplitVectors];
        load_slice<dtype, kLooped>(held, extras, s, a, crew, count, tensor, residual, nullptr);
        if (a.refill) {
            barrier();  // all have read the table of the tile before
            large = barrier_any(fill<dtype>(table, a, s.sample, s.first, s.channels, crew.index, crew.size));
        }
        if constexpr (kPivoted) {
            if (crew.index < Extra::kThreads) extras[crew.index].value -= p.pivot;
#pragma unroll
            for (int j = 0; j < kSplitVectors; ++j) {
                if (j < count) change<dtype>(held[j], [&](int, float x) { return x - p.pivot; });
            }
        }
        const Affine *here = table + (a.refill ? 0 : s.first - whole.first);
        apply<dtype, epilogue>(held, extras, here, normal, large, s, a, crew);
    }
}

template <int dtype>
GN_KERNEL(kThreads, 2)
nchw_statistics_kernel(GN_PARAMETER Arguments a) {
    nchw_statistics<dtype>(a);
}

template <int dtype, Epilogue epilogue>
GN_KERNEL(kThreads, 2)
nchw_apply_kernel(GN_PARAMETER Arguments a) {
    nchw_apply<dtype, epilogue>(a);
}

}  // namespace gn
