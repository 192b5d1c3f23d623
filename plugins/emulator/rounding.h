// Number formats to the bit, and the GPU's approximate functions with all the error they may have.
#pragma once
#include <stdint.h>
#include <string.h>

#include <cmath>

namespace gn::emulator {

inline uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return bits;
}
inline float float_of(uint32_t bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

inline float from_f16(uint16_t half) {
    const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
    const uint32_t exponent = half >> 10 & 31, mantissa = half & 1023;
    if (exponent == 31) return float_of(sign | 0x7f800000 | mantissa << 13);
    if (exponent == 0) return float_of(sign | bits_of(static_cast<float>(mantissa) * 0x1p-24f));
    return float_of(sign | (exponent + 112) << 23 | mantissa << 13);
}

// To nearest even. NaN becomes 0x7fff, as the instruction does it.
inline uint32_t to_f16(float value) {
    uint32_t bits = bits_of(value);
    const uint32_t sign = bits >> 16 & 0x8000;
    bits &= 0x7fffffff;
    if (bits > 0x7f800000) return 0x7fff;
    if (bits >= 0x477ff000) return sign | 0x7c00;  // 65520 and beyond
    if (bits < 0x38800000)  // below 2^-14: adding 1/2 lets the float adder round at 2^-24
        return sign | (bits_of(float_of(bits) + 0.5f) - 0x3f000000);
    return sign | (((bits + 0xfff + (bits >> 13 & 1)) >> 13) - (112 << 10));
}
inline uint32_t to_bf16(float value) {
    const uint32_t bits = bits_of(value);
    return (bits & 0x7fffffff) > 0x7f800000 ? 0x7fff : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

// A float32 within `ulp` units in the last place of `exact`, seldom the nearest, always the same for the same number;
// `exact` itself where it is a float32.
inline float disturbed(double exact, uint32_t ulp) {
    const float nearest = static_cast<float>(exact);
    const float size = std::fabs(nearest);
    if (nearest == exact || !(size > 0x1p-120f && size < 0x1p127f)) return nearest;
    const uint32_t below = bits_of(nearest) - (size > std::fabs(exact));
    const uint32_t hash = below * 2654435761u >> 16;
    return float_of(below + hash % (2 * ulp) - (ulp - 1));
}
inline float flushed(float value) { return std::fabs(value) < 0x1p-126f ? std::copysign(0.0f, value) : value; }

// ex2.approx.ftz.f32: 2 ulp (PTX ISA).
inline float fast_exp2(float x) { return flushed(disturbed(std::exp2(static_cast<double>(flushed(x))), 2)); }
// rcp.approx.ftz.f32: 1 ulp.
inline float fast_reciprocal(float x) { return flushed(disturbed(1.0 / static_cast<double>(flushed(x)), 1)); }

}  // namespace gn::emulator
