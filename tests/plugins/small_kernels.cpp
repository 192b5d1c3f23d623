// Four small kernels that use everything of platform.h, each with the mistakes that the emulator has to see.
#include <stdio.h>
#include <string.h>

#include "../../plugins/emulator/launch.h"
#include "../../plugins/kernels/platform.h"

namespace {

// What may be wrong; `kRight` is not.
enum Bug {
    kRight,
    kNoBarrier,
    kNoSecondBarrier,
    kDivergentBarrier,
    kReturnsEarly,
    kDivergentShuffle,
    kShuffleMasks,
    kWriteBeyond,
    kReadBeyond,
    kOutOfBounds,
    kMisaligned,
    kWriteInput,
    kWriteTwice,
    kPlainPointer,
    kWildPointer,
    kNoClusterWait,
    kNoClusterArrive,
    kEndsTooEarly,
    kForeignRank,
    kNotOpened,
    kTooFewBytes,
    kTooManyBytes,
    kSlotOfAnother,
    kNoReceive,
    kNobodyArrives,
    kNoArrive,
    kNoWait,
    kNoBarrierAfterWait,
    kNoBarrierBeforeArrive,
    kSingleBuffer,
    kCachedLoad,
    kLongWay,
    kDirtyCounters,
    kNoWaitForPrevious,
    kWritesTooEarly,
};

struct Given {
    const float *x;
    float *y;
    float *workspace;
    uint32_t *counters;
    int64_t elements;  // of a unit
    int64_t units;
    int32_t slices;
    int32_t bug;
};

float block_sum(float value, float *slots, const Given &g) {
    using namespace gn;
    const int lane = thread() % 32, warp = thread() / 32;
    for (int mask = 16; mask > 0; mask /= 2) {
        if (g.bug == kDivergentShuffle && lane == 7 && mask == 4) continue;
        value += shuffle_xor(value, g.bug == kShuffleMasks && mask == 4 && lane == 3 ? 8 : mask);
    }
    if (lane == 0) slots[warp] = value;
    if (g.bug == kReturnsEarly && thread() == 40) return value;
    if (g.bug == kDivergentBarrier && warp == 1)
        barrier();
    else if (g.bug != kNoBarrier)
        barrier();
    float sum = 0;
    for (uint32_t i = 0; i < threads() / 32 + (g.bug == kReadBeyond); ++i) sum += slots[i];
    if (g.bug != kNoSecondBarrier) barrier();
    return sum;
}

// y = x - mean, one block for each unit.
GN_KERNEL(512, 2) centre(GN_PARAMETER Given g) {
    using namespace gn;
    float *slots = reinterpret_cast<float *>(shared());
    const float *x = g.x + block() * g.elements;
    float *y = g.y + block() * g.elements;
    float sum = 0;
    for (int64_t i = thread(); i < g.elements; i += threads()) sum += load(x + i);
    if (g.bug == kReturnsEarly && thread() == 40) return;
    sum = block_sum(sum, slots, g);
    float again = block_sum(sum, slots, g);  // the slots are used twice
    const float mean = (sum + again * 0) / static_cast<float>(g.elements);
    if (g.bug == kWriteBeyond) slots[threads() / 32 + 4] = 1;
    if (g.bug == kOutOfBounds) load(x + g.elements * g.units);
    if (g.bug == kMisaligned) load(reinterpret_cast<const Bits128 *>(x + 1));
    if (g.bug == kWriteInput) store(const_cast<float *>(x), mean);
    if (g.bug == kPlainPointer) sum += x[thread()];
    if (g.bug == kWildPointer) sum += *reinterpret_cast<const volatile float *>(g.elements);
    for (int64_t i = thread(); i < g.elements; i += threads()) store(y + i, load(x + i) - mean);
    if (g.bug == kWriteTwice && thread() == 3) store(y + 3, sum);
}

// The same, a cluster for each unit. Shared memory: the slots of warps, those of blocks, and an Mbarrier.
GN_KERNEL(512, 2) cluster_centre(GN_PARAMETER Given g) {
    using namespace gn;
    float *slots = reinterpret_cast<float *>(shared());
    Bits128 *told = reinterpret_cast<Bits128 *>(slots + 32);
    Mbarrier *mbarrier = reinterpret_cast<Mbarrier *>(told + 8);
    const uint32_t size = cluster_blocks(), rank = cluster_rank();
    const int64_t unit = block() / size, length = g.elements / size;
    const int64_t offset = unit * g.elements + rank * length;
    if (thread() == 0 && g.bug != kNotOpened) open(mbarrier);
    if (g.bug != kNoClusterArrive) cluster_arrive();
    float sum = 0;
    for (int64_t i = thread(); i < length; i += threads()) sum += load(g.x + offset + i);
    sum = block_sum(sum, slots, g);
    if (g.bug != kNoClusterWait) cluster_wait();
    const uint32_t bytes = 16 * (size + (g.bug == kTooManyBytes) - (g.bug == kTooFewBytes));
    if (thread() == 0) expect(mbarrier, bytes);
    if (thread() < size) {
        const uint32_t slot = g.bug == kSlotOfAnother ? rank / 2 : rank, foreign = g.bug == kForeignRank;
        send(Bits128{{as_bits(sum), 0, 0, 0}}, told + slot, mbarrier, thread() + foreign);
    }
    if (g.bug == kNoClusterWait) cluster_wait();
    if (g.bug == kEndsTooEarly && rank == 1) return;
    if (g.bug != kNoReceive) receive(mbarrier);
    float total = 0;
    for (uint32_t i = 0; i < size; ++i) total += as_float(told[i].word[0]);
    const float mean = total / static_cast<float>(g.elements);
    for (int64_t i = thread(); i < length; i += threads()) store(g.y + offset + i, load(g.x + offset + i) - mean);
    if (g.bug == kNoReceive) receive(mbarrier);
}

// The same, persistent teams of blocks that walk over the units.
GN_KERNEL(512, 2) team_centre(GN_PARAMETER Given g) {
    using namespace gn;
    float *slots = reinterpret_cast<float *>(shared());
    const int32_t team = static_cast<int32_t>(block()) / g.slices, rank = static_cast<int32_t>(block()) % g.slices;
    const int32_t teams = static_cast<int32_t>(blocks()) / g.slices;
    const int64_t length = g.elements / g.slices;
    uint32_t *counter = g.counters + team * 32;
    uint32_t round = 0;
    for (int64_t unit = team; unit < g.units; unit += teams, ++round) {
        const int64_t offset = unit * g.elements + rank * length;
        float *exchange = g.workspace + (team * 2 + (g.bug == kSingleBuffer ? 0 : round & 1)) * g.slices;
        float sum = 0;
        for (int64_t i = thread(); i < length; i += threads()) sum += load(g.x + offset + i);
        sum = block_sum(sum, slots, g);
        if (g.bug == kNoBarrierBeforeArrive ? thread() == 33 : thread() == 0) store(exchange + rank, sum);
        if (thread() == 0) {
            if (g.bug != kNoArrive || rank > 0) arrive(counter);
            const uint32_t all = (round + 1) * g.slices + (g.bug == kNobodyArrives);
            if (g.bug == kLongWay) while (arrived(counter) < all + 1) continue;
            if (g.bug != kNoWait) while (arrived(counter) < all) pause();
        }
        if (g.bug != kNoBarrierAfterWait) barrier();
        float total = 0;
        for (int32_t i = 0; i < g.slices; ++i)
            total += g.bug == kCachedLoad ? load(exchange + i) : load_shared_by_blocks(exchange + i);
        const float mean = total / static_cast<float>(g.elements);
        for (int64_t i = thread(); i < length; i += threads()) store(g.y + offset + i, load(g.x + offset + i) - mean);
        if (g.bug == kNoBarrierAfterWait) barrier();
    }
    if (thread() == 0 && g.bug != kDirtyCounters && arrive(counter) + 1 == (round + 1) * g.slices) store(counter, 0u);
}

// The same in two kernels, the second of which may start early.
GN_KERNEL(512, 2) sums(GN_PARAMETER Given g) {
    using namespace gn;
    let_next_start();
    float *slots = reinterpret_cast<float *>(shared());
    float sum = 0;
    for (int64_t i = thread(); i < g.elements; i += threads()) sum += load(g.x + block() * g.elements + i);
    sum = block_sum(sum, slots, g);
    if (thread() == 0) store(g.workspace + block(), sum);
}
GN_KERNEL(512, 2) differences(GN_PARAMETER Given g) {
    using namespace gn;
    if (g.bug == kWritesTooEarly) store(g.y + block() * g.elements + thread(), 0.0f);
    if (g.bug != kNoWaitForPrevious) wait_for_previous();
    const float mean = load(g.workspace + block()) / static_cast<float>(g.elements);
    for (int64_t i = thread(); i < g.elements; i += threads())
        store(g.y + block() * g.elements + i, load(g.x + block() * g.elements + i) - mean);
}

}  // namespace

