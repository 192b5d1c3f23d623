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

// An error of at most `ulp` units in the last place, always the same for the same value.
inline float disturbed(float value, int ulp) {
    const uint32_t bits = bits_of(value);
    const uint32_t size = bits & 0x7fffffff;
    if (size < 0x00800010 || size >= 0x7f7ffff0) return value;
    const uint32_t hash = (bits * 2654435761u) >> 16;
    return float_of(bits + hash % (2 * ulp + 1) - ulp);
}
inline float flushed(float value) { return std::fabs(value) < 0x1p-126f ? std::copysign(0.0f, value) : value; }

// ex2.approx.ftz.f32: 2 ulp; exactly 1 at 0 (PTX ISA).
inline float fast_exp2(float x) {
    const float y = std::exp2(flushed(x));
    return y == 1 ? y : flushed(disturbed(y, 1));  // exp2f's own error is below 1
}
// rcp.approx.ftz.f32: 1 ulp.
inline float fast_reciprocal(float x) {
    const float y = 1.0f / flushed(x);
    return flushed(bits_of(y) & 0x007fffff ? disturbed(y, 1) : y);
}

}  // namespace gn::emulator
