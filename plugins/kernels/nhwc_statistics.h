// NHWC: statistics of the groups of a patch, from the rows that its threads hold.
#pragma once
#include "nhwc_patch.h"

namespace gn {

// Shared memory; its first kReservedBytes are three arrays for groups, then come those for threads and for channels.
struct Bench {
    Partial *own, *united;  // of groups
    float *pivots;          // of groups
    float *reduced;         // a.pieces for each thread
    Affine *table;          // of channels, from the base of the patch on: parameters, then slope and offset
    float *origins;         // of channels: what is subtracted first
};

template <int dtype>
GN_DEVICE Bench bench_of(const Arguments &a) {
    char *memory = shared();
    Bench b;
    b.own = reinterpret_cast<Partial *>(memory);
    b.united = b.own + kSlabGroups;
    b.pivots = reinterpret_cast<float *>(b.united + kSlabGroups);
    b.reduced = reinterpret_cast<float *>(memory + kReservedBytes);
    b.table = reinterpret_cast<Affine *>(b.reduced + threads() * static_cast<uint32_t>(a.pieces));
    b.origins = reinterpret_cast<float *>(b.table + a.columns * Number<dtype>::kVector);
    return b;
}

// Of channel `into` of the patch.
GN_DEVICE uint32_t group_of(const Arguments &a, const Patch &p, uint32_t into) {
    return p.groups == 1 ? 0 : divide(into, a.by_group_channels);
}

// Two of a vector's four words at a time, so that only half of what is kept for each channel is in registers.
template <int dtype>
constexpr int kHalf = Number<dtype>::kVector / 2;

template <int dtype, class Use>
GN_DEVICE void each_of_half(const Bits128 &vector, int half, Use use) {
#pragma unroll
    for (int w = 0; w < 2; ++w) {
        if constexpr (Number<dtype>::kVector == 4) {
            use(w, as_float(vector.word[2 * half + w]));
        } else {
            float low, high;
            Number<dtype>::widen2(vector.word[2 * half + w], low, high);
            use(2 * w, low);
            use(2 * w + 1, high);
        }
    }
}

// Hands over the sums of half a vector: each piece is summed over its channels.
template <int dtype>
GN_DEVICE void give(const float (&sums)[kHalf<dtype>], int half, float &total, const Bench &b, const Arguments &a) {
    constexpr int kVector = Number<dtype>::kVector;
    float *mine = b.reduced + thread() * static_cast<uint32_t>(a.pieces);
    float all = 0.0f;
#pragma unroll
    for (int i = 0; i < kHalf<dtype>; ++i) all += sums[i];
    if (a.pieces == kVector) {
#pragma unroll
        for (int i = 0; i < kHalf<dtype>; ++i) mine[half * kHalf<dtype> + i] = sums[i];
    } else if (kVector == 8 && a.pieces == 4) {
#pragma unroll
        for (int i = 0; i < kHalf<dtype>; i += 2) mine[half * 2 + i / 2] = sums[i] + sums[i + 1];
    } else if (a.pieces == 2) {
        mine[half] = all;
    } else {
        total += all;
        if (half == 1) mine[0] = total;
    }
}

// The sum of what all threads gave for a group, in all lanes of the warp that asks.
GN_DEVICE float reduce(const Bench &b, const Arguments &a, uint32_t group) {
    const uint32_t width = a.by_group_pieces.divisor, row = static_cast<uint32_t>(a.columns * a.pieces);
    const uint32_t all = width * a.by_rows.divisor;
    const float *from = b.reduced + group * width;
    float sum = 0.0f;
    for (uint32_t i = thread() % 32; i < all; i += 32) sum += from[i + divide(i, a.by_group_pieces) * (row - width)];
#pragma unroll
    for (int mask = 16; mask > 0; mask >>= 1) sum += shuffle_xor(sum, mask);
    return sum;
}

// use(group) by the warps of the block in turn.
template <class Use>
GN_DEVICE void each_group(const Patch &p, Use use) {
    for (uint32_t group = thread() / 32; group < p.groups; group += threads() / 32) use(group);
}

// Puts the statistics of `rows` rows into b.own; whoever reads them passes a barrier first. A pivoted format is replaced
// by what it is above b.pivots. Others are summed as they are and their sums, exact but for outliers, made relative to
// the pivot: so that a constant group has exactly its value for mean.
template <int dtype, int vectors>
GN_DEVICE void measure_rows(Bits128 (&held)[vectors], int count, int64_t rows, const Arguments &a, const Patch &p,
                            const Place &t, const Bench &b) {
    constexpr bool kPivoted = Number<dtype>::kPivoted;
    const uint32_t into = t.channel - p.begin;  // may be "negative" before t.first
    if (t.row == 0 && count > 0) {
        each<dtype>(held[0], [&](int k, float x) {
            const uint32_t c = into + static_cast<uint32_t>(k), group = group_of(a, p, c);
            const bool inside = k >= t.first && k < t.end;
            if (inside && c == group * static_cast<uint32_t>(a.group_channels)) b.pivots[group] = x;
        });
    }
    barrier();
    const auto pivot_of = [&](int k) {
        const bool inside = k >= t.first && k < t.end;
        return inside ? b.pivots[group_of(a, p, into + static_cast<uint32_t>(k))] : 0.0f;
    };
    if constexpr (kPivoted) {
        float pivots[Number<dtype>::kVector];
#pragma unroll
        for (int k = 0; k < Number<dtype>::kVector; ++k) pivots[k] = pivot_of(k);
#pragma unroll
        for (int j = 0; j < vectors; ++j) {
            if (j >= count) break;
            change<dtype>(held[j], [&](int k, float x) { return x - pivots[k]; });
        }
    }
    float total = 0.0f;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        float sums[kHalf<dtype>] = {};
#pragma unroll
        for (int j = 0; j < vectors; ++j) {
            if (j >= count) break;
            each_of_half<dtype>(held[j], half, [&](int i, float d) { sums[i] += d; });
        }
#pragma unroll
        for (int i = 0; i < kHalf<dtype>; ++i) {
            const int k = half * kHalf<dtype> + i;
            if constexpr (!kPivoted) sums[i] = multiply_add(-static_cast<float>(count), pivot_of(k), sums[i]);
            sums[i] = k >= t.first && k < t.end ? sums[i] : 0.0f;  // a select: NaN stays in its group
        }
        give<dtype>(sums, half, total, b, a);
    }
#pragma unroll
    for (int j = 0; j < vectors; ++j) forget(held[j]);
    barrier();

