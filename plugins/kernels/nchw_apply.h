// NCHW: from a slice in registers and the unit's statistics to y.
#pragma once
#include "activation.h"
#include "dispatch.h"
#include "nchw_slice.h"
#include "statistics.h"

namespace gn {

// `mean` is above the pivot that was subtracted from what the thread holds.
struct Normal {
    float mean, rstd;
};

GN_DEVICE float rstd_of(const Partial &p, float epsilon) {
    return rsqrt_rounded(quotient(p.m2, p.n, fast_reciprocal(p.n)) + epsilon);
}

// `n` results as bytes, from an address that is aligned to one element only unless `aligned`.
template <int n>
GN_DEVICE void store_bytes(uint8_t *address, const float (&y)[n], const Arguments &a, bool aligned) {
    const float reciprocal = 1.0f / a.output_scale;
    uint32_t words[n / 4] = {};
#pragma unroll
    for (int k = 0; k < n; ++k) {
        const uint32_t byte = a.output_dtype == GN_I8 ? to_i8(y[k], a.output_scale, reciprocal)
                                                      : to_e4m3(y[k], a.output_scale, reciprocal);
        words[k / 4] |= byte << k % 4 * 8;
    }
    if (!aligned) {
#pragma unroll
        for (int k = 0; k < n; ++k) store(address + k, static_cast<uint8_t>(words[k / 4] >> k % 4 * 8));
    } else if constexpr (n == 8) {
        store(reinterpret_cast<Bits64 *>(address), Bits64{{words[0], words[1]}});
    } else {
        store(reinterpret_cast<uint32_t *>(address), words[0]);
    }
}

template <Epilogue epilogue>
GN_DEVICE float finish(float y, const Arguments &a) {
    if constexpr (epilogue == kPlain) return maximum(y, a.floor);
    return activate(y, epilogue == kSilu ? static_cast<int>(GN_SILU) : a.activation);
}

// The general case in few instructions: any P, any alignment, any activation and type of y, any mean.
template <int dtype, Epilogue epilogue>
GN_DEVICE void apply_element(float d, int32_t e, const Affine *table, const Normal &normal, const Slice &s,
                             const Arguments &a) {
    const Affine affine = table[divide(s.offset + static_cast<uint32_t>(e), a.by_positions)];
    const float y = finish<epilogue>(multiply_add(d - normal.mean, affine.gain * normal.rstd, affine.offset), a);
    if (epilogue == kAny && a.output_dtype >= GN_I8) {
        const float reciprocal = 1.0f / a.output_scale;
        store(at<uint8_t>(a.y, s) + e, a.output_dtype == GN_I8 ? to_i8(y, a.output_scale, reciprocal)
                                                               : to_e4m3(y, a.output_scale, reciprocal));
    } else {
        store(at<typename Number<dtype>::Stored>(a.y, s) + e, Number<dtype>::narrow(y));
    }
}

template <int dtype, Epilogue epilogue>
GN_DEVICE void apply_vector(Bits128 &held, int32_t e, const Affine *table, const Normal &normal, const Slice &s,
                            const Arguments &a) {
    using Stored = typename Number<dtype>::Stored;
    constexpr int kVector = Number<dtype>::kVector;
    const uint32_t from = s.offset + static_cast<uint32_t>(e);
    const uint32_t channel = divide(from, a.by_positions);
    float y[kVector];
    if (s.period >= kVector) {  // two channels at most
        const uint32_t next = s.period - (from - channel * s.period);
        const Affine one = table[channel];
        const Affine two = table[next < kVector ? channel + 1 : channel];
        const float gain[2] = {one.gain * normal.rstd, two.gain * normal.rstd};
        each<dtype>(held, [&](int k, float d) {
            const bool first = static_cast<uint32_t>(k) < next;
            y[k] = multiply_add(d - normal.mean, first ? gain[0] : gain[1], first ? one.offset : two.offset);
        });
    } else {
        each<dtype>(held, [&](int k, float d) {
            const Affine affine = table[divide(from + static_cast<uint32_t>(k), a.by_positions)];
            y[k] = multiply_add(d - normal.mean, affine.gain * normal.rstd, affine.offset);
        });
    }
#pragma unroll
    for (int k = 0; k < kVector; ++k) y[k] = finish<epilogue>(y[k], a);

    if (epilogue == kAny && a.output_dtype >= GN_I8) {
        store_bytes<kVector>(at<uint8_t>(a.y, s) + e, y, a, !a.scattered);
        return;
    }
    change<dtype>(held, [&](int k, float) { return y[k]; });
    Stored *to = at<Stored>(a.y, s) + e;
    if (a.scattered) {
        store_elements<dtype>(to, held);
    } else {
        store(reinterpret_cast<Bits128 *>(to), held);
    }
}

// The hot case: each vector within one channel, aligned, of x's type, nothing large. One multiply-add and the activation.
template <int dtype, Epilogue epilogue, int vectors>
GN_DEVICE void apply_fast(Bits128 (&held)[vectors], const Affine *table, const Normal &normal, const Slice &s,
                          const Arguments &a, const Crew &crew, int count) {
    constexpr int kVector = Number<dtype>::kVector;
    const int32_t begin = crew.first(vectors);
    Bits128 *to = reinterpret_cast<Bits128 *>(at<typename Number<dtype>::Stored>(a.y, s)) + begin;
    forget(to);
    const uint32_t from = s.offset + static_cast<uint32_t>(begin) * kVector;
    // In elements from `from` on: where this thread's vectors end, and where the line that is known does.
    const int32_t all = (s.vectors - begin) * kVector;
    int32_t known = 0;
    Line line{0, 0};
#pragma unroll
    for (int j = 0; j < vectors; ++j) {
        const int32_t here = j * 32 * kVector;
        if (here >= known) {
            if (here >= all) break;
            const uint32_t channel = divide(from + here, a.by_positions);
            line = line_of(table[channel], normal.mean, normal.rstd);
            const uint32_t next = (channel + 1) * s.period - from;
            known = next < static_cast<uint32_t>(all) ? static_cast<int32_t>(next) : all;
        }
        change<dtype>(held[j], [&](int, float d) {
            const float y = multiply_add(d, line.slope, line.offset);
            return epilogue == kSilu ? silu(y) : maximum(y, a.floor);
        });
        store(to + j * 32, held[j]);
    }
}

// `table`: of the slice's channels. `large`: some parameter is.
template <int dtype, Epilogue epilogue, int vectors>
GN_DEVICE void apply(Bits128 (&held)[vectors], float extra, const Affine *table, const Normal &normal, bool large,
                     const Slice &s, const Arguments &a, const Crew &crew, int count) {
    constexpr int kVector = Number<dtype>::kVector;
    const bool within = a.flat || ((s.offset | s.period) % kVector == 0);
    const bool near = !(fabsf(normal.mean) * normal.rstd > kFarthestMean<dtype>);  // NaN goes the fast way
    if (epilogue != kAny && within && near && !large && !a.scattered) {
        apply_fast<dtype, epilogue>(held, table, normal, s, a, crew, count);
    } else {
        each_in_turn(held, count, [&](int i, Bits128 &vector) {
            const int32_t e = (crew.first(vectors) + i * 32) * kVector;
            apply_vector<dtype, epilogue>(vector, e, table, normal, s, a);
        });
    }
    const int32_t e = s.extra(kVector, crew);
    if (e >= -s.lead) apply_element<dtype, epilogue>(extra, e, table, normal, s, a);
}

}  // namespace gn
