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
    return fast_rsqrt(multiply_add(p.m2, fast_reciprocal(p.n), epsilon));
}

GN_DEVICE uint32_t to_byte(float y, const Arguments &a) {
    const float reciprocal = 1.0f / a.output_scale;
    return a.output_dtype == GN_I8 ? to_i8(y, a.output_scale, reciprocal) : to_e4m3(y, a.output_scale, reciprocal);
}

// The last `n` of eight bytes, from an address that is aligned to one of them only unless `aligned`.
template <int n>
GN_DEVICE void store_bytes(uint8_t *address, const uint32_t (&bytes)[2], bool aligned) {
    if (!aligned) {
#pragma unroll
        for (int k = 0; k < n; ++k) {
            const int of = 8 - n + k;
            store(address + k, static_cast<uint8_t>(bytes[of / 4] >> of % 4 * 8));
        }
    } else if constexpr (n == 8) {
        store(reinterpret_cast<Bits64 *>(address), Bits64{{bytes[0], bytes[1]}});
    } else {
        store(reinterpret_cast<uint32_t *>(address), bytes[1]);
    }
}

template <int n>
GN_DEVICE void store_bytes(uint8_t *address, const float (&y)[n], const Arguments &a, bool aligned) {
    uint32_t bytes[2] = {0, 0};
#pragma unroll
    for (int k = 0; k < n; ++k) bytes[(8 - n + k) / 4] |= to_byte(y[k], a) << k % 4 * 8;
    store_bytes<n>(address, bytes, aligned);
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
        store(at<uint8_t>(a.y, s) + e, static_cast<uint8_t>(to_byte(y, a)));
    } else {
        store(at<typename Number<dtype>::Stored>(a.y, s) + e, Number<dtype>::narrow(y));
    }
}

template <int dtype, Epilogue epilogue>
GN_DEVICE void apply_vector(Bits128 &held, int32_t e, const Affine *table, const Normal &normal, const Slice &s,
                            const Arguments &a) {
    using Stored = typename Number<dtype>::Stored;
    constexpr int kVector = Number<dtype>::kVector, kWord = kVector / 4;
    const uint32_t from = s.offset + static_cast<uint32_t>(e);
    const uint32_t channel = divide(from, a.by_positions);
    const int32_t next = static_cast<int32_t>(s.period - (from - channel * s.period));
    const Affine one = table[channel], two = table[next < kVector ? channel + 1 : channel];
    uint32_t bytes[2] = {0, 0};
#pragma unroll(epilogue == kAny ? 1 : 4)
    for (int w = 0; w < 4; ++w) {  // the first word is always the next one, so that the loop need not be unrolled
        float y[2] = {0, 0};
        Number<dtype>::widen2(held.word[0], y[0], y[1]);
#pragma unroll
        for (int k = 0; k < kWord; ++k) {
            const int i = kWord * w + k;
            Affine affine = i < next ? one : two;  // two channels at most ...
            if (s.period < kVector) affine = table[divide(from + static_cast<uint32_t>(i), a.by_positions)];  // ... or more
            y[k] = finish<epilogue>(multiply_add(y[k] - normal.mean, affine.gain * normal.rstd, affine.offset), a);
        }
        held.word[0] = held.word[1], held.word[1] = held.word[2], held.word[2] = held.word[3];
        held.word[3] = Number<dtype>::narrow2(y[0], y[1]);
        if (epilogue == kAny && a.output_dtype >= GN_I8) {
#pragma unroll
            for (int k = 0; k < kWord; ++k) {
                bytes[0] = bytes[0] >> 8 | bytes[1] << 24;
                bytes[1] = bytes[1] >> 8 | to_byte(y[k], a) << 24;
            }
        }
    }
    if (epilogue == kAny && a.output_dtype >= GN_I8) {
        store_bytes<kVector>(at<uint8_t>(a.y, s) + e, bytes, !a.scattered);
    } else if (a.scattered) {
        store_elements<dtype>(at<Stored>(a.y, s) + e, held);
    } else {
        store(reinterpret_cast<Bits128 *>(at<Stored>(a.y, s) + e), held);
    }
}

// The hot case: each vector within one channel, aligned, of x's type, nothing large. One multiply-add and the
// activation.
template <int dtype, Epilogue epilogue, int vectors>
GN_DEVICE void apply_fast(Bits128 (&held)[vectors], const Affine *table, const Normal &normal, const Slice &s,
                          const Arguments &a, const Crew &crew) {
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
GN_DEVICE void apply(Bits128 (&held)[vectors], const Extra *extras, const Affine *table, const Normal &normal, bool large,
                     const Slice &s, const Arguments &a, const Crew &crew) {
    constexpr int kVector = Number<dtype>::kVector;
    const bool within = a.flat || ((s.offset | s.period) % kVector == 0);
    const bool near = !(fabsf(normal.mean) * normal.rstd > kFarthestMean<dtype>);  // NaN goes the fast way
    if (epilogue != kAny && __builtin_expect(within && near && !large && !a.scattered, true)) {
        apply_fast<dtype, epilogue>(held, table, normal, s, a, crew);
    } else {
        each_in_turn(held, crew.share(s.vectors, vectors), [&](int i, Bits128 &vector) {
            apply_vector<dtype, epilogue>(vector, (crew.first(vectors) + i * 32) * kVector, table, normal, s, a);
        });
    }
    if (crew.index >= Extra::kThreads) return;
    const Extra extra = extra_of(extras, crew);
    if (extra.element != Slice::kNone) apply_element<dtype, epilogue>(extra.value, extra.element, table, normal, s, a);
}

}  // namespace gn
