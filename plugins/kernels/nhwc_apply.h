// NHWC: from rows in registers and the statistics of groups to y.
#pragma once
#include "nhwc_statistics.h"

namespace gn {

// The table becomes slope and offset of each channel: y = slope * (d - origin) + offset. Origins are 0, or the pivots if
// `raised`: if what will be held is not yet above them. Where a mean is so far from the pivot that the difference would
// cancel, the mean is added to the origin. Returns whether care is needed, for that or because some parameter is large;
// all threads get here after a barrier and go on after one.
template <int dtype, bool raised>
GN_DEVICE bool prepare(const Partial *united, const Arguments &a) {
    bool care = false;
    const Patch &p = bench::patch();
#pragma unroll 1
    for (uint32_t c = p.begin + this_thread(); c < p.end; c += threads()) {
        const uint32_t group = group_of(a, p, c - p.begin);
        const Partial s = united[group];
        const float mean = Number<dtype>::kPivoted ? (s.pivot - bench::pivots()[group]) + s.mean : s.mean;
        const float rstd = rstd_of(s, a.epsilon);
        const bool far = fabsf(mean) * rstd > kFarthestMean<dtype>;  // NaN goes the fast way
        Affine &affine = bench::table(a)[c - p.base];
        const bool large = !(fabsf(affine.gain) < kLargestParameter && fabsf(affine.offset) < kLargestParameter);
        const float pivot = raised ? s.pivot : 0.0f, origin = far ? pivot + mean : pivot;
        const Line line = line_of(affine, (pivot - origin) + mean, rstd);
        affine = Affine{line.slope, line.offset};
        bench::origins(a)[c - p.base] = origin;
        care |= far || large;
    }
    return barrier_any(care);
}

// Fills the table with the parameters of the patch's channels.
template <int dtype>
GN_DEVICE void fill_table(const Arguments &a) {
    const Patch &p = bench::patch();
    fill<dtype>(bench::table(a) + (p.begin - p.base), a, p.sample, static_cast<int32_t>(p.begin),
                static_cast<int32_t>(p.end - p.begin), this_thread(), threads());
}

// As store_some, for y in 8 bits.
template <int dtype>
GN_DEVICE void store_bytes(uint8_t *address, const uint32_t (&bytes)[2], const Patch &p, const Place &t,
                           const Arguments &a) {
    constexpr int kVector = Number<dtype>::kVector;
    if (t.whole(kVector) && !a.scattered) {
        if constexpr (kVector == 8) {
            store(reinterpret_cast<Bits64 *>(address), Bits64{{bytes[0], bytes[1]}});
        } else {
            store(reinterpret_cast<uint32_t *>(address), bytes[1]);
        }
        return;
    }
    const bool pads = p.last && !a.scattered;
#pragma unroll
    for (int k = 0; k < kVector; ++k) {
        const uint8_t byte = static_cast<uint8_t>(bytes[kVector == 4 ? 1 : k / 4] >> k % 4 * 8);
        if (t.has(k) || (pads && k >= t.end)) store(address + k, t.has(k) ? byte : uint8_t{0});
    }
}

// The general case in few instructions: any activation, type of y, alignment, parameters and mean.
template <int dtype, Epilogue epilogue>
GN_DEVICE void apply_row(Bits128 &vector, int64_t offset, const Arguments &a) {
    using Stored = typename Number<dtype>::Stored;
    constexpr int kVector = Number<dtype>::kVector;
    // Found anew each time, and not kept beside x.
    const uint32_t column = place_of<dtype>(a, bench::patch()).column;
    const Affine *lines = bench::table(a) + column * kVector;
    const float *origins = bench::origins(a) + column * kVector;
    const bool quantized = epilogue == kAny && a.output_dtype >= GN_I8;
    const auto byte = [&](float y) -> uint32_t {
        return a.output_dtype == GN_I8 ? to_i8(y, a.output_scale, a.output_reciprocal)
                                         : to_e4m3(y, a.output_scale, a.output_reciprocal);
    };
    const auto value = [&](int k, float d) {
        return finish<epilogue>(multiply_add(d - origins[k], lines[k].gain, lines[k].offset), a);
    };
    uint32_t bytes[2] = {0, 0};  // the last ones come last into the high bits of the second
#pragma unroll 1
    for (int w = 0; w < 4; ++w) {  // after four turns all words are where they were
        uint32_t word = vector.word[0];
        if constexpr (kVector == 4) {
            const float y = value(w, as_float(word));
            word = as_bits(y);
            if (quantized) bytes[1] = bytes[1] >> 8 | byte(y) << 24;
        } else {
            float low, high;
            Number<dtype>::widen2(word, low, high);
            low = value(2 * w, low);
            high = value(2 * w + 1, high);
            word = Number<dtype>::narrow2(low, high);
            bytes[0] = bytes[0] >> 16 | bytes[1] << 16;
            if (quantized) bytes[1] = bytes[1] >> 16 | byte(low) << 16 | byte(high) << 24;
        }
        vector = Bits128{{vector.word[1], vector.word[2], vector.word[3], word}};
    }
    const Patch &p = bench::patch();
    const Place t = place_of<dtype>(a, p);
    if (quantized) {
        store_bytes<dtype>(static_cast<uint8_t *>(a.y) + offset, bytes, p, t, a);
        return;
    }
    store_some<dtype>(static_cast<Stored *>(a.y) + offset, vector, p, t, a);
}

// The hot case: whole vectors, aligned, of x's type, nothing large. One multiply-add and the activation.
template <int dtype, Epilogue epilogue, int vectors>
GN_DEVICE void apply_fast(Bits128 (&held)[vectors], int64_t offset, const Arguments &a, int column,
                          int count) {
    using Stored = typename Number<dtype>::Stored;
    Stored *to = static_cast<Stored *>(a.y) + offset;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        Affine lines[kHalf<dtype>];
        const Affine *from = bench::table(a) + column * Number<dtype>::kVector + half * kHalf<dtype>;
#pragma unroll
        for (int i = 0; i < kHalf<dtype>; ++i) lines[i] = from[i];
        const auto y = [&](int i, float d) {
            const float value = multiply_add(d, lines[i].gain, lines[i].offset);
            return epilogue == kSilu ? silu(value) : maximum(value, a.floor);
        };
#pragma unroll
        for (int j = 0; j < vectors; ++j) {
            if (j >= count) break;
#pragma unroll
            for (int w = 0; w < 2; ++w) {
                uint32_t &word = held[j].word[2 * half + w];
                if constexpr (Number<dtype>::kVector == 4) {
                    word = as_bits(y(w, as_float(word)));
                } else {
                    float low, high;
                    Number<dtype>::widen2(word, low, high);
                    word = Number<dtype>::narrow2(y(2 * w, low), y(2 * w + 1, high));
                }
            }
            if (half == 1) store(reinterpret_cast<Bits128 *>(to + j * a.output_step), held[j]);
        }
    }
}

template <int dtype, Epilogue epilogue, bool raised, int vectors, class Count>
GN_DEVICE void apply_rows(Bits128 (&held)[vectors], int64_t begin, bool care, const Arguments &a, const Count &counted) {
    const int count = counted();
    const Place t = place_of<dtype>(a, bench::patch());
    int64_t offset = offset_of(a, bench::patch(), t, begin, a.output_pitch);
    if (epilogue != kAny && !care && !a.scattered && t.whole(Number<dtype>::kVector)) {
        if constexpr (raised) lower<dtype, true>(held, counted, a);
        apply_fast<dtype, epilogue>(held, offset, a, static_cast<int>(t.column), count);
    } else {
        each_in_turn(held, count, [&](int, Bits128 &vector) {
            apply_row<dtype, epilogue>(vector, offset, a);
            offset += a.output_step;
        });
    }
}

}  // namespace gn
