// NHWC: a unit is held in the registers of a block, a cluster or a team, and x is read once.
#pragma once
#include "exchange.h"
#include "nhwc_apply.h"

namespace gn {

template <class Exchange, int dtype, Epilogue epilogue, int vectors>
GN_DEVICE void nhwc_resident(const Arguments &a) {
    const Bench b = bench_of<dtype>(a);
    Exchange exchange(a);
#pragma unroll 1
    while (exchange.more()) {
        const Patch p = patch_of<dtype>(a, exchange.unit, exchange.rank);
        const Place t = place_of<dtype>(a, p);
        const int count = t.share(static_cast<uint32_t>(p.rows), a);
        Bits128 held[vectors];
        load_rows<dtype>(held, a, p, t, 0, count, a.x, a.residual, a.sum);
        const bool large = fill_bench<dtype>(a, p, b);
        measure_rows<dtype>(held, count, p.rows, a, p, t, b);
        const Partial *united = exchange.unite_all(b.own, b.united, static_cast<int>(p.groups));
        const bool care = prepare<dtype>(united, large, a, p, b);
        apply_rows<dtype, epilogue>(held, 0, care, a, p, t, b, count);
        pad_output<dtype>(a, p);
        pad_sum<dtype>(a, p);
        exchange.next();
        if (exchange.more()) barrier();  // all have read the table
    }
    exchange.leave();
}

template <class Exchange, int dtype, Epilogue epilogue, int vectors>
GN_KERNEL(kThreads, 2)
nhwc_resident_kernel(GN_PARAMETER Arguments a) {
    nhwc_resident<Exchange, dtype, epilogue, vectors>(a);
}

}  // namespace gn
