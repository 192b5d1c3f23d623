// What blocks of a cluster send each other: it arrives later, and is counted by Mbarriers.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include <string>
#include <vector>

namespace gn::emulator {

struct Thread;
struct Block;
struct Launch;

// Of a block, at `offset` of its shared memory. One arrival, and then as many bytes as that has announced.
struct MbarrierState {
    size_t offset = 0;
    uint32_t arrivals = 0;       // at cluster barriers, of the thread that opened it, before it did
    bool expects = false;        // the arrival has come
    int64_t bytes = 0;           // announced and not arrived; negative before the announcement
    bool complete = false;
    uint32_t seen = 0xffffffff;  // the phase of its block in which a thread saw that first
    std::vector<Thread *> waiting;
};

// Sixteen bytes under way.
struct Letter {
    Block *to = nullptr;
    int64_t index = 0;  // of that block in the grid: afterwards another one may have its place
    size_t slot = 0, mbarrier = 0;
    uint32_t words[4] = {0, 0, 0, 0};
    uint32_t sender = 0;  // its rank
    std::string from;     // for messages
};

// One of those sent arrives. Empty, or what is wrong about that.
std::string deliver(Launch &launch, size_t number);
// What a block that ends has waiting still, or an empty text.
std::string left_behind(const Launch &launch, const Block &block);

}  // namespace gn::emulator
