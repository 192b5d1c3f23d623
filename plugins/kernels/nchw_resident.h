// NCHW: a unit is held in the registers of a block, a cluster or a team, and x is read once.
#pragma once
#include "exchange.h"
#include "nchw_apply.h"

namespace gn {

// Shared memory: kSlots + 1 partials and the extra elements, from kReservedBytes on the table of channels, for a team
// twice, used in turn: while one block still reads the table of a unit another may fill that of the next, but none
// that of the one after.
template <class Exchange, int dtype, Epilogue epilogue, int vectors>
GN_DEVICE void nchw_resident(const Arguments &a) {
    constexpr bool kPivoted = Number<dtype>::kPivoted;
    Partial *slots = reinterpret_cast<Partial *>(shared());
    Extra *extras = reinterpret_cast<Extra *>(slots + kSlots + 1);
    Exchange exchange(a);
#pragma unroll 1
    while (exchange.more()) {
        Crew crew{thread(), threads()};
        forget(crew.index), forget(crew.size);  // else offsets of all vectors are kept from unit to unit, in registers
        const Slice s = slice_of<dtype, false>(a, exchange.unit(), exchange.rank());
        const int count = crew.share(s.vectors, vectors);
        Bits128 held[vectors];
        load_slice<dtype, Exchange::kLooped>(held, extras, s, a, crew, count, a.x, a.residual, a.sum);
        Affine *table = reinterpret_cast<Affine *>(shared() + kReservedBytes) + exchange.parity() * a.table;
        const bool large = fill<dtype>(table, a, s.sample, s.first, s.channels, crew.index, crew.size);

        Partial p = measure_slice<dtype>(held, extras, crew, count);
        const float pivot = p.pivot;
        const bool care = exchange.template unite<kPivoted>(p, large, slots);  // the table is filled, too
        const Normal normal{kPivoted ? (p.pivot - pivot) + p.mean : p.mean, rstd_of(p, a.epsilon)};
        apply<dtype, epilogue>(held, extras, table, normal, care, s, a, crew);
        exchange.next();
    }
    exchange.leave();
}

template <class Exchange, int dtype, Epilogue epilogue, int vectors>
GN_KERNEL(kThreads, 2)
nchw_resident_kernel(GN_PARAMETER Arguments a) {
    nchw_resident<Exchange, dtype, epilogue, vectors>(a);
}

}  // namespace gn
