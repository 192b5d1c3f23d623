// NHWC: a unit is held in the registers of a block, a cluster or a team, and x is read once.
#pragma once
#include "exchange.h"
#include "nhwc_apply.h"

namespace gn {

// Loads what this thread holds of the next unit: its number of rows. They have not arrived yet when all know the patch.
template <int dtype, int vectors, class Exchange>
GN_DEVICE int begin_patch(Bits128 (&held)[vectors], const Arguments &a, const Exchange &exchange) {
    const Patch p = patch_of<dtype>(a, exchange.unit(), exchange.rank());
    const Place t = place_of<dtype>(a, p);
    const int count = t.share(static_cast<uint32_t>(p.rows), a);
    load_rows<dtype, Exchange::kWalks ? kAhead : kStraight>(held, a, p, t, 0, count, a.x);
    if (thread() == 0) bench::patch() = p;
    if constexpr (Exchange::kWalks) {
        if (!exchange.last()) copy_ahead<dtype>(patch_of<dtype>(a, exchange.following(), exchange.rank()), a);
    }
    barrier();
    return count;
}

template <int dtype, Epilogue epilogue, int vectors, class Exchange, class Count>
GN_DEVICE void finish_patch(Bits128 (&held)[vectors], const Arguments &a, Exchange &exchange, const Count &count) {
    fill_table<dtype>(a);
    if (a.residual) add_rows<dtype>(held, a, bench::patch(), 0, count(), a.residual, a.sum);
    measure_rows<dtype>(held, count, static_cast<uint32_t>(bench::patch().rows), a);
    const auto elements = [&](uint32_t rank) {
        const Patch p = patch_of<dtype>(a, exchange.unit(), rank);
        return static_cast<float>(p.rows) * static_cast<float>(p.channels_of_group(a));
    };
    const Partial *united = exchange.unite_all(bench::own(), bench::united(), static_cast<int>(bench::patch().groups), elements);
    const bool care = prepare<dtype, false>(united, a);
    apply_rows<dtype, epilogue, false>(held, 0, care, a, count);
    pad_output<dtype>(a, bench::patch());
    pad_sum<dtype>(a, bench::patch());
}

template <class Exchange, int dtype, Epilogue epilogue, int vectors>
GN_DEVICE void nhwc_resident(const Arguments &a) {
    Exchange exchange(a);
    if constexpr (Exchange::kWalks) {
        if (exchange.more()) copy_ahead<dtype>(patch_of<dtype>(a, exchange.unit(), exchange.rank()), a);
    }
#pragma unroll 1
    while (exchange.more()) {
        Bits128 held[vectors];
        const int count = begin_patch<dtype>(held, a, exchange);
        if constexpr (vectors > 5) {
            finish_patch<dtype, epilogue>(held, a, exchange, Found<dtype>{a});
        } else {
            finish_patch<dtype, epilogue>(held, a, exchange, Known{count});
        }
        exchange.next();
        if (exchange.more()) barrier();  // all have read the table
    }
    if constexpr (Exchange::kWalks) exchange.leave();
}

template <class Exchange, int dtype, Epilogue epilogue, int vectors>
GN_KERNEL(kThreads, 2)
nhwc_resident_kernel(GN_PARAMETER Arguments a) {
    nhwc_resident<Exchange, dtype, epilogue, vectors>(a);
}

}  // namespace gn
