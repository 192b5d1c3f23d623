// What was touched when: the happens-before order of a launch, and accesses to memory that it does not order.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include <string>
#include <unordered_map>
#include <vector>

namespace gn::emulator {

constexpr uint32_t kSignalling = 0x7fa5a5a5;  // a NaN that no arithmetic makes: what nobody has written

struct Thread;
struct Block;

// A thread's position in the order of its block at the time of an access.
struct Touch {
    int32_t thread = -1;  // -1: never touched
    uint32_t phase = 0, warp_phase = 0;
    uint32_t bytes = 0;  // mask of the word's four
};

// One 32-bit word of a block's shared memory. Three reads are enough to find a later write that is not ordered after
// all of them: the last one, the last by another lane of its warp, the last of another warp.
struct SharedWord {
    Touch write, read, lane, warp;
    uint32_t sent_to = 0;  // one more than the number of the Mbarrier that counted what arrived here last
    uint32_t sender = 0;   // its rank
};

// Dynamic shared memory of a resident block, between guard zones.
class SharedMemory {
  public:
    SharedMemory() = default;
    SharedMemory(SharedMemory &&other) noexcept { *this = static_cast<SharedMemory &&>(other); }
    SharedMemory &operator=(SharedMemory &&other) noexcept;
    ~SharedMemory();
    bool allocate(uint32_t bytes);
    void fill();         // signalling NaNs, and an empty history
    bool intact() const;  // the guard zones
    bool holds(const void *address) const { return static_cast<size_t>(static_cast<const char *>(address) - data_) < bytes_; }
    bool near(const void *address) const;  // in a guard zone
    char *data() const { return data_; }
    uint32_t bytes() const { return bytes_; }
    // Accesses by raw pointer of a thread of the block itself; fail() when another one's is not ordered with it.
    void touched(const Thread &thread, const void *address, size_t bytes, bool write);
    // What block `sender` of the cluster has sent, counted by Mbarrier `number`. Empty, or what is wrong: nobody may have
    // touched the place before.
    std::string arrives(size_t offset, const void *value, size_t bytes, uint32_t number, uint32_t sender);

  private:
    char *map_ = nullptr, *data_ = nullptr;
    size_t mapped_ = 0;
    uint32_t bytes_ = 0;
    std::vector<SharedWord> words_;
};

// An access to global memory, as Touch.
struct Access {
    uint32_t thread, phase, warp_phase;
    uint64_t tick;
};

// What one block released last: all that its threads did before their last barrier, what those of the same warp did
// before theirs, and what the thread itself did.
struct Stamp {
    uint32_t thread = 0, phase = 0, warp_phase = 0;
    uint64_t tick = 0;
};

// A vector clock over the blocks of the grid.
class Clock {
  public:
    void see(int64_t block, const Stamp &stamp);
    void see(const Clock &other);
    const Stamp *of(int64_t block) const;
    void clear();
    // Acquired by one thread; the others see it from the next barrier of their warp or block on.
    void acquire(const Thread &thread, const Clock &other);
    void warp_barrier(uint32_t warp);
    void barrier();
    bool ordered(const Thread &now, int64_t block, const Access &before) const;
    void release(const Thread &thread, Clock &into) const;

  private:
    std::unordered_map<int64_t, Stamp> stamps_;
    struct Fresh {
        uint32_t thread;
        bool by_warp;  // seen by its warp
        bool seen_by(const Thread &other) const;
        std::unordered_map<int64_t, Stamp> stamps;
    };
    std::vector<Fresh> fresh_;
};

// Words of global memory that blocks share: workspace and counters. Each function tells what the access races with, or
// an empty text.
class SharedByBlocks {
  public:
    void clear();
    std::string read(const Thread &thread, uintptr_t word);
    std::string write(const Thread &thread, uintptr_t word);
    std::string arrive(const Thread &thread, uintptr_t counter);
    std::string arrived(const Thread &thread, uintptr_t counter);

  private:
    // Of one block, since the last write: the last one, the last by another thread of its warp, and by another warp. Who
    // is ordered after all of them is ordered after all earlier ones.
    struct Reads {
        int64_t block;
        Access last, lane, warp;
        bool lanes, warps;
    };
    struct Word {
        bool written = false;
        int64_t writer = 0;  // block
        Access write{};
        std::vector<Reads> reads;
    };
    static std::string race(const Thread &thread, int64_t block, const Access &access, const char *did);
    std::unordered_map<uintptr_t, Word> words_;
    std::unordered_map<uintptr_t, Clock> counters_;
    uint64_t tick_ = 0;
};

}  // namespace gn::emulator
