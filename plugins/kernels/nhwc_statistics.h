// NHWC: statistics of the groups of a patch, from the rows that its threads hold.
#pragma once
#include "nhwc_patch.h"

namespace gn {

// Shared memory. The patch is there too, for whatever a thread keeps while it holds x, it keeps in registers.
namespace bench {
GN_DEVICE Partial *own() { return reinterpret_cast<Partial *>(shared()); }  // of groups
GN_DEVICE Partial *united() { return own() + kSlabGroups; }                 // of groups
GN_DEVICE float *pivots() { return reinterpret_cast<float *>(united() + kSlabGroups); }  // of groups
GN_DEVICE Patch &patch() { return *reinterpret_cast<Patch *>(pivots() + kSlabGroups); }
// Of groups in float32: what their pivots are chosen from.
struct Candidates {
    float x[3];
};
GN_DEVICE Candidates *candidates() { return reinterpret_cast<Candidates *>(&patch() + 1); }
GN_DEVICE float *reduced() { return reinterpret_cast<float *>(shared() + kReservedBytes); }  // a.pieces for each thread
// Of channels, from the base of the patch on: parameters, then slope and offset; and what is subtracted first.
GN_DEVICE Affine *table(const Arguments &a) { return reinterpret_cast<Affine *>(shared() + a.table_at); }
GN_DEVICE float *origins(const Arguments &a) { return reinterpret_cast<float *>(shared() + a.origins_at); }
}  // namespace bench
static_assert((2 * sizeof(Partial) + sizeof(float)) * kSlabGroups + sizeof(Patch) +
                  sizeof(bench::Candidates) * kSlabGroups <=
              kMbarrierAt);

// Of channel `into` of the patch.
GN_DEVICE uint32_t group_of(const Arguments &a, const Patch &p, uint32_t into) {
    return p.groups == 1 ? 0 : divide(into, a.by_group_channels);
}

// The number of rows that a thread holds, known or, where x leaves no register for it, found again for the whole patch.
struct Known {
    int count;
    GN_DEVICE int operator()() const { return count; }
};
template <int dtype>
struct Found {
    const Arguments &a;
    GN_DEVICE int operator()() const {
        const Patch &p = bench::patch();
        return place_of<dtype>(a, p).share(static_cast<uint32_t>(p.rows), a);
    }
};

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
GN_DEVICE void give(const float (&sums)[kHalf<dtype>], int half, const Arguments &a) {
    constexpr int kVector = Number<dtype>::kVector;
    const uint32_t index = this_thread(), gap = divide(index, a.by_columns) * static_cast<uint32_t>(a.gap);
    float *mine = bench::reduced() + index * static_cast<uint32_t>(a.pieces) + gap;
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
        mine[0] = half == 0 ? all : mine[0] + all;  // kept there, not beside x
    }
}

// What all threads gave for a group, in all lanes of the warp that asks: the sum, and what it lost by rounding.
struct Sum {
    float sum, lost;
};

// Of equal numbers of n binary digits, 2^(24 - n) have an exact float32 sum: in bfloat16 all that a block holds, in
// float16 what four lanes read. From there `exact` keeps what is lost (Knuth's two-sum: the same bits on both sides).
template <bool exact>
GN_DEVICE Sum reduce(const Arguments &a, uint32_t group) {
    constexpr int kHeld = kThreads * kVectors[2] * 8, kLossy = 4;  // elements of a block; the mask from which on
    static_assert(kHeld <= 1 << (24 - 8) && kHeld / (2 * kLossy) <= 1 << (24 - 11));
    const uint32_t width = a.by_group_pieces.divisor, row = static_cast<uint32_t>(a.columns * a.pieces + a.gap);
    const uint32_t all = width * a.by_rows.divisor;
    const float *from = bench::reduced() + group * width;
    float sum = 0.0f, lost = 0.0f;
    for (uint32_t i = this_thread() % 32; i < all; i += 32) sum += from[i + divide(i, a.by_group_pieces) * (row - width)];
#pragma unroll
    for (int mask = 16; mask > 0; mask >>= 1) {
        const float other = shuffle_xor(sum, mask), both = sum + other;
        if (exact && mask <= kLossy) {
            const float theirs = both - sum;
            lost = (lost + shuffle_xor(lost, mask)) + ((sum - (both - theirs)) + (other - theirs));
        }
        sum = both;
    }
    return Sum{sum, lost};
}

