// gn_check: whether a problem is one at all, and the words for what it is made of.
#include <math.h>

#include "message.h"
#include "units.h"

using namespace gn;

namespace {

std::string wrong(const gn_problem &p) {
    const auto number = [](int64_t n) { return std::to_string(n); };
    const auto within = [](int32_t value, int32_t last) { return value >= 0 && value <= last; };
    if (p.samples < 0 || p.channels < 0 || p.positions < 0) return "a size is negative";
    if (p.groups < 1) return number(p.groups) + " groups: at least 1 is needed";
    if (p.channels % p.groups)
        return number(p.channels) + " channels are not divisible into " + number(p.groups) + " groups";
    if (!(p.epsilon >= 0) || isinf(p.epsilon)) return "epsilon is not a finite number of 0 or more";
    if (!within(p.layout, GN_NHWC)) return "layout " + number(p.layout) + " is neither NCHW nor NHWC";
    if (!within(p.dtype, GN_BF16)) return "x has type " + number(p.dtype) + ": float32, float16 or bfloat16 is needed";
    if (p.parameter_dtype != GN_F32 && p.parameter_dtype != p.dtype) return "parameters are neither float32 nor of x's type";
    if (p.output_dtype != p.dtype && p.output_dtype != GN_I8 && p.output_dtype != GN_E4M3)
        return "y has type " + number(p.output_dtype) + ": x's type, int8 or float8 e4m3 is needed";
    if (!within(p.activation, GN_MISH)) return "there is no activation " + number(p.activation);
    if (p.output_dtype != p.dtype && (!(p.output_scale > 0) || isinf(p.output_scale)))
        return "the scale of a quantized y is not a finite number above 0";
    if (p.has_sum && !p.has_residual) return "a sum is asked for but there is no residual to add";
    if (!within(p.has_affine, 3) || !within(p.has_modulation, 3)) return "has_affine and has_modulation are two bits each";
    const bool rows = p.layout == GN_NHWC, quantized = p.output_dtype != p.dtype;
    if (rows && p.pitch < p.channels)
        return "rows of " + number(p.channels) + " channels do not fit a pitch of " + number(p.pitch);
    if (rows && quantized && p.output_pitch < p.channels)
        return "rows of " + number(p.channels) + " channels do not fit an output pitch of " + number(p.output_pitch);

    const int64_t row = rows ? std::max(p.pitch, quantized ? p.output_pitch : 0) : p.channels;
    const int64_t elements = product(product(p.samples, p.positions, kTensorBytes), row, kTensorBytes);
    if (product(elements, element_bytes(p.dtype), kTensorBytes) > kTensorBytes)
        return "x or y is larger than " + bytes_text(kTensorBytes);
    if (p.channels > kGrid || p.samples > kGrid) return "more than 2147483647 samples or channels";
    if (elements > 0 && p.channels > 0 && units_of(p, slab_of(p)).count > kGrid)
        return "more than 2147483647 units for one launch: split the batch";
    return "";
}

}  // namespace

extern "C" int gn_check(const gn_problem *problem, char *message, size_t size) {
    const std::string text = wrong(*problem);
    return text.empty() ? static_cast<int>(GN_OK) : tell(GN_BAD_PROBLEM, text, message, size);
}

extern "C" const char *gn_variant_name(int variant) {
    const char *const names[] = {"warp", "block", "cluster", "team", "split"};
    return variant >= 0 && variant < GN_VARIANTS ? names[variant] : "unknown";
}
