// How the blocks that share a unit learn each other's statistics: alone or a cluster, and teams.
#pragma once
#include "arguments.h"
#include "statistics.h"
#include "tiles.h"

namespace gn {

constexpr int kSlots = 16;  // of Partial in shared memory: for 16 warps

GN_DEVICE Bits128 bits_of(const Partial &p) {
    return Bits128{{as_bits(p.pivot), as_bits(p.mean), as_bits(p.m2), as_bits(p.n)}};
}

// To and from global memory, for other blocks.
GN_DEVICE void store_partial(Partial *to, const Partial &p) { store(reinterpret_cast<Bits128 *>(to), bits_of(p)); }
template <bool pivoted>
GN_DEVICE Partial load_partial(const Partial *from) {
    return Partial{pivoted ? load_shared_by_blocks(&from->pivot) : 0.0f, load_shared_by_blocks(&from->mean),
                   load_shared_by_blocks(&from->m2), load_shared_by_blocks(&from->n)};
}

// A block for each unit, or a cluster of them over distributed shared memory; how many is known at run time. A block
// sends its parts into the slots that each block of the cluster keeps for it, its own too, and waits until those of all
// have come. There is no barrier at the end: whatever is sent to a block is among what it waits for, so none ends before
// all that is sent to it has come; and none need stay for what it has sent itself, which left from registers.
struct Cluster {
    static constexpr bool kLooped = false;
    const Arguments &arguments;
    bool done = false;

    // As early as possible: the cluster has met long before x arrives.
    GN_DEVICE explicit Cluster(const Arguments &a) : arguments(a) {
        if (!several()) return;
        if (thread() == 0) open(mbarrier());
        cluster_arrive();
    }
    GN_DEVICE bool several() const { return kClusters && arguments.slices > 1; }
    GN_DEVICE uint32_t unit() const { return several() ? divide(block(), arguments.by_slices) : block(); }
    GN_DEVICE uint32_t rank() const { return several() ? cluster_rank() : 0; }
    GN_DEVICE bool more() const { return !done; }
    GN_DEVICE void next() { done = true; }
    GN_DEVICE uint32_t parity() const { return 0; }

    // In: the thread's part. Out: the unit's, the same in all threads. `slots`: kSlots + 1 in shared memory.
    template <bool pivoted>
    GN_DEVICE bool unite(Partial &p, bool flag, Partial *slots) {
        if (several()) meet(1);
        const bool any = combine_block<pivoted>(p, flag, slots);
        if (several()) {
            if (thread() < static_cast<uint32_t>(arguments.slices)) {
                send(bits_of(p), reinterpret_cast<Bits128 *>(slot(cluster_rank(), 0, 1)), mbarrier(), thread());
            }
            receive(mbarrier());
            p = united<pivoted>(0, 1);
        }
        return any;
    }
    // In: `own[0 .. count)` in shared memory, written by any threads. Out: where the unit's are, seen by all threads;
    // `united` is room for as many.
    GN_DEVICE const Partial *unite_all(Partial *own, Partial *all, int count) {
        if (several()) meet(count);
        barrier();
        if (!several()) return own;
        each_of(count, [&](int i) {
            if (thread() % 32 >= static_cast<uint32_t>(arguments.slices)) return;
            send(bits_of(own[i]), reinterpret_cast<Bits128 *>(slot(cluster_rank(), i, count)), mbarrier(), thread() % 32);
        });
        receive(mbarrier());
        each_of(count, [&](int i) {
            const Partial p = united<true>(i, count);
            if (thread() % 32 == 0) all[i] = p;
        });
        barrier();
        return all;
    }
    GN_DEVICE void leave() {}