// use(group) by the warps of the block in turn.
template <class Use>
GN_DEVICE void each_group(const Patch &p, Use use) {
    for (uint32_t group = this_thread() / 32; group < p.groups; group += threads() / 32) use(group);
}

// The pivots of half of a thread's channels; `each`: every channel has its own.
template <int dtype>
GN_DEVICE void load_pivots(float (&pivots)[kHalf<dtype>], int half, const Arguments &a, const Place &t, bool each) {
    const float *from = bench::origins(a) + t.column * Number<dtype>::kVector + half * kHalf<dtype>, one = bench::pivots()[0];
#pragma unroll
    for (int i = 0; i < kHalf<dtype>; ++i) pivots[i] = each ? from[i] : one;
}

// What is held becomes what it is above the pivots: float32 only.
template <int dtype, bool each, int vectors, class Count>
GN_DEVICE void lower(Bits128 (&held)[vectors], const Count &counted, const Arguments &a) {
    const int count = counted();
    const Place t = place_of<dtype>(a, bench::patch());
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        float pivots[kHalf<dtype>];
        load_pivots<dtype>(pivots, half, a, t, each || bench::patch().groups > 1);
#pragma unroll
        for (int j = 0; j < vectors; ++j) {
            if (j >= count) break;
#pragma unroll
            for (int w = 0; w < 2; ++w) {
                uint32_t &word = held[j].word[2 * half + w];
                word = as_bits(as_float(word) - pivots[w]);
            }
        }
    }
}

// use(j) for each vector that is held. Most threads hold all, and then nothing is asked between one and the next.
template <int vectors, class Use>
GN_DEVICE void each_held(int count, Use use) {
    if (count == vectors) {
#pragma unroll
        for (int j = 0; j < vectors; ++j) use(j);
    } else {
#pragma unroll
        for (int j = 0; j < vectors; ++j) {
            if (j >= count) break;
            use(j);
        }
    }
}

// The pivot of a group is the middle of three: what is above an outlier is coarse. First channels of a group, or first
// rows where it has not as many.
template <int dtype>
GN_DEVICE void find_pivots(const Bits128 &held, int count, uint32_t rows, const Arguments &a) {
    const Patch &p = bench::patch();
    const Place t = place_of<dtype>(a, p);
    const uint32_t width = p.groups == 1 ? p.end - p.begin : static_cast<uint32_t>(a.group_channels);
    const bool across = width >= 3, down = !across && rows >= 3 && t.stride >= 3;
    if (count > 0 && t.row < (down ? 3 : 1)) {
        each<dtype>(held, [&](int k, float x) {
            if (!t.has(k)) return;
            const uint32_t c = t.channel + static_cast<uint32_t>(k) - p.begin, group = group_of(a, p, c);
            const uint32_t into = c - group * width, i = across ? into : t.row;
            if (i < 3 && (across || into == 0)) bench::candidates()[group].x[i] = x;
        });
    }
    barrier();
    each_group(p, [&](uint32_t group) {
        const bench::Candidates &of = bench::candidates()[group];
        const float pivot = across || down ? middle(of.x[0], of.x[1], of.x[2]) : of.x[0];
        if (thread() % 32 == 0) bench::pivots()[group] = pivot;
        float *to = bench::origins(a) + group * width;
        for (uint32_t c = thread() % 32; p.groups > 1 && c < width; c += 32) to[c] = pivot;
    });
}

