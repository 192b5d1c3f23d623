// Numbers: float32, float16 and bfloat16 in vectors of 16 bytes, the 8-bit formats that y may have, and two divisions.
#pragma once
#include <math.h>

#include "arguments.h"
#include "gn.h"
#include "platform.h"

namespace gn {

// For n < 2^31.
GN_DEVICE uint32_t divide(uint32_t n, const Divisor &by) {
    return static_cast<uint32_t>(static_cast<uint64_t>(2 * n) * by.multiplier >> 32) >> by.shift;
}

// A format of x. `kVector` elements are 16 bytes; `kPivoted` formats are so fine beside a large mean that float32 sums
// of the numbers themselves would lose what they differ by, so a pivot is subtracted first.
template <int dtype>
struct Number;

template <>
struct Number<GN_F32> {
    using Stored = uint32_t;
    static constexpr int kVector = 4;
    static constexpr bool kPivoted = true;
    static GN_DEVICE void widen2(uint32_t word, float &only, float &) { only = as_float(word); }
    static GN_DEVICE uint32_t narrow2(float only, float) { return as_bits(only); }
    static GN_DEVICE float widen(Stored bits) { return as_float(bits); }
    static GN_DEVICE Stored narrow(float value) { return as_bits(value); }
};

template <>
struct Number<GN_F16> {
    using Stored = uint16_t;
    static constexpr int kVector = 8;
    static constexpr bool kPivoted = false;
    static GN_DEVICE void widen2(uint32_t word, float &low, float &high) { from_f16x2(word, low, high); }
    static GN_DEVICE uint32_t narrow2(float low, float high) { return to_f16x2(low, high); }
    static GN_DEVICE float widen(Stored bits) {
        float low, high;
        from_f16x2(bits, low, high);
        return low;
    }
    static GN_DEVICE Stored narrow(float value) { return static_cast<Stored>(to_f16x2(value, 0)); }
};

template <>
struct Number<GN_BF16> {
    using Stored = uint16_t;
    static constexpr int kVector = 8;
    static constexpr bool kPivoted = false;
    static GN_DEVICE void widen2(uint32_t word, float &low, float &high) {
        low = as_float(word << 16);
        high = as_float(word & 0xffff0000u);
    }
    static GN_DEVICE uint32_t narrow2(float low, float high) { return to_bf16x2(low, high); }
    static GN_DEVICE float widen(Stored bits) { return as_float(static_cast<uint32_t>(bits) << 16); }
    static GN_DEVICE Stored narrow(float value) { return static_cast<Stored>(to_bf16x2(value, 0)); }
};

// use(i, value) for each element of a vector, first to last.
template <int dtype, class Use>
GN_DEVICE void each(const Bits128 &vector, Use use) {
#pragma unroll
    for (int w = 0; w < 4; ++w) {
        if constexpr (Number<dtype>::kVector == 4) {
            use(w, as_float(vector.word[w]));
        } else {
            float low, high;
            Number<dtype>::widen2(vector.word[w], low, high);
            use(2 * w, low);
            use(2 * w + 1, high);
        }
    }
}

// Each element becomes change(i, value).
template <int dtype, class Change>
GN_DEVICE void change(Bits128 &vector, Change change) {
#pragma unroll
    for (int w = 0; w < 4; ++w) {
        if constexpr (Number<dtype>::kVector == 4) {
            vector.word[w] = as_bits(change(w, as_float(vector.word[w])));
        } else {
            float low, high;
            Number<dtype>::widen2(vector.word[w], low, high);
            low = change(2 * w, low);
            high = change(2 * w + 1, high);
            vector.word[w] = Number<dtype>::narrow2(low, high);
        }
    }
}

// The compiler may not keep unpacked copies of what is held.
GN_DEVICE void forget(Bits128 &vector) {
#pragma unroll
    for (int w = 0; w < 4; ++w) forget(vector.word[w]);
}

// A vector from an address that is aligned to one element only.
template <int dtype>
GN_DEVICE Bits128 load_elements(const typename Number<dtype>::Stored *address) {
    Bits128 vector;
#pragma unroll
    for (int w = 0; w < 4; ++w) {
        if constexpr (Number<dtype>::kVector == 4) {
            vector.word[w] = load(address + w);
        } else {
            const uint32_t low = load(address + 2 * w), high = load(address + 2 * w + 1);
            vector.word[w] = low | high << 16;
        }
    }
    return vector;
}
template <int dtype>
GN_DEVICE void store_elements(typename Number<dtype>::Stored *address, const Bits128 &vector) {
    using Stored = typename Number<dtype>::Stored;
#pragma unroll
    for (int w = 0; w < 4; ++w) {
        if constexpr (Number<dtype>::kVector == 4) {
            store(address + w, vector.word[w]);
        } else {
            store(address + 2 * w, static_cast<Stored>(vector.word[w]));
            store(address + 2 * w + 1, static_cast<Stored>(vector.word[w] >> 16));
        }
    }
}

// x + residual, each element rounded to the format, as an Add before the normalization would.
template <int dtype>
GN_DEVICE void add(Bits128 &x, const Bits128 &residual) {
#pragma unroll
    for (int w = 0; w < 4; ++w) {
        if constexpr (Number<dtype>::kVector == 4) {
            x.word[w] = as_bits(as_float(x.word[w]) + as_float(residual.word[w]));
        } else {  // a float32 sum of two such numbers, rounded again, is the sum rounded once (24 >= 2 * 11 + 2 bits)
            float a, b, c, d;
            Number<dtype>::widen2(x.word[w], a, b);
            Number<dtype>::widen2(residual.word[w], c, d);
            x.word[w] = Number<dtype>::narrow2(a + c, b + d);
        }
    }
}

// numerator / denominator, rounded to nearest but for under- and overflow on the way, given the rounded 1 / denominator
// (Markstein 1990): exact where the quotient is a float32.
GN_DEVICE float quotient(float numerator, float denominator, float reciprocal) {
    const float first = numerator * reciprocal;
    return multiply_add(multiply_add(-first, denominator, numerator), reciprocal, first);
}

// value / scale as int8, ties to even, saturated; NaN becomes 0, as in ONNX Runtime's and CUDA's conversions.
GN_DEVICE uint8_t to_i8(float value, float scale, float reciprocal) {
    const float first = value * reciprocal;
    float q = fabsf(first) < 1024.0f ? quotient(value, scale, reciprocal) : first;  // beyond 127 in any case
    q = q > 127.0f ? 127.0f : (q < -128.0f ? -128.0f : q);
    // Adding 3 * 2^22 leaves the integer, rounded to even, in the low bits.
    return q == q ? static_cast<uint8_t>(as_bits(q + 12582912.0f)) : 0;
}

// value / scale as e4m3 (OFP8: bias 7, largest 448, no infinity), ties to even, saturated; NaN stays NaN.
GN_DEVICE uint8_t to_e4m3(float value, float scale, float reciprocal) {
    const float first = value * reciprocal;
    const float q = fabsf(first) < 1024.0f ? quotient(value, scale, reciprocal) : first;
    const uint32_t sign = as_bits(value) >> 24 & 0x80u, magnitude = as_bits(q) & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return static_cast<uint8_t>(sign | 0x7fu);
    if (magnitude >= 0x43e00000u) return static_cast<uint8_t>(sign | 0x7eu);  // 448
    // Below 2^-6 steps are 2^-9: adding 2^14 rounds to them in the low bits. Above, 20 bits of the fraction are
    // rounded.
    const uint32_t rounded = magnitude < 0x3c800000u
                                 ? as_bits(as_float(magnitude) + 16384.0f) - 0x46800000u
                                 : ((magnitude + 0x7ffffu + (magnitude >> 20 & 1u)) >> 20) - (120u << 3);
    return static_cast<uint8_t>(sign | (rounded < 0x7eu ? rounded : 0x7eu));
}

}  // namespace gn
