// How the blocks that share a unit learn each other's statistics: alone or a cluster, and teams.
#pragma once
#include "arguments.h"
#include "statistics.h"
#include "tiles.h"

namespace gn {

constexpr int kSlots = 16;             // of Partial in shared memory: for 16 warps ...
constexpr int kAllSlots = 2 * kSlots;  // ... of a block, then for the blocks of a cluster or team

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
    static constexpr bool kWalks = false;
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

    // In: the thread's part, `equal` as in combine_block. Out: the unit's, the same in all threads. `slots`: kSlots + 1 in
    // shared memory.
    template <bool pivoted, class Elements, class Meanwhile>
    GN_DEVICE bool unite(Partial &p, bool equal, bool flag, Partial *slots, const Elements &, const Meanwhile &) {
        if (several()) meet(1);
        const bool any = combine_block<pivoted>(p, equal, flag, slots);
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
    template <class Elements>
    GN_DEVICE const Partial *unite_all(Partial *own, Partial *all, int count, const Elements &) {
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

// Persistent teams of `slices` blocks walk over the units. All blocks of the grid are resident (cooperative launch). A
// block publishes its part in one store of 16 bytes that ends with the number of the round, counted from 1, and waits
// until each of the team's slots shows that number: nothing but the slot itself has to be ordered, so there is no fence.
// The next round's slots are others (parity); those of the round after next are written by no block before all have
// published in the next one, so have read these. A block that has done with its units arrives at the team's counter, and
// the last one to arrive clears counter and slots: all is zero again, for the next launch.
struct Team {
    static constexpr bool kWalks = true;
    const Arguments &arguments;
    uint32_t round = 0;  // the rest is found again, as x leaves few registers from round to round

    GN_DEVICE explicit Team(const Arguments &a) : arguments(a) {}
    GN_DEVICE uint32_t team() const { return divide(block(), arguments.by_slices); }
    GN_DEVICE uint32_t unit() const { return team() + round * static_cast<uint32_t>(arguments.teams); }
    GN_DEVICE uint32_t rank() const { return block() - team() * static_cast<uint32_t>(arguments.slices); }
    GN_DEVICE bool more() const { return unit() < static_cast<uint32_t>(arguments.units); }
    GN_DEVICE bool last() const { return following() >= static_cast<uint32_t>(arguments.units); }
    GN_DEVICE uint32_t following() const { return unit() + static_cast<uint32_t>(arguments.teams); }
    GN_DEVICE void next() { ++round; }
    GN_DEVICE uint32_t parity() const { return round & 1; }

    // As Cluster::unite. Between two calls every thread passes a barrier after its last reading of shared memory.
    // `elements(rank)`: of the unit, in that block's part. `meanwhile`: what a block does before it waits for others.
    template <bool pivoted, class Elements, class Meanwhile>
    GN_DEVICE bool unite(Partial &p, bool equal, bool flag, Partial *slots, const Elements &elements,
                         const Meanwhile &meanwhile) {
        const bool any = combine_block<pivoted>(p, equal, flag, slots);
        if (thread() == 0) publish_part(0, 1, p);
        meanwhile();
        Partial *of_warps = slots + kSlots;
        p = collect(thread(), threads(), 0, 1, elements);
        if (thread() / 32 * 32 < size()) p = combine_warp<pivoted>(p);
        if (thread() % 32 == 0) of_warps[thread() / 32] = p;
        barrier();
        if (size() <= 32) {
            p = of_warps[0];
        } else {
            p = thread() % 32 < threads() / 32 ? of_warps[thread() % 32] : Partial{0, 0, 0, 0};
            p = broadcast<pivoted>(combine_warp<pivoted, 16>(p));
        }
        return any;
    }
    template <class Elements>
    GN_DEVICE const Partial *unite_all(Partial *own, Partial *united, int count, const Elements &elements) {
        Partial *scratch = reinterpret_cast<Partial *>(shared() + arguments.received_at);  // of each 32 blocks, for each group
        const int room = room_of(), parts = static_cast<int>((size() + 31) / 32), warps = static_cast<int>(threads() / 32);
        const uint32_t lane = thread() % 32;
        barrier();
        for (int i = static_cast<int>(thread()); i < count; i += static_cast<int>(threads())) publish_part(i, room, own[i]);
        Partial *to = parts == 1 ? united : scratch;
        for (int part = static_cast<int>(thread() / 32); part < count * parts; part += warps) {
            const int i = part / parts;
            const uint32_t from = static_cast<uint32_t>(part - i * parts) * 32 + lane;
            const Partial p = combine_warp<true>(collect(from, size(), i, room, elements));
            if (lane == 0) to[part] = p;
        }
        barrier();
        if (parts > 1) {
            for (int i = static_cast<int>(thread() / 32); i < count; i += warps) {
                const int each = (parts + 31) / 32;
                Partial p{0, 0, 0, 0};
                for (int k = static_cast<int>(lane) * each; k < static_cast<int>(lane + 1) * each && k < parts; ++k) {
                    p = combine(p, scratch[i * parts + k]);
                }
                p = combine_warp<true>(p);
                if (lane == 0) united[i] = p;
            }
            barrier();
        }
        return united;
    }
    // After the last unit, and before the block's threads part.
    GN_DEVICE void leave() const {
        if (thread() >= 32) return;
        const int room = room_of();
        float before = 0.0f;
        if (thread() == 0) before = static_cast<float>(arrive(counter(room)));
        if (shuffle(before, 0) != static_cast<float>(size() - 1)) return;
        warp_barrier();  // what lane 0 has seen the others may overwrite
        if (thread() == 0) store(counter(room), 0u);
        for (uint32_t i = thread(); i < 2 * size() * static_cast<uint32_t>(room); i += 32) {
            store(slots_of(room) + i, Bits128{{0, 0, 0, 0}});
        }
    }

   private:
    GN_DEVICE uint32_t size() const { return static_cast<uint32_t>(arguments.slices); }
    // Groups of a whole slab: the last one of a sample may have fewer, and teams at it would meet the slots of others.
    GN_DEVICE int room_of() const {
        return 1 + static_cast<int>(divide(static_cast<uint32_t>(arguments.slab) - 1, arguments.by_group_channels));
    }
    // A team's counter, a cache line, and then its slots: [parity][rank][group of the slab].
    GN_DEVICE uint32_t *counter(int room) const {
        return arguments.counters + team() * (kCounterStride + 2 * size() * static_cast<uint32_t>(room) * kSlotWords);
    }
    GN_DEVICE Bits128 *slots_of(int room) const { return reinterpret_cast<Bits128 *>(counter(room) + kCounterStride); }
    GN_DEVICE Bits128 *slot(uint32_t of, int i, int room) const {
        return slots_of(room) + (parity() * size() + of) * static_cast<uint32_t>(room) + static_cast<uint32_t>(i);
    }
    GN_DEVICE void publish_part(int i, int room, const Partial &p) const {
        publish(slot(rank(), i, room), Bits128{{as_bits(p.pivot), as_bits(p.mean), as_bits(p.m2), round + 1}});
    }
    // The parts of consecutive ranks, thread `mine` of `many` its share, so that the order of ranks is kept.
    template <class Elements>
    GN_DEVICE Partial collect(uint32_t mine, uint32_t many, int i, int room, const Elements &elements) const {
        const uint32_t share = (size() + many - 1) / many;
        Partial p{0, 0, 0, 0};
#pragma unroll 1
        for (uint32_t of = mine * share; of < (mine + 1) * share && of < size(); ++of) {
            Bits128 v = published(slot(of, i, room));
            while (v.word[3] != round + 1) {
                pause();
                v = published(slot(of, i, room));
            }
            p = combine(p, Partial{as_float(v.word[0]), as_float(v.word[1]), as_float(v.word[2]), elements(of)});
        }
        return p;
    }
};

}  // namespace gn
