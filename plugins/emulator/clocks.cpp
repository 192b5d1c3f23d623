// Vector clocks over the blocks of a grid, and accesses to global memory that no counter orders.
#include "machine.h"
#include "races.h"

namespace gn::emulator {

void Clock::see(int64_t block, const Stamp &stamp) {
    Stamp &seen = stamps_[block];
    if (stamp.tick > seen.tick) seen = stamp;
}

void Clock::see(const Clock &other) {
    for (const auto &[block, stamp] : other.stamps_) see(block, stamp);
}

void Clock::clear() {
    stamps_.clear();
    fresh_.clear();
}

void Clock::acquire(const Thread &thread, const Clock &other) {
    for (Fresh &fresh : fresh_)
        if (fresh.thread == thread.index && !fresh.by_warp) {
            for (const auto &[block, stamp] : other.stamps_)
                if (Stamp &seen = fresh.stamps[block]; stamp.tick > seen.tick) seen = stamp;
            return;
        }
    fresh_.push_back({thread.index, false, other.stamps_});
}

bool Clock::Fresh::seen_by(const Thread &other) const {
    return thread == other.index || (by_warp && thread / kLanes == other.index / kLanes);
}

void Clock::warp_barrier(uint32_t warp) {
    for (Fresh &fresh : fresh_) fresh.by_warp = fresh.by_warp || fresh.thread / kLanes == warp;
}

void Clock::barrier() {
    for (const Fresh &fresh : fresh_)
        for (const auto &[block, stamp] : fresh.stamps) see(block, stamp);
    fresh_.clear();
}

bool Clock::ordered(const Thread &now, int64_t block, const Access &before) const {
    auto covers = [&](const std::unordered_map<int64_t, Stamp> &stamps) {
        const auto found = stamps.find(block);
        if (found == stamps.end()) return false;
        const Stamp &stamp = found->second;
        return before.phase < stamp.phase || (before.thread == stamp.thread && before.tick < stamp.tick) ||
               (before.thread / kLanes == stamp.thread / kLanes && before.warp_phase < stamp.warp_phase);
    };
    if (covers(stamps_)) return true;
    for (const Fresh &fresh : fresh_)
        if (fresh.seen_by(now) && covers(fresh.stamps)) return true;
    return false;
}

void Clock::release(const Thread &thread, Clock &into) const {
    into.see(*this);
    for (const Fresh &fresh : fresh_)
        if (fresh.seen_by(thread))
            for (const auto &[block, stamp] : fresh.stamps) into.see(block, stamp);
}

void SharedByBlocks::clear() {
    words_.clear();
    counters_.clear();
    tick_ = 0;
}

namespace {
Access access_of(const Thread &thread, uint64_t tick) {
    return {thread.index, thread.block->phase, thread.warp_phase, tick};
}
}  // namespace

std::string SharedByBlocks::race(const Thread &thread, int64_t by, const Access &access, const char *did) {
    const Block &block = *thread.block;
    const bool same_warp = access.thread / kLanes == thread.index / kLanes;
    if (by == block.index ? access.thread == thread.index || access.phase < block.phase ||
                                (same_warp && access.warp_phase < thread.warp_phase)
                          : block.clock.ordered(thread, by, access))
        return {};
    return "thread " + std::to_string(access.thread) + " of block " + std::to_string(by) + " " + did +
           ", and nothing orders the two";
}

std::string SharedByBlocks::read(const Thread &thread, uintptr_t address) {
    Word &word = words_[address];
    if (word.written)
        if (std::string found = race(thread, word.writer, word.write, "wrote"); !found.empty()) return found;
    const Access access = access_of(thread, ++tick_);
    for (Reads &reads : word.reads) {
        if (reads.block != thread.block->index) continue;
        if (reads.last.thread / kLanes != access.thread / kLanes) {
            reads.warp = reads.last;
            reads.warps = true;
        } else if (reads.last.thread != access.thread) {
            reads.lane = reads.last;
            reads.lanes = true;
        }
        reads.last = access;
        return {};
    }
    word.reads.push_back({thread.block->index, access, {}, {}, false, false});
    return {};
}

std::string SharedByBlocks::write(const Thread &thread, uintptr_t address) {
    Word &word = words_[address];
    std::string found;
    if (word.written) found = race(thread, word.writer, word.write, "wrote");
    for (const Reads &reads : word.reads) {
        if (found.empty()) found = race(thread, reads.block, reads.last, "read");
        if (found.empty() && reads.lanes) found = race(thread, reads.block, reads.lane, "read");
        if (found.empty() && reads.warps) found = race(thread, reads.block, reads.warp, "read");
    }
    word.written = true;
    word.writer = thread.block->index;
    word.write = access_of(thread, ++tick_);
    word.reads.clear();
    return found;
}

std::string SharedByBlocks::arrive(const Thread &thread, uintptr_t counter) {
    // An atomic access is ordered against others of its kind, not against plain stores.
    std::string found = read(thread, counter);
    Block &block = *thread.block;
    Clock &clock = counters_[counter];
    block.clock.release(thread, clock);
    clock.see(block.index, {thread.index, block.phase, thread.warp_phase, ++tick_});
    block.clock.acquire(thread, clock);
    return found;
}

std::string SharedByBlocks::arrived(const Thread &thread, uintptr_t counter) {
    thread.block->clock.acquire(thread, counters_[counter]);
    return read(thread, counter);
}

}  // namespace gn::emulator
