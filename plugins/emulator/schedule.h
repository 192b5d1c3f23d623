// Who runs next: orders of blocks, warps and lanes that a GPU may choose.
#pragma once
#include <stdint.h>

#include "emulator.h"
#include "machine.h"

namespace gn::emulator {

// A generator that gives the same numbers everywhere (splitmix64).
struct Dice {
    uint64_t state = 0;
    uint64_t roll() {
        uint64_t z = state += 0x9e3779b97f4a7c15ull;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
        z = (z ^ z >> 27) * 0x94d049bb133111ebull;
        return z ^ z >> 31;
    }
    uint32_t below(uint32_t limit) { return static_cast<uint32_t>((roll() >> 32) * limit >> 32); }
};

struct Plan {
    int schedule = GN_IN_ORDER;
    uint64_t seed = 0;
    Dice dice;
    bool random() const { return schedule == GN_RANDOM || schedule == GN_SKEWED; }
    void start();
    uint32_t fuse();                              // memory accesses until the next interruption
    void enter(Block &block);                     // draws its priorities
    int64_t block(int64_t position, int64_t count);  // the blocks of the grid, or its clusters, in their order
    Thread *next(Launch &launch);                 // takes a ready one off the list; null where there is none
    size_t arrives(size_t sent, bool idle);  // which of what was sent arrives now; `sent` for none
    Thread *next_lane(Block &block, Warp &warp, uint32_t number);

  private:
    int64_t stride_ = 1, offset_ = 0;
    bool drawn_ = false;
};

extern Plan plan;

}  // namespace gn::emulator