    const uint32_t channels = p.groups == 1 ? p.end - p.begin : static_cast<uint32_t>(a.group_channels);
    const float n = static_cast<float>(rows) * static_cast<float>(channels);
    each_group(p, [&](uint32_t group) {
        const float above = quotient(reduce(b, a, group), n, fast_reciprocal(n));
        const float pivot = b.pivots[group];
        const float mean = kPivoted ? above : pivot + above;
        const uint32_t width = p.groups == 1 ? static_cast<uint32_t>(a.columns * Number<dtype>::kVector) : channels;
        for (uint32_t c = thread() % 32; c < width; c += 32) b.origins[group * width + c] = mean;
        if (thread() % 32 == 0) b.own[group] = Partial{kPivoted ? pivot : 0.0f, mean, 0.0f, n};
    });
    barrier();

    total = 0.0f;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        float means[kHalf<dtype>], squares[kHalf<dtype>] = {};
        const float *from = b.origins + t.column * Number<dtype>::kVector + half * kHalf<dtype>;
#pragma unroll
        for (int i = 0; i < kHalf<dtype>; ++i) means[i] = from[i];
#pragma unroll
        for (int j = 0; j < vectors; ++j) {
            if (j >= count) break;
            each_of_half<dtype>(held[j], half, [&](int i, float d) {
                squares[i] = multiply_add(d - means[i], d - means[i], squares[i]);
            });
        }
#pragma unroll
        for (int i = 0; i < kHalf<dtype>; ++i) {
            const int k = half * kHalf<dtype> + i;
            squares[i] = k >= t.first && k < t.end ? squares[i] : 0.0f;
        }
        give<dtype>(squares, half, total, b, a);
    }
#pragma unroll
    for (int j = 0; j < vectors; ++j) forget(held[j]);
    barrier();
    each_group(p, [&](uint32_t group) {
        const float m2 = reduce(b, a, group);
        if (thread() % 32 == 0) b.own[group].m2 = m2;
    });
}

}  // namespace gn