template <int dtype, int vectors, class Count>
GN_DEVICE void sum_rows(Bits128 (&held)[vectors], const Count &counted, const Arguments &a) {
    const int count = counted();
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        float sums[kHalf<dtype>] = {};
        each_held<vectors>(count, [&](int j) {
            each_of_half<dtype>(held[j], half, [&](int i, float d) { sums[i] += d; });
        });
        const Place t = place_of<dtype>(a, bench::patch());
#pragma unroll
        for (int i = 0; i < kHalf<dtype>; ++i) {
            sums[i] = t.has(half * kHalf<dtype> + i) ? sums[i] : 0.0f;  // a select: NaN stays in its group
        }
        give<dtype>(sums, half, a);
    }
#pragma unroll
    for (int j = 0; j < vectors; ++j) forget(held[j]);
}

// Of what is held less its origin.
template <int dtype, int vectors, class Count>
GN_DEVICE void square_rows(Bits128 (&held)[vectors], const Count &counted, const Arguments &a) {
    const int count = counted();
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const Place t = place_of<dtype>(a, bench::patch());
        const float *from = bench::origins(a) + t.column * Number<dtype>::kVector + half * kHalf<dtype>;
        float means[kHalf<dtype>], squares[kHalf<dtype>] = {};
#pragma unroll
        for (int i = 0; i < kHalf<dtype>; ++i) means[i] = from[i];
        each_held<vectors>(count, [&](int j) {
            each_of_half<dtype>(held[j], half, [&](int i, float d) {
                squares[i] = multiply_add(d - means[i], d - means[i], squares[i]);
            });
        });
#pragma unroll
        for (int i = 0; i < kHalf<dtype>; ++i) squares[i] = t.has(half * kHalf<dtype> + i) ? squares[i] : 0.0f;
        give<dtype>(squares, half, a);
    }
#pragma unroll
    for (int j = 0; j < vectors; ++j) forget(held[j]);
}

// Puts the statistics of `rows` rows into bench::own; whoever reads them, or measures again, passes a barrier first. A
// pivoted format is replaced by what it is above bench::pivots. Others are summed as they are: no pivot can be an
// outlier, and a constant group still has exactly its value for mean. The patch is read again after each barrier, and a
// thread's place found anew, rather than kept.
template <int dtype, int vectors, class Count>
GN_DEVICE void measure_rows(Bits128 (&held)[vectors], const Count &counted, uint32_t rows, const Arguments &a) {
    constexpr bool kPivoted = Number<dtype>::kPivoted;
    if constexpr (kPivoted) {
        find_pivots<dtype>(held[0], counted(), rows, a);
        barrier();
        lower<dtype, false>(held, counted, a);
    }
    sum_rows<dtype>(held, counted, a);
    barrier();

    const Patch &p = bench::patch();
    const uint32_t channels = p.channels_of_group(a);
    const float n = static_cast<float>(rows) * static_cast<float>(channels);
    each_group(p, [&](uint32_t group) {
        const Sum s = reduce<dtype == GN_F16>(a, group);
        const float reciprocal = fast_reciprocal(n), first = s.sum * reciprocal;  // as quotient, but of both
        const float mean = multiply_add(multiply_add(-first, n, s.sum) + s.lost, reciprocal, first);
        const uint32_t width = p.groups == 1 ? static_cast<uint32_t>(a.columns * Number<dtype>::kVector) : channels;
        float *to = bench::origins(a) + group * width;
        for (uint32_t c = thread() % 32; c < width; c += 32) to[c] = mean;
        if (thread() % 32 == 0) bench::own()[group] = Partial{kPivoted ? bench::pivots()[group] : 0.0f, mean, 0.0f, n};
    });
    barrier();
    square_rows<dtype>(held, counted, a);
    barrier();
    each_group(bench::patch(), [&](uint32_t group) {
        const float m2 = reduce<false>(a, group).sum;
        if (thread() % 32 == 0) bench::own()[group].m2 = m2;
    });
}

}  // namespace gn
