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

template <int dtype>
GN_DEVICE float load_parameter(const void *parameters, int64_t i, bool f32) {
    if (dtype == GN_F32 || f32) return load(static_cast<const float *>(parameters) + i);
    using Stored = typename Number<dtype>::Stored;
    return Number<dtype>::widen(load(static_cast<const Stored *>(parameters) + i));
}

// Channel `channel` of sample `sample`.
template <int dtype>
GN_DEVICE Affine affine_of(const Arguments &a, int64_t sample, int32_t channel) {
    const bool f32 = a.parameter_f32;
    Affine affine{1.0f, 0.0f};
    if (a.scale) affine.gain = load_parameter<dtype>(a.scale, channel, f32);
    if (a.bias) affine.offset = load_parameter<dtype>(a.bias, channel, f32);
    if (a.modulation_scale) {
        const float more = 1.0f + load_parameter<dtype>(a.modulation_scale, sample * a.channels + channel, f32);
        affine.gain *= more;
        affine.offset *= more;
    }
    if (a.modulation_shift) {
        affine.offset += load_parameter<dtype>(a.modulation_shift, sample * a.channels + channel, f32);
    }
    return affine;
}

// Fills a table in shared memory with `count` channels from `first` on, by `many` threads of which this is number
// `mine`. Returns whether a parameter is so large that it needs care.
template <int dtype>
GN_DEVICE bool fill(Affine *table, const Arguments &a, int64_t sample, int32_t first, int32_t count, uint32_t mine,
                    uint32_t many) {
    bool large = false;
#pragma unroll 1
    for (int32_t c = static_cast<int32_t>(mine); c < count; c += static_cast<int32_t>(many)) {
        const Affine affine = affine_of<dtype>(a, sample, first + c);
        large |= !(fabsf(affine.gain) < kLargestParameter && fabsf(affine.offset) < kLargestParameter);
        table[c] = affine;
    }
    return large;
}

// `mean` is above the pivot, as d is.
GN_DEVICE Line line_of(const Affine &affine, float mean, float rstd) {
    const float slope = affine.gain * rstd;
    return Line{slope, multiply_add(-mean, slope, affine.offset)};
}

}  // namespace gn
