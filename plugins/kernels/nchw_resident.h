// NCHW: a unit is held in the registers of a block, a cluster or a team, and x is read once.
#pragma once
#include "exchange.h"
#include "nchw_apply.h"

namespace gn {

static_assert(kAllSlots * sizeof(Partial) + Extra::kThreads * sizeof(Extra) <= kMbarrierAt - kClusterBlocks * kPartialBytes);

// Shared memory: kAllSlots partials and the extra elements; from kReservedBytes on the table of channels, for a team twice,
// used in turn: that of the next unit is filled while others are waited for; and what is ahead of the next unit.
template <class Exchange, int dtype, Epilogue epilogue, int vectors>
GN_DEVICE void nchw_resident(const Arguments &a) {
    constexpr bool kPivoted = Number<dtype>::kPivoted;
    constexpr bool kLate = !Exchange::kWalks && vectors <= 5;  // channels are found while x comes, if registers allow
    Partial *slots = reinterpret_cast<Partial *>(shared());
    Extra *extras = reinterpret_cast<Extra *>(slots + kAllSlots);
    const auto table = [&](uint32_t parity) { return reinterpret_cast<Affine *>(shared() + kReservedBytes) + parity * a.table; };
    const auto slice = [&](uint32_t unit, uint32_t rank) {
        if (Exchange::kWalks) forget(unit);  // else what follows from it is kept in registers, beside x
        return slice_of<dtype, false>(a, unit, rank);
    };
    const auto fill_table = [&](const Slice &s, uint32_t parity) {
        return fill<dtype>(table(parity), a, s.sample, s.first, s.channels, thread(), threads());
    };
    Exchange exchange(a);
    if constexpr (Exchange::kWalks) {
        if (exchange.more()) {
            const Slice first = slice(exchange.unit(), exchange.rank());
            copy_ahead<vectors>(ahead_in<dtype>(first, a, vectors), a);
            fill_table(first, 0);
        }
    }
#pragma unroll 1
    while (exchange.more()) {
        Crew crew{thread(), threads()};
        forget(crew.index), forget(crew.size);  // else offsets of all vectors are kept from unit to unit, in registers
        Ahead next{nullptr, 0};
        if constexpr (Exchange::kWalks) {
            if (!exchange.last()) next = ahead_in<dtype>(slice(exchange.following(), exchange.rank()), a, vectors);
        }
        Slice s = kLate ? vectors_of<dtype, false>(a, exchange.unit(), exchange.rank()) : slice(exchange.unit(), exchange.rank());
        const int count = crew.share(s.vectors, vectors);
        Bits128 held[vectors];
        load_slice<dtype, Exchange::kWalks ? kAhead : kStraight>(held, extras, s, a, crew, count, a.x, a.residual, a.sum);
        if constexpr (Exchange::kWalks) copy_ahead<vectors>(next, a);
        if constexpr (kLate) find_channels<dtype, false>(s, a, exchange.unit());
        const bool large = Exchange::kWalks ? has_large(table(exchange.parity()), s.channels, crew.index, crew.size) : fill_table(s, 0);

        Partial p = measure_slice<dtype>(held, extras, crew, count);
        const float pivot = p.pivot;
        const bool equal = !kPivoted && !warp_any(p.n != vectors * Number<dtype>::kVector);  // most often, and known early
        const auto elements = [&](uint32_t rank) { return static_cast<float>(slice(exchange.unit(), rank).elements(Number<dtype>::kVector)); };
        const bool care = exchange.template unite<kPivoted>(p, equal, large, slots, elements, [&] {
            if constexpr (Exchange::kWalks) {
                if (!exchange.last()) fill_table(slice(exchange.following(), exchange.rank()), exchange.parity() ^ 1);
            }
        });  // the table is filled, too
        const Normal normal{kPivoted ? (p.pivot - pivot) + p.mean : p.mean, rstd_of(p, a.epsilon)};
        apply<dtype, epilogue>(held, extras, table(exchange.parity()), normal, care, s, a, crew);
        exchange.next();
    }
    if constexpr (Exchange::kWalks) exchange.leave();
}

template <class Exchange, int dtype, Epilogue epilogue, int vectors>
GN_KERNEL(kThreads, 2)
nchw_resident_kernel(GN_PARAMETER Arguments a) {
    nchw_resident<Exchange, dtype, epilogue, vectors>(a);
}

}  // namespace gn
