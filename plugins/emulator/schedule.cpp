// Who runs next: in order, reversed, at random, or with a few blocks and warps far ahead of the others.
#include "schedule.h"

#include <numeric>

namespace gn::emulator {

Plan plan;

namespace {

constexpr uint32_t kNever = 0x7fffffff;
constexpr uint32_t kFuse = 48;  // memory accesses between interruptions, at most: a few of a thread's loop

uint32_t lowest(uint32_t set) { return static_cast<uint32_t>(__builtin_ctz(set)); }
uint32_t highest(uint32_t set) { return 31u - static_cast<uint32_t>(__builtin_clz(set)); }

uint32_t any(uint32_t set, Dice &dice) {
    for (uint32_t skip = dice.below(static_cast<uint32_t>(__builtin_popcount(set))); skip > 0; --skip) set &= set - 1;
    return lowest(set);
}

}  // namespace

void Plan::start() {
    dice.state = seed * 0x2545f4914f6cdd1dull + static_cast<uint64_t>(schedule);
    drawn_ = false;
}

uint32_t Plan::fuse() { return random() ? 1 + dice.below(kFuse) : kNever; }

void Plan::enter(Block &block) {
    if (schedule != GN_SKEWED) return;
    block.priority = dice.below(1u << 16);
    for (Warp &warp : block.warps) warp.priority = dice.below(1u << 16);
}

int64_t Plan::block(int64_t position, int64_t count) {
    if (schedule == GN_REVERSED) return count - 1 - position;
    if (!random()) return position;
    if (!drawn_) {
        offset_ = static_cast<int64_t>(dice.roll() % static_cast<uint64_t>(count));
        do stride_ = static_cast<int64_t>(1 + dice.roll() % static_cast<uint64_t>(count));
        while (std::gcd(stride_, count) != 1);
        drawn_ = true;
    }
    return static_cast<int64_t>((static_cast<__int128>(position) * stride_ + offset_) % count);
}

// At once, or as late as may be and the last one first, or at any time.
size_t Plan::arrives(size_t sent, bool idle) {
    constexpr uint32_t kDelay = 64;  // turns of threads until something arrives, on average
    if (schedule == GN_IN_ORDER) return 0;
    if (schedule == GN_REVERSED) return idle ? sent - 1 : sent;
    return idle || dice.below(kDelay) == 0 ? dice.below(static_cast<uint32_t>(sent)) : sent;
}

Thread *Plan::next_lane(Block &block, Warp &warp, uint32_t number) {
    const uint32_t lane = schedule == GN_IN_ORDER ? lowest(warp.ready)
                          : schedule == GN_REVERSED ? highest(warp.ready)
                                                    : any(warp.ready, dice);
    warp.ready &= ~(1u << lane);
    if (warp.ready == 0) block.ready &= ~(1u << number);
    return &block.threads[number * kLanes + lane];
}

Thread *Plan::next(Launch &launch) {
    Block *chosen = nullptr;
    uint32_t count = 0;
    const size_t words = launch.ready.size();
    for (size_t i = 0; i < words; ++i) {
        const size_t at = schedule == GN_REVERSED ? words - 1 - i : i;
        for (uint64_t set = launch.ready[at]; set != 0;) {
            const int bit = schedule == GN_REVERSED ? 63 - __builtin_clzll(set) : __builtin_ctzll(set);
            set &= ~(uint64_t{1} << bit);
            Block &block = launch.blocks[at * 64 + static_cast<size_t>(bit)];
            if (schedule == GN_RANDOM ? dice.below(++count) == 0
                                      : chosen == nullptr || (schedule == GN_SKEWED && block.priority > chosen->priority))
                chosen = &block;
            if (!random()) break;
        }
        if (chosen != nullptr && !random()) break;
    }
    if (chosen == nullptr) return nullptr;
    Block &block = *chosen;
    uint32_t number;
    if (schedule == GN_SKEWED) {
        number = lowest(block.ready);
        for (uint32_t set = block.ready & (block.ready - 1); set != 0; set &= set - 1)
            if (block.warps[lowest(set)].priority > block.warps[number].priority) number = lowest(set);
        constexpr uint32_t kChange = 512;  // threads run between two changes of who is ahead, on average
        if (dice.below(kChange) == 0) block.priority = dice.below(1u << 16);
        if (dice.below(kChange) == 0) block.warps[number].priority = dice.below(1u << 16);
    } else {
        number = schedule == GN_IN_ORDER ? lowest(block.ready)
                 : schedule == GN_REVERSED ? highest(block.ready)
                                           : any(block.ready, dice);
    }
    Thread *thread = next_lane(block, block.warps[number], number);
    if (block.ready == 0) launch.ready[block.slot / 64] &= ~(uint64_t{1} << block.slot % 64);
    return thread;
}

}  // namespace gn::emulator