extern "C" const char *small_kernel(int which, int bug, const float *x, float *y, float *workspace, uint32_t *counters,
                                    int64_t elements, int64_t units, int32_t slices, int32_t teams, uint32_t threads) {
    using gn::emulator::launch;
    using gn::emulator::Shape;
    const Given given{x, y, workspace, counters, elements, units, slices, bug};
    const uint32_t bytes = threads / 32 * 4;  // a slot for each warp
    const char *error = nullptr;
    if (which == 0) error = launch(Shape{"centre", units, threads, bytes, 1, false}, centre, given);
    if (which == 1)
        error = launch(Shape{"cluster_centre", units * slices, threads, 272, static_cast<uint32_t>(slices), false},
                       cluster_centre, given);
    if (which == 2) error = launch(Shape{"team_centre", teams * slices, threads, bytes, 1, true}, team_centre, given);
    if (which == 3) {
        error = launch(Shape{"sums", units, threads, bytes, 1, false}, sums, given);
        Shape second{"differences", units, threads, bytes, 1, false};
        second.overlaps = true;
        if (error == nullptr) error = launch(second, differences, given);
    }
    return error ? error : "";
}

extern "C" float small_exp2(float x) { return gn::fast_exp2(x); }
extern "C" float small_reciprocal(float x) { return gn::fast_reciprocal(x); }
extern "C" float small_rsqrt(float x) { return gn::fast_rsqrt(x); }
extern "C" float small_erfc(float x) { return gn::erfc(x); }
extern "C" uint32_t small_to_f16x2(float low, float high) { return gn::to_f16x2(low, high); }
extern "C" uint32_t small_to_bf16x2(float low, float high) { return gn::to_bf16x2(low, high); }
extern "C" void small_from_f16x2(uint32_t bits, float *low, float *high) { gn::from_f16x2(bits, *low, *high); }
