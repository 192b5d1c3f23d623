// NCHW: a warp for each unit, several in a block, which share nothing.
#pragma once
#include "nchw_apply.h"
#include "statistics.h"

namespace gn {

// Shared memory: for each warp its extra elements, and from kReservedBytes on a table of channels.
template <int dtype, Epilogue epilogue, int vectors>
GN_DEVICE void nchw_warp(const Arguments &a) {
    constexpr bool kPivoted = Number<dtype>::kPivoted;
    const uint32_t warp = thread() / 32;
    const Crew crew{thread() % 32, 32};
    const int64_t unit = static_cast<int64_t>(block()) * (threads() / 32) + warp;
    if (unit >= a.units) return;
    const Slice s = slice_of<dtype, false>(a, unit, 0);
    const int count = crew.share(s.vectors, vectors);
    Bits128 held[vectors];
    Extra *extras = reinterpret_cast<Extra *>(shared()) + warp * Extra::kThreads;
    load_slice<dtype, kStraight>(held, extras, s, a, crew, count, a.x, a.residual, a.sum);
    Affine *table = reinterpret_cast<Affine *>(shared() + kReservedBytes) + warp * a.table;
    const bool large = warp_any(fill<dtype>(table, a, s.sample, s.first, s.channels, crew.index, 32));

    Partial p = measure_slice<dtype>(held, extras, crew, count);
    const float pivot = p.pivot;
    p = broadcast<kPivoted>(combine_warp<kPivoted>(p));
    warp_barrier();  // the table is filled
    const Normal normal{kPivoted ? (p.pivot - pivot) + p.mean : p.mean, rstd_of(p, a.epsilon)};
    apply<dtype, epilogue>(held, extras, table, normal, large, s, a, crew);
}

template <int dtype, Epilogue epilogue, int vectors>
GN_KERNEL(kWarps * 32, 3)
nchw_warp_kernel(GN_PARAMETER Arguments a) {
    nchw_warp<dtype, epilogue, vectors>(a);
}

}  // namespace gn
