// The emulated GPU while a kernel runs: its threads, warps, blocks and clusters, and who waits for whom.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include <string>
#include <vector>

#include "mail.h"
#include "races.h"

namespace gn::emulator {

constexpr uint32_t kLanes = 32;
constexpr uint32_t kNotYet = 0xffffffff;

// A line of kernel code, for messages and to tell one barrier from another.
struct Site {
    const char *what = nullptr, *file = nullptr;
    int line = 0;
};
bool operator==(const Site &a, const Site &b);
std::string told(const Site &site);

enum class Way { cached, streamed, coherent };  // load, load_once, load_shared_by_blocks

struct Block;
struct Warp;

// Sixteen bytes under way from global to shared memory.
struct Copy {
    void *to;
    const void *from;
};

struct Thread {
    uint32_t index = 0;  // in the block
    Warp *warp = nullptr;
    Block *block = nullptr;
    void *stack_pointer = nullptr;
    char *stack = nullptr;  // null before the first instruction and after the last
    bool done = false;
    Site waits_at;  // where it waits, or met others last
    uint32_t warp_phase = 0;                       // warp barriers passed
    uint32_t cluster_arrivals = 0, cluster_waits = 0;
    uint32_t received = 0;     // Mbarriers of its block that it has seen complete, a bit for each
    uint64_t seen_events = 0;  // Launch::events when it last read a counter or a slot
    const void *looks_at = nullptr;  // what that was
    uint32_t rereads = 0;      // of it, since anything happened anywhere
    bool waited = false;       // for the launch before
    std::vector<Copy> copies;
};

struct Warp {
    uint32_t ready = 0;  // lanes that can run
    uint32_t live = 0;   // lanes that have not returned
    // The shuffle or warp barrier in progress.
    uint32_t here = 0;  // lanes that have reached it
    uint32_t round = 0;
    int32_t mask = 0;
    Site site;
    float value[2][kLanes];  // of this round and the one before, which slow lanes still read
    uint32_t priority = 0;
};

struct Cluster {
    uint32_t blocks = 0, live = 0;
    uint32_t arrived = 0;    // threads, at the barrier in progress
    uint32_t completed = 0;  // barriers
    Block *first = nullptr;
    std::vector<Thread *> waiting;
};

struct Block {
    size_t slot = 0;    // in Launch::blocks
    int64_t index = 0;  // in the grid
    uint32_t rank = 0;
    Cluster *cluster = nullptr;
    uint32_t live = 0;
    uint32_t ready = 0;    // warps that have a ready lane
    uint32_t phase = 0;    // barriers passed
    uint32_t waiting = 0;  // threads at the barrier in progress
    Site site;
    bool any[2] = {false, false};  // of what threads brought to this barrier, and to the one before
    uint32_t waited = kNotYet;         // the phase from which on all its threads may read what the launch before wrote
    uint32_t priority = 0;
    SharedMemory memory;
    std::vector<MbarrierState> mbarriers;
    Clock clock;  // what it has seen of the other blocks of the grid
    std::vector<Warp> warps;
    std::vector<Thread> threads;
};

struct Shape {
    const char *kernel = "kernel";
    int64_t blocks = 1;
    uint32_t threads = 32;
    uint32_t shared = 0;   // bytes
    uint32_t cluster = 1;  // blocks
    bool cooperative = false;
    bool overlaps = false;  // may start before the launch before has ended (programmatic dependent launch)
};

struct Launch {
    Shape shape;
    void (*entry)(void *) = nullptr;
    void *closure = nullptr;
    std::vector<Block> blocks;    // resident ones
    std::vector<uint64_t> ready;  // a bit for each of them that has a ready warp
    std::vector<Cluster> clusters;
    uint64_t events = 1;  // writes to counters: what a spinning thread waits for
    std::vector<Thread *> spinning;
    std::vector<Letter> sent;  // and not yet arrived
    void *scheduler = nullptr;  // its stack pointer
    std::string error;
};

extern Thread *self;      // that runs; null on the host
extern Launch *launched;  // in progress; null on the host
extern uint32_t fuse;     // memory accesses until the running thread is interrupted

[[noreturn]] void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
// Leaves the processor until somebody wakes this thread.
void sleep(const Site &site);
void wake(Thread &thread);
// Leaves the processor but can run again at once.
void yield();
void burnt();
// A moment at which other threads may run, if the schedule likes.
inline void interrupt() {
    if (--fuse == 0) burnt();
}
void happened(const void *at);  // an event: threads that spin there look again

// Runs a grid to its end. Null, or what went wrong; the text lives until the next launch.
const char *run(const Shape &shape, void (*entry)(void *), void *closure);

}  // namespace gn::emulator
