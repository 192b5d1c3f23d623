// Shared memory between guard zones, and the accesses to it that no barrier orders.
#include "races.h"

#include <string.h>
#include <sys/mman.h>

#include <algorithm>

#include "fiber.h"
#include "machine.h"

namespace gn::emulator {
namespace {

constexpr size_t kGuard = 256;                       // bytes before and behind, watched for changes
constexpr uint64_t kZone = 0x5a5a5a5a7fa5a5a5ull;

Touch now(const Thread &thread, uint32_t bytes) {
    return {static_cast<int32_t>(thread.index), thread.block->phase, thread.warp_phase, bytes};
}

// Whether barriers put `before`, by a thread of the same block, in front of what `thread` does now.
bool ordered(const Touch &before, const Thread &thread) {
    if (before.thread < 0 || before.thread == static_cast<int32_t>(thread.index)) return true;
    if (before.phase < thread.block->phase) return true;  // a cluster's barrier is relaxed and orders none of this
    return before.thread / static_cast<int32_t>(kLanes) == static_cast<int32_t>(thread.index / kLanes) &&
           before.warp_phase < thread.warp_phase;
}

[[noreturn]] void race(const char *does, size_t offset, const char *did, int32_t thread, const char *whose) {
    fail("race: %s byte %zu of shared memory, which thread %d %s%s with no barrier between", does, offset, thread, whose, did);
}

// Whether the thread, or one before a barrier of its block, has seen the Mbarrier complete.
bool has_received(const Thread &thread, uint32_t number) {
    return thread.received >> number & 1 || thread.block->phase > thread.block->mbarriers[number].seen;
}

}  // namespace

SharedMemory &SharedMemory::operator=(SharedMemory &&other) noexcept {
    std::swap(map_, other.map_);
    std::swap(data_, other.data_);
    std::swap(mapped_, other.mapped_);
    std::swap(bytes_, other.bytes_);
    std::swap(words_, other.words_);
    return *this;
}

SharedMemory::~SharedMemory() {
    if (map_ != nullptr) munmap(map_, mapped_);
}

bool SharedMemory::allocate(uint32_t bytes) {
    const size_t rounded = (bytes + 15) / 16 * 16;
    const size_t inside = (rounded + 2 * kGuard + kPage - 1) / kPage * kPage;
    mapped_ = inside + 2 * kPage;
    void *map = mmap(nullptr, mapped_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED) return false;
    map_ = static_cast<char *>(map);
    if (mprotect(map_ + kPage, inside, PROT_READ | PROT_WRITE) != 0) return false;
    data_ = map_ + kPage + inside - kGuard - rounded;
    bytes_ = bytes;
    words_.resize((bytes + 3) / 4);
    return true;
}

void SharedMemory::fill() {
    uint32_t *words = reinterpret_cast<uint32_t *>(data_);
    std::fill(words, words + (bytes_ + 15) / 16 * 4, kSignalling);
    std::fill_n(reinterpret_cast<uint64_t *>(data_ - kGuard), kGuard / 8, kZone);
    std::fill_n(reinterpret_cast<uint64_t *>(data_ + (bytes_ + 15) / 16 * 16), kGuard / 8, kZone);
    for (SharedWord &word : words_) word = SharedWord{};
}

bool SharedMemory::intact() const {
    const uint64_t *below = reinterpret_cast<const uint64_t *>(data_ - kGuard);
    const uint64_t *above = reinterpret_cast<const uint64_t *>(data_ + (bytes_ + 15) / 16 * 16);
    uint64_t changed = 0;
    for (size_t i = 0; i < kGuard / 8; ++i) changed |= (below[i] ^ kZone) | (above[i] ^ kZone);
    return changed == 0;
}

bool SharedMemory::near(const void *address) const {
    const char *at = static_cast<const char *>(address);
    return at >= data_ - kGuard && at < data_ + bytes_ + kGuard && !holds(address);
}

void SharedMemory::touched(const Thread &thread, const void *address, size_t bytes, bool write) {
    const size_t offset = static_cast<size_t>(static_cast<const char *>(address) - data_);
    if (offset + bytes > bytes_)
        fail("%s %zu bytes of shared memory at byte %zu of %u", write ? "writes" : "reads", bytes, offset, bytes_);
    for (size_t i = offset / 4; i <= (offset + bytes - 1) / 4; ++i) {
        SharedWord &word = words_[i];
        const size_t begin = std::max(offset, i * 4) - i * 4, end = std::min(offset + bytes, i * 4 + 4) - i * 4;
        const Touch touch = now(thread, (1u << end) - (1u << begin));
        if (word.sent_to && !has_received(thread, word.sent_to - 1))
            fail("race: %s byte %zu of shared memory, which block %u of the cluster has sent, before it has been in receive",
                 write ? "writes" : "reads", offset, word.sender);
        if ((word.write.bytes & touch.bytes) && !ordered(word.write, thread))
            race(write ? "writes" : "reads", offset, "wrote", word.write.thread, "");
        if (write) {
            for (const Touch *read : {&word.read, &word.lane, &word.warp})
                if ((read->bytes & touch.bytes) && !ordered(*read, thread)) race("writes", offset, "read", read->thread, "");
            word = SharedWord{};
            word.write = touch;
        } else if (word.read.thread != touch.thread) {
            const bool same_warp = word.read.thread / static_cast<int32_t>(kLanes) == touch.thread / static_cast<int32_t>(kLanes);
            (word.read.thread >= 0 && same_warp ? word.lane : word.warp) = word.read;
            word.read = touch;
        } else {
            word.read = touch;
        }
    }
}

std::string SharedMemory::arrives(size_t offset, const void *value, size_t bytes, uint32_t number, uint32_t sender) {
    for (size_t i = offset / 4; i < (offset + bytes) / 4; ++i) {
        SharedWord &word = words_[i];
        for (const Touch *touch : {&word.write, &word.read, &word.lane, &word.warp})
            if (touch->thread >= 0)
                return "which thread " + std::to_string(touch->thread) + " there has " +
                       (touch == &word.write ? "written" : "read") + " before";
        if (word.sent_to) return "where something has arrived already";
        word.sent_to = number + 1;
        word.sender = sender;
    }
    memcpy(data_ + offset, value, bytes);
    return {};
}

}  // namespace gn::emulator
