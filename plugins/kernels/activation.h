// The activations, in float32 and in few instructions.
#pragma once
#include <math.h>

#include "gn.h"
#include "platform.h"

namespace gn {

constexpr float kLog2E = 1.44269504088896341f;

// Errors below are relative, in units of 2^-24, on -20 <= y <= 20; ex2 and rcp are within 2 and 1 units in the last
// place, and the rounding of their argument grows with it: for y < 0 the relative error is up to |y| more units.

// y / (1 + e^-y), for finite y: 6. No branch, two special functions. At -infinity it is NaN: see `activate`.
GN_DEVICE float silu(float y) { return y * fast_reciprocal(1.0f + fast_exp2(-kLog2E * y)); }

GN_DEVICE float activate(float y, int activation) {
    if (activation == GN_NONE) return y;
    if (activation == GN_RELU) return y < 0.0f ? 0.0f : y;  // NaN stays NaN
    if (activation == GN_HARDSWISH) {                       // 3, and 0 up to and at -infinity
        return y <= -3.0f ? 0.0f : y * fminf((y + 3.0f) * (1.0f / 6.0f), 1.0f);
    }
    // Every gate below is 0 in float32 long before; the product at -infinity must be 0 as well, not NaN.
    y = y < -1e4f ? -1e4f : y;
    if (activation == GN_SILU) return silu(y);
    if (activation == GN_GELU) {  // 8, growing with y^2 for y < 0; erfc, since 1 + erf cancels
        return y * (0.5f * erfc(y * -0.707106781186547524f));
    }
    if (activation == GN_GELU_TANH) {  // 8, growing with |y|^3 for y < 0; (1 + tanh t) / 2 is the sigmoid of 2 t
        const float twice = 1.59576912160573071f * multiply_add(0.044715f * y * y, y, y);
        return y * fast_reciprocal(1.0f + fast_exp2(-kLog2E * twice));
    }
    // GN_MISH, 8: tanh(log(1 + e)) is n / (n + 2) with n = e (e + 2), which does not cancel, and 1 from y = 20 on.
    const float e = fast_exp2(kLog2E * fminf(y, 20.0f));
    const float n = e * (e + 2.0f);
    return y * (n * fast_reciprocal(n + 2.0f));
}

}  // namespace gn
