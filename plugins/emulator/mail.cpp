// Mbarriers and what is sent between blocks of a cluster.
#include "mail.h"

#include <string.h>

#include "../kernels/platform.h"
#include "machine.h"

namespace gn::emulator {
namespace {

size_t offset_in(const Block &block, const void *own, size_t alignment, const Site &site) {
    if (!block.memory.holds(own)) fail("%s of an address outside its block's shared memory", told(site).c_str());
    const size_t offset = static_cast<size_t>(static_cast<const char *>(own) - block.memory.data());
    if (offset + alignment > block.memory.bytes()) fail("%s beyond its block's shared memory", told(site).c_str());
    if (offset % alignment != 0) fail("%s at byte %zu of shared memory, which is not aligned", told(site).c_str(), offset);
    return offset;
}

MbarrierState *find(Block &block, size_t offset) {
    for (MbarrierState &state : block.mbarriers)
        if (state.offset == offset) return &state;
    return nullptr;
}

// That of this thread's block, opened before a barrier of the cluster or of the block.
MbarrierState &opened(Mbarrier *barrier, const Site &site) {
    Thread &thread = *self;
    Block &block = *thread.block;
    interrupt();
    thread.waits_at = site;
    MbarrierState *found = find(block, offset_in(block, barrier, sizeof(Mbarrier), site));
    if (found == nullptr) fail("%s of an Mbarrier that nobody has opened", told(site).c_str());
    if (found->arrivals >= thread.cluster_waits) block.memory.touched(thread, barrier, sizeof(Mbarrier), false);
    return *found;
}

void completed(MbarrierState &state) {
    if (!state.expects || state.bytes != 0) return;
    state.complete = true;
    for (Thread *thread : state.waiting) wake(*thread);
    state.waiting.clear();
}

}  // namespace

void open(Mbarrier *barrier, const Site &site) {
    Thread &thread = *self;
    Block &block = *thread.block;
    interrupt();
    const size_t offset = offset_in(block, barrier, sizeof(Mbarrier), site);
    if (find(block, offset) != nullptr) fail("%s a second time", told(site).c_str());
    if (block.mbarriers.size() == 32) fail("%s: the emulator knows 32 in a block", told(site).c_str());
    block.memory.touched(thread, barrier, sizeof(Mbarrier), true);
    MbarrierState state;
    state.offset = offset;
    state.arrivals = thread.cluster_arrivals;
    block.mbarriers.push_back(state);
}

void expect(Mbarrier *barrier, uint32_t bytes, const Site &site) {
    MbarrierState &state = opened(barrier, site);
    if (state.expects) fail("%s a second time", told(site).c_str());
    state.expects = true;
    state.bytes += bytes;
    completed(state);
}

void send(const Bits128 &value, Bits128 *slot, Mbarrier *barrier, uint32_t rank, const Site &site) {
    Thread &thread = *self;
    Block &block = *thread.block;
    const Cluster &cluster = *block.cluster;
    interrupt();
    thread.waits_at = site;
    if (rank >= cluster.blocks) fail("%s to block %u of a cluster of %u", told(site).c_str(), rank, cluster.blocks);
    Block &to = cluster.first[rank];
    if (to.live == 0) fail("%s to block %u of the cluster, which has ended", told(site).c_str(), rank);
    Letter letter;
    letter.to = &to;
    letter.index = to.index;
    letter.slot = offset_in(block, slot, sizeof(Bits128), site);
    letter.mbarrier = offset_in(block, barrier, sizeof(Mbarrier), site);
    memcpy(letter.words, &value, sizeof letter.words);
    letter.sender = block.rank;
    letter.from = "what thread " + std::to_string(thread.index) + " of block " + std::to_string(block.index) + " sends by " + told(site);
    const MbarrierState *state = find(to, letter.mbarrier);
    if (state == nullptr) fail("%s to block %u of the cluster, whose Mbarrier is not open", told(site).c_str(), rank);
    if (state->arrivals >= thread.cluster_waits)
        fail("race: %s to block %u of the cluster, with no cluster barrier after it has opened its Mbarrier", told(site).c_str(), rank);
    launched->sent.push_back(letter);
}

void receive(Mbarrier *barrier, const Site &site) {
    Thread &thread = *self;
    MbarrierState &state = opened(barrier, site);
    const size_t number = static_cast<size_t>(&state - thread.block->mbarriers.data());
    if (!state.complete) {
        state.waiting.push_back(&thread);
        sleep(site);
    }
    MbarrierState &now = thread.block->mbarriers[number];  // others may have been opened meanwhile
    thread.received |= 1u << number;
    if (thread.block->phase < now.seen) now.seen = thread.block->phase;
}

std::string deliver(Launch &launch, size_t number) {
    const Letter letter = launch.sent[number];
    launch.sent.erase(launch.sent.begin() + static_cast<std::ptrdiff_t>(number));
    Block &to = *letter.to;
    const std::string which = std::string(launch.shape.kernel) + ": " + letter.from + " arrives in block " +
                              std::to_string(letter.index);
    if (to.live == 0 || to.index != letter.index) return which + ", which has ended";
    MbarrierState &state = *find(to, letter.mbarrier);
    const std::string wrong = to.memory.arrives(letter.slot, letter.words, sizeof letter.words,
                                                static_cast<uint32_t>(&state - to.mbarriers.data()), letter.sender);
    if (!wrong.empty()) return "race: " + which + " at byte " + std::to_string(letter.slot) + ", " + wrong;
    if (state.complete) return which + ", whose Mbarrier has counted all that was expected before";
    state.bytes -= sizeof letter.words;
    completed(state);
    return {};
}

std::string left_behind(const Launch &launch, const Block &block) {
    const std::string ends = std::string(launch.shape.kernel) + ", block " + std::to_string(block.index) + " ends before ";
    for (const Letter &letter : launch.sent)
        if (letter.to == &block) return ends + letter.from + " has arrived";
    for (const MbarrierState &state : block.mbarriers)
        if (state.expects && !state.complete)
            return ends + std::to_string(state.bytes) + " bytes that it expects have arrived";
    return {};
}

}  // namespace gn::emulator
