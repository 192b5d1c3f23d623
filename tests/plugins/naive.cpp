// gn.h on the host in the plainest words, double throughout: what a library must look like to its callers. GN_FAULT
// "kind:variant" seeds one fault, so that each check of the benchmark is seen to catch what it is for.
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "gn.h"

namespace {

const char *kNames[] = {"warp", "block", "cluster", "team", "split"};
const int64_t kSizes[] = {4, 2, 2, 1, 1};

bool seeded(const char *kind, int variant) {
    const char *fault = getenv("GN_FAULT");
    return fault && std::string(fault) == std::string(kind) + ":" + kNames[variant];
}

double load(const void *p, int64_t i, int dtype) {
    if (dtype == GN_F32) return static_cast<const float *>(p)[i];
    if (dtype == GN_F16) return static_cast<double>(static_cast<const _Float16 *>(p)[i]);
    uint32_t bits = uint32_t(static_cast<const uint16_t *>(p)[i]) << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

// Saturating, to nearest even: the mantissa has three bits, the least subnormal is 2^-9.
uint8_t e4m3(double value) {
    if (std::isnan(value)) return 0x7f;
    uint8_t sign = std::signbit(value) ? 0x80 : 0;
    double size = std::min(std::fabs(value), 448.0);
    int exponent = size > 0 ? std::max(std::ilogb(size), -6) : -6;
    int steps = int(std::nearbyint(std::ldexp(size, 3 - exponent)));
    if (steps == 16) return sign | uint8_t((exponent + 8) << 3);
    return sign | uint8_t(steps < 8 ? steps : ((exponent + 7) << 3) + (steps - 8));
}

void store(void *p, int64_t i, int dtype, double value) {
    if (dtype == GN_F32) static_cast<float *>(p)[i] = float(value);
    if (dtype == GN_F16) static_cast<_Float16 *>(p)[i] = _Float16(value);
    if (dtype == GN_I8) static_cast<int8_t *>(p)[i] = int8_t(std::nearbyint(std::clamp(value, -128.0, 127.0)));
    if (dtype == GN_E4M3) static_cast<uint8_t *>(p)[i] = e4m3(value);
    if (dtype != GN_BF16) return;
    float single = float(value);
    uint32_t bits;
    memcpy(&bits, &single, 4);
    uint32_t rounded = std::isnan(single) ? bits | 0x400000 : bits + 0x7fff + ((bits >> 16) & 1);
    static_cast<uint16_t *>(p)[i] = uint16_t(rounded >> 16);
}

double activate(double y, int activation) {
    switch (activation) {
        case GN_RELU: return y < 0 ? 0 : y;
        case GN_SILU: return y / (1 + std::exp(-y));
        case GN_HARDSWISH: return y <= -3 ? 0 : y * std::min((y + 3) / 6, 1.0);
        case GN_GELU: return y * 0.5 * std::erfc(-y * std::sqrt(0.5));
        case GN_GELU_TANH: return y / (1 + std::exp(-std::sqrt(8 / M_PI) * (y + 0.044715 * y * y * y)));
        case GN_MISH: return y * std::tanh(std::log1p(std::exp(y)));
        default: return y;
    }
}

}  // namespace

extern "C" const char *gn_variant_name(int variant) { return kNames[variant]; }

extern "C" int gn_query_device(int, gn_device *device, char *, size_t) {
    *device = {90, 4, 65536, 227 * 1024, 228 * 1024, 2048, 1 << 16, 8, 1};
    return GN_OK;
}

extern "C" int gn_check(const gn_problem *p, char *message, size_t size) {
    snprintf(message, size, "%s", p->groups < 1 || p->channels % p->groups ? "groups do not divide channels" : "");
    return p->groups < 1 || p->channels % p->groups ? GN_BAD_PROBLEM : GN_OK;
}

extern "C" int gn_select(const gn_problem *p, const gn_device *d, int variant, gn_choice *c, char *message, size_t size) {
    if (int bad = gn_check(p, message, size)) return bad;
    if (variant < 0) variant = GN_BLOCK;
    bool suited = variant == GN_WARP ? p->layout == GN_NCHW : variant != GN_CLUSTER || d->compute_capability >= 90;
    snprintf(message, size, suited ? "as asked" : "%s is not for this", kNames[variant]);
    *c = {variant, 2, 128, 1, int32_t(p->channels / std::max(p->groups, 1)), p->samples * p->groups, 1, 0, 2, 64};
    return suited ? GN_OK : GN_NOT_SUITED;
}

extern "C" void gn_room(const gn_problem *, const gn_device *, int64_t *workspace, int32_t *counters) {
    *workspace = 64;
    *counters = 2;
}

extern "C" int gn_enqueue(const gn_problem *p, const gn_choice *c, const gn_buffers *b, void *, char *message, size_t size) {
    static int calls = 0;
    ++calls;
    int variant = c->variant;
    if (seeded("hang", variant)) sleep(1000);
    if (seeded("crash", variant)) abort();
    if (seeded("refuse", variant)) {
        snprintf(message, size, "too many resources requested");
        return GN_LAUNCH_FAILED;
    }
    if (seeded("counters", variant)) b->counters[1] = 1;
    bool wrong_sum = seeded("sum", variant), random = seeded("random", variant);
    int64_t depth = p->channels / p->groups, count = depth * p->positions;
    auto at = [&](int64_t n, int64_t ch, int64_t pos, int64_t pitch) {
        return p->layout == GN_NCHW ? (n * p->channels + ch) * p->positions + pos : (n * p->positions + pos) * pitch + ch;
    };
    auto clear = [&](void *to, int64_t pitch, int dtype) {
        if (p->layout == GN_NHWC && pitch > p->channels && !seeded("padding", variant))
            for (int64_t row = 0; row < p->samples * p->positions; ++row)
                memset(static_cast<char *>(to) + (row * pitch + p->channels) * kSizes[dtype], 0,
                       (pitch - p->channels) * kSizes[dtype]);
    };
    clear(b->y, p->output_pitch, p->output_dtype);
    if (p->has_sum) clear(b->sum, p->pitch, p->dtype);
    std::vector<double> z(count);
    for (int64_t unit = 0; unit < p->samples * p->groups; ++unit) {
        int64_t n = unit / p->groups, first = unit % p->groups * depth;
        double mean = 0, var = 0;
        for (int64_t i = 0; i < count; ++i) {
            int64_t place = at(n, first + i / p->positions, i % p->positions, p->pitch);
            z[i] = load(b->x, place, p->dtype);
            if (p->has_residual) {
                uint32_t rounded;  // the sum as it is stored
                store(&rounded, 0, p->dtype, z[i] + load(b->residual, place, p->dtype));
                z[i] = load(&rounded, 0, p->dtype);
            }
            if (p->has_sum) store(b->sum, place, p->dtype, wrong_sum ? z[i] + 1 : z[i]);
            mean += z[i] / count;
        }
        for (double v : z) var += (v - mean) * (v - mean) / count;
        if (seeded("epsilon", variant)) var += 0.01;
        for (int64_t i = 0; i < count; ++i) {
            int64_t ch = first + i / p->positions, modulation = n * p->channels + ch;
            double w = p->has_affine & 1 ? load(b->scale, ch, p->parameter_dtype) : 1;
            double a = p->has_affine & 2 ? load(b->bias, ch, p->parameter_dtype) : 0;
            double s = p->has_modulation & 1 ? load(b->modulation_scale, modulation, p->parameter_dtype) : 0;
            double t = p->has_modulation & 2 ? load(b->modulation_shift, modulation, p->parameter_dtype) : 0;
            double y = activate((z[i] - mean) / std::sqrt(var + p->epsilon) * w * (1 + s) + a * (1 + s) + t, p->activation);
            if (random && i == 0) y *= 1 + 1e-3 * calls;
            if (p->output_dtype > GN_BF16) y /= p->output_scale;
            store(b->y, at(n, ch, i % p->positions, p->output_pitch), p->output_dtype, y);
        }
    }
    int64_t rows = p->layout == GN_NCHW ? p->channels * p->positions : p->positions * p->output_pitch;
    if (seeded("overrun", variant)) store(b->y, p->samples * rows, p->output_dtype, 1);
    if (seeded("input", variant)) store(const_cast<void *>(b->x), 0, p->dtype, 1);
    return GN_OK;
}
