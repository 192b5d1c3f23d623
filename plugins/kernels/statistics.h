// Mean and centred sum of squares of a part of a group, and how parts become one.
#pragma once
#include "number.h"

namespace gn {

// The mean is pivot + mean: the pivot is an element of the part, or 0 for formats that need none, so that `mean` is
// small enough for float32 to hold what matters of it. M2 is the sum of (x - mean)^2.
struct alignas(16) Partial {
    float pivot, mean, m2, n;
};

// Chan, Golub & LeVeque (1979). Not commutative in rounding: the part of lower rank comes first. A part of no elements
// changes nothing; there is no other branch, so that NaN and infinity go their way.
GN_DEVICE Partial combine(const Partial &a, const Partial &b) {
    const float n = a.n + b.n;
    const float share = b.n * fast_reciprocal(n);
    const float apart = (b.pivot - a.pivot) + (b.mean - a.mean);
    const bool first = a.n > 0.0f;  // selects, not branches
    return Partial{first ? a.pivot : b.pivot, first ? multiply_add(apart, share, a.mean) : b.mean,
                   first ? multiply_add(apart * apart, a.n * share, a.m2 + b.m2) : b.m2, n};
}

// The biased variance.
GN_DEVICE float variance(const Partial &p) { return p.m2 / p.n; }

template <bool pivoted>
GN_DEVICE Partial shuffle_xor(const Partial &p, int mask) {
    return Partial{pivoted ? shuffle_xor(p.pivot, mask) : 0.0f, shuffle_xor(p.mean, mask), shuffle_xor(p.m2, mask),
                   shuffle_xor(p.n, mask)};
}
template <bool pivoted>
GN_DEVICE Partial broadcast(const Partial &p) {
    return Partial{pivoted ? shuffle(p.pivot, 0) : 0.0f, shuffle(p.mean, 0), shuffle(p.m2, 0), shuffle(p.n, 0)};
}

// Lane 0 gets the parts of the first `lanes` lanes (a power of two), combined as a tree in the order of lanes.
template <bool pivoted, int lanes = 32>
GN_DEVICE Partial combine_warp(Partial p) {
#pragma unroll
    for (int mask = 1; mask < lanes; mask <<= 1) p = combine(p, shuffle_xor<pivoted>(p, mask));
    return p;
}

// The same for parts without pivots and of as many elements each, in all lanes: where shares are halves, both sides of a
// pair compute the same bits, and no numbers of elements, reciprocals or selects are needed: half of what combine_warp
// costs. Of means the sum is kept: what two sums of 2^k means are apart, squared, counts n / 2^(k + 1).
template <int most>
GN_DEVICE Partial combine_equals(const Partial &p, uint32_t lanes = most) {
    float sum = p.mean, m2 = p.m2, weight = 0.5f * p.n, one = 1.0f;
#pragma unroll
    for (int mask = 1; mask < most; mask <<= 1) {
        if (mask >= static_cast<int>(lanes)) break;
        const float other = shuffle_xor(sum, mask), apart = other - sum;
        m2 = multiply_add(apart * apart, weight, m2 + shuffle_xor(m2, mask));
        sum += other;
        weight *= 0.5f, one *= 0.5f;
    }
    return Partial{0, sum * one, m2, p.n * static_cast<float>(lanes)};
}
// Whether all lanes of the warp have as many elements.
GN_DEVICE bool equal_parts(const Partial &p) { return !warp_any(p.n != shuffle(p.n, 0)); }

// All threads get the parts of all threads of the block, warps in order; `slots` is shared memory for 16 warps, written
// before the one barrier and read after it; `equal` is equal_parts, or is known without
// asking. Returns whether any thread came with `flag`.
template <bool pivoted>
GN_DEVICE bool combine_block(Partial &p, bool equal, bool flag, Partial *slots) {
    const uint32_t lane = thread() % 32, warps = threads() / 32;
    if (!pivoted && __builtin_expect(equal, true)) {
        p = combine_equals<32>(p);
    } else {
        p = combine_warp<pivoted>(p);
    }
    if (lane == 0) slots[thread() / 32] = p;
    const bool any = barrier_any(flag);
    if (!pivoted && __builtin_expect((warps & (warps - 1)) == 0, true)) {
        p = slots[lane & (warps - 1)];
        if (__builtin_expect(!warp_any(p.n != slots[0].n), true)) {
            p = combine_equals<16>(p, warps);
            return any;
        }
    }
    p = lane < warps ? slots[lane] : Partial{0, 0, 0, 0};
    p = broadcast<pivoted>(combine_warp<pivoted, 16>(p));
    return any;
}

// The one between the others, and so no outlier if only one of them is: beside one, what is above it would be coarse.
GN_DEVICE float middle(float a, float b, float c) { return fmaxf(fminf(a, b), fminf(fmaxf(a, b), c)); }

// The part that one thread holds: `count` vectors, and one more number if `has_extra`. A pivoted format is replaced by
// what it is above the pivot, in float32.
template <int dtype, int vectors>
GN_DEVICE Partial measure(Bits128 (&held)[vectors], int count, bool has_extra, float &extra) {
    constexpr bool pivoted = Number<dtype>::kPivoted;
    Partial p{0, 0, 0, static_cast<float>(count * Number<dtype>::kVector + has_extra)};
    if constexpr (pivoted) {
        p.pivot = count > 0 ? middle(as_float(held[0].word[0]), as_float(held[0].word[1]), as_float(held[0].word[2]))
                            : (has_extra ? extra : 0.0f);
        extra -= p.pivot;
    }
    float sum[2] = {has_extra ? extra : 0.0f, 0.0f};
#pragma unroll
    for (int j = 0; j < vectors; ++j) {
        if (j >= count) break;
        if constexpr (pivoted) change<dtype>(held[j], [&](int, float x) { return x - p.pivot; });
        each<dtype>(held[j], [&](int k, float d) { sum[k % 2] += d; });
    }
    const float total = sum[0] + sum[1];
    p.mean = p.n > 0.0f ? quotient(total, p.n, fast_reciprocal(p.n)) : 0.0f;  // exact for a constant
#pragma unroll
    for (int j = 0; j < vectors; ++j) forget(held[j]);
    float squares[2] = {has_extra ? (extra - p.mean) * (extra - p.mean) : 0.0f, 0.0f};
#pragma unroll
    for (int j = 0; j < vectors; ++j) {
        if (j >= count) break;
        each<dtype>(held[j], [&](int k, float d) {
            squares[k % 2] = multiply_add(d - p.mean, d - p.mean, squares[k % 2]);
        });
    }
#pragma unroll
    for (int j = 0; j < vectors; ++j) forget(held[j]);
    p.m2 = squares[0] + squares[1];
    return p;
}

}  // namespace gn