   private:
    GN_DEVICE static Mbarrier *mbarrier() { return reinterpret_cast<Mbarrier *>(shared() + kMbarrierAt); }
    GN_DEVICE Partial *slot(uint32_t of, int i, int count) const {
        return reinterpret_cast<Partial *>(shared() + arguments.received_at) + static_cast<int>(of) * count + i;
    }
    GN_DEVICE void meet(int count) const {
        if (thread() == 0) expect(mbarrier(), static_cast<uint32_t>(arguments.slices * count * kPartialBytes));
        cluster_wait();
    }
    // use(i) by the warps of the block in turn.
    template <class Use>
    GN_DEVICE void each_of(int count, Use use) const {
#pragma unroll 1
        for (int i = static_cast<int>(thread() / 32); i < count; i += static_cast<int>(threads() / 32)) use(i);
    }
    // Part i of all blocks as a tree in the order of ranks, in all lanes of a warp.
    template <bool pivoted>
    GN_DEVICE Partial united(int i, int count) const {
        const uint32_t size = static_cast<uint32_t>(arguments.slices), lane = thread() % 32;
        Partial p{0, 0, 0, 0};
        if (size == 2) return combine(*slot(0, i, count), *slot(1, i, count));
        if (lane < size) p = *slot(lane, i, count);
        return broadcast<pivoted>(combine_warp<pivoted, 8>(p));
    }
};

// Persistent teams of `slices` blocks walk over the units. All blocks of the grid are resident (cooperative launch).
// A team's counter counts arrivals, and a block waits until all have arrived as often as itself. Slots of a unit are
// written before the arrival and read after the wait; the next unit's are others (parity), and those of the unit after
// next are written by no block before all have arrived at the next, so have read these. Leaving is counted too: the
// last to leave finds everybody past the last wait and resets the counter.
struct Team {
    static constexpr bool kLooped = true;
    const Arguments &arguments;
    uint32_t team, round = 0;  // the rest is found again, as x leaves few registers from round to round

    GN_DEVICE explicit Team(const Arguments &a) : arguments(a), team(block() / static_cast<uint32_t>(a.slices)) {}
    GN_DEVICE uint32_t unit() const { return team + round * static_cast<uint32_t>(arguments.teams); }
    GN_DEVICE uint32_t rank() const { return block() - team * static_cast<uint32_t>(arguments.slices); }
    GN_DEVICE bool more() const { return unit() < static_cast<uint32_t>(arguments.units); }
    GN_DEVICE void next() { ++round; }
    GN_DEVICE uint32_t parity() const { return round & 1; }

    // As Cluster::unite. Between two calls every thread passes a barrier after its last reading of shared memory.
    template <bool pivoted>
    GN_DEVICE bool unite(Partial &p, bool flag, Partial *slots) {
        const bool any = combine_block<pivoted>(p, flag, slots);
        if (thread() < 32) {
            const uint32_t lane = thread();
            if (lane == 0) {
                store_partial(slot(rank(), 0, 1), p);
                meet();
            }
            warp_barrier();
            p = combine_warp<pivoted>(collect<pivoted>(0, 1));
            if (lane == 0) slots[kSlots] = p;
        }
        barrier();
        p = slots[kSlots];
        return any;
    }
    GN_DEVICE const Partial *unite_all(Partial *own, Partial *united, int count) {
        // Of a whole slab: the last one of a sample may have fewer, and teams at it would meet the slots of others.
        const int room = 1 + static_cast<int>(divide(static_cast<uint32_t>(arguments.slab) - 1, arguments.by_group_channels));
        barrier();
        for (int i = static_cast<int>(thread()); i < count; i += static_cast<int>(threads())) {
            store_partial(slot(rank(), i, room), own[i]);
        }
        barrier();
        if (thread() == 0) meet();
        barrier();
        for (int i = static_cast<int>(thread() / 32); i < count; i += static_cast<int>(threads() / 32)) {
            const Partial p = combine_warp<true>(collect<true>(i, room));
            if (thread() % 32 == 0) united[i] = p;
        }
        barrier();
        return united;
    }
    GN_DEVICE void leave() {
        if (thread() != 0 || round == 0) return;  // a team without a unit has never arrived
        uint32_t *counter = arguments.counters + team * kCounterStride;
        const uint32_t size = static_cast<uint32_t>(arguments.slices);
        if (arrive(counter) == (round + 1) * size - 1) store(counter, 0u);
    }

   private:
    GN_DEVICE Partial *slot(uint32_t of, int i, int room) const {
        const uint32_t size = static_cast<uint32_t>(arguments.slices);
        return reinterpret_cast<Partial *>(arguments.partials) + ((team * 2 + parity()) * size + of) * room + i;
    }
    GN_DEVICE void meet() const {
        uint32_t *counter = arguments.counters + team * kCounterStride;
        const uint32_t all = (round + 1) * static_cast<uint32_t>(arguments.slices);
        arrive(counter);
        while (arrived(counter) < all) pause();
    }
    // Lane l's share of the team: consecutive ranks, so that the order of ranks is kept.
    template <bool pivoted>
    GN_DEVICE Partial collect(int i, int room) const {
        const int size = arguments.slices, share = (size + 31) / 32, lane = static_cast<int>(thread() % 32);
        Partial p{0, 0, 0, 0};
        for (int k = 0; k < share; ++k) {
            const int of = lane * share + k;
            if (of >= size) break;
            p = combine(p, load_partial<pivoted>(slot(static_cast<uint32_t>(of), i, room)));
        }
        return p;
    }
};

}  // namespace gn
