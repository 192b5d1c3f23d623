// What scale, bias, s and t make of a channel: value * gain + offset.
#pragma once
#include "arguments.h"
#include "number.h"

namespace gn {

struct alignas(8) Affine {
    float gain, offset;  // scale (1 + s), bias (1 + s) + t
};

// y = slope * d + offset of a number d above its pivot.
struct Line {
    float slope, offset;
};

// Beyond this, gain * d or the offset might become infinite for finite d, and the short forms of activations do not
// know infinity.
constexpr float kLargestParameter = 1e30f;

// Of the mean in standard deviations, how far it may be from the pivot before slope * d and offset cancel too much:
// an error of 2^-24 of it should be small beside a unit in the last place of y near 1, 2^-10 of float16 and 2^-23.
template <int dtype>
constexpr float kFarthestMean = Number<dtype>::kPivoted ? 16.0f : 512.0f;

// Channel `channel` of sample `sample`, of parameters that are stored as `dtype`. All of memory that is needed is asked
// for before any of it is used: one after the other, each would be waited for.
template <int dtype>
GN_DEVICE Affine affine_of(const Arguments &a, int64_t sample, int32_t channel) {
    using Stored = typename Number<dtype>::Stored;
    const Stored one = Number<dtype>::narrow(1.0f);
    const auto at = [](const void *parameters, int64_t i, Stored absent) -> uint32_t {
        return parameters ? load(static_cast<const Stored *>(parameters) + i) : absent;
    };
    const auto value = [](uint32_t bits) { return Number<dtype>::widen(static_cast<Stored>(bits)); };
    uint32_t scale = at(a.scale, channel, one), bias = at(a.bias, channel, 0), more = 0, shift = 0;
    const bool modulated = a.modulation_scale || a.modulation_shift;
    if (__builtin_expect(modulated, false)) {
        const int64_t i = sample * a.channels + channel;
        more = at(a.modulation_scale, i, 0), shift = at(a.modulation_shift, i, 0);
    }
    forget(scale), forget(bias), forget(more), forget(shift);
    Affine affine{value(scale), value(bias)};
    if (__builtin_expect(modulated, false)) {
        const float gain = 1.0f + value(more);
        affine.gain *= gain;
        affine.offset = affine.offset * gain + value(shift);
    }
    return affine;
}

// Beyond kLargestParameter, or not a number.
GN_DEVICE bool is_large(const Affine &affine) {
    return !(fabsf(affine.gain) < kLargestParameter && fabsf(affine.offset) < kLargestParameter);
}

// Fills a table in shared memory with `count` channels from `first` on, by `many` threads of which this is number
// `mine`. Returns whether a parameter is so large that it needs care.
template <int dtype>
GN_DEVICE bool fill(Affine *table, const Arguments &a, int64_t sample, int32_t first, int32_t count, uint32_t mine,
                    uint32_t many) {
    bool large = false;
#pragma unroll 1
    for (int32_t c = static_cast<int32_t>(mine); c < count; c += static_cast<int32_t>(many)) {
        const bool f32 = dtype == GN_F32 || a.parameter_f32;
        const Affine affine = f32 ? affine_of<GN_F32>(a, sample, first + c) : affine_of<dtype>(a, sample, first + c);
        large |= is_large(affine);
        table[c] = affine;
    }
    return large;
}
// The same of what this thread has filled before.
GN_DEVICE bool has_large(const Affine *table, int32_t count, uint32_t mine, uint32_t many) {
    bool large = false;
#pragma unroll 1
    for (int32_t c = static_cast<int32_t>(mine); c < count; c += static_cast<int32_t>(many)) large |= is_large(table[c]);
    return large;
}

// `mean` is above the pivot, as d is.
GN_DEVICE Line line_of(const Affine &affine, float mean, float rstd) {
    const float slope = affine.gain * rstd;
    return Line{slope, multiply_add(-mean, slope, affine.offset)};
}

}  // namespace gn
