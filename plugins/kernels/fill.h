// The arguments of the kernels from a problem, a choice and pointers: what gn_enqueue does, and what a kernel compiled for
// one problem does itself, where most of it is known to the compiler.
#pragma once
#include "dispatch.h"
#include "nchw_arguments.h"
#include "units.h"

namespace gn {

inline Arguments arguments_of(const gn_problem &p, const gn_choice &c, const gn_buffers &b) {
    const Units u = units_of(p, c.slab);
    const int size = element_bytes(p.dtype);
    const uint32_t lanes = static_cast<uint32_t>(kVectorBytes / size);
    const bool rows = p.layout == GN_NHWC;
    Arguments a{};
    a.x = b.x;
    a.residual = p.has_residual ? b.residual : nullptr;
    a.scale = p.has_affine & 1 ? b.scale : nullptr;
    a.bias = p.has_affine & 2 ? b.bias : nullptr;
    a.modulation_scale = p.has_modulation & 1 ? b.modulation_scale : nullptr;
    a.modulation_shift = p.has_modulation & 2 ? b.modulation_shift : nullptr;
    a.y = b.y;
    a.sum = p.has_sum ? b.sum : nullptr;
    a.partials = static_cast<float *>(b.workspace);
    a.counters = b.counters;

    a.positions = p.positions;
    a.pitch = p.pitch;
    a.output_pitch = p.output_dtype == p.dtype ? p.pitch : p.output_pitch;
    a.units = u.count;
    a.channels = static_cast<int32_t>(p.channels), a.groups = p.groups;
    a.group_channels = static_cast<int32_t>(p.channels / p.groups);
    a.slices = c.slices;
    a.teams = c.variant == GN_TEAM ? static_cast<int32_t>(c.blocks / c.slices) : 0;
    a.slab = static_cast<int32_t>(u.slab), a.slabs = static_cast<int32_t>(u.slabs);
    a.columns = static_cast<int32_t>(u.columns), a.column_slices = static_cast<int32_t>(u.column_slices);

    a.epsilon = p.epsilon;
    a.output_scale = p.output_scale;
    a.output_reciprocal = 1.0f / p.output_scale;
    a.output_dtype = p.output_dtype;
    a.activation = p.activation;
    a.parameter_f32 = p.parameter_dtype == GN_F32 && p.dtype != GN_F32;

    nchw_arguments(p, c, b, a);
    if (rows && (a.phase || a.pitch % lanes || a.output_pitch % lanes)) a.scattered = 1;
    a.ahead = rows && a.scattered ? 0 : c.ahead;
    a.ahead_at = c.shared - c.ahead * c.threads * kVectorBytes;

    a.rows = ceil_div(u.steps, c.slices / u.column_slices);
    a.pieces = static_cast<int32_t>(u.pieces);
    a.step = c.threads / u.columns * a.pitch;
    a.output_step = c.threads / u.columns * a.output_pitch;
    a.gap = static_cast<int32_t>(u.gap);
    a.table_at = kReservedBytes + static_cast<int32_t>(reduced_bytes(u, c.threads));
    a.origins_at = a.table_at + a.columns * static_cast<int32_t>(lanes) * 8;
    a.received_at = rows ? a.origins_at + a.columns * static_cast<int32_t>(lanes) * 4
                         : kMbarrierAt - kClusterBlocks * kPartialBytes;
    a.by_slices = divisor_of(static_cast<uint32_t>(c.slices));
    a.by_slabs = divisor_of(static_cast<uint32_t>(u.slabs));
    a.by_group_channels = divisor_of(static_cast<uint32_t>(a.group_channels));
    a.by_columns = divisor_of(static_cast<uint32_t>(u.columns));
    a.by_rows = divisor_of(static_cast<uint32_t>(c.threads / u.columns));
    a.by_group_pieces = divisor_of(static_cast<uint32_t>(u.group_pieces));
    a.by_column_slices = divisor_of(static_cast<uint32_t>(u.column_slices));
    return a;
}

constexpr Epilogue epilogue_of(const gn_problem &p) {
    if (p.output_dtype == p.dtype && (p.activation == GN_NONE || p.activation == GN_RELU)) return kPlain;
    return p.output_dtype == p.dtype && p.activation == GN_SILU ? kSilu : kAny;
}

}  // namespace gn
