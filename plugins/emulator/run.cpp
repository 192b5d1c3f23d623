// A launch from its first block to its last: residency, fibers, limits of the device, and the report of a deadlock.
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <algorithm>
#include <map>

#include "../kernels/platform.h"
#include "fiber.h"
#include "memory.h"
#include "schedule.h"
#include "settings.h"

namespace gn::emulator {

uint32_t fuse = 0x7fffffff;

namespace {

constexpr uint32_t kWindow = 4;  // clusters that share the machine where the schedule mixes them

void to_scheduler() {
    Thread *thread = self;
    gn_emulator_switch(&thread->stack_pointer, launched->scheduler);
}

// Where a fiber begins and ends.
void live() {
    launched->entry(launched->closure);
    Thread &thread = *self;
    Block &block = *thread.block;
    Warp &warp = *thread.warp;
    if (warp.here != 0) fail("returns while its warp is at %s", told(warp.site).c_str());
    if (block.waiting != 0) fail("returns while its block is at %s", told(block.site).c_str());
    if (thread.cluster_arrivals != thread.cluster_waits) fail("returns between cluster_arrive and cluster_wait");
    if (!thread.copies.empty()) fail("returns with %zu copies under way", thread.copies.size());
    thread.done = true;
    to_scheduler();
    __builtin_unreachable();
}

void enter(Launch &launch, size_t slot, int64_t index) {
    Block &block = launch.blocks[slot];
    block.slot = slot;
    block.index = index;
    block.live = launch.shape.threads;
    block.phase = block.waiting = 0;
    block.any[0] = block.any[1] = false;
    block.waited = launch.shape.overlaps ? kNotYet : 0;
    block.clock.clear();
    block.memory.fill();
    block.mbarriers.clear();
    const uint32_t warps = (launch.shape.threads + kLanes - 1) / kLanes;
    block.warps.assign(warps, Warp{});
    block.threads.assign(launch.shape.threads, Thread{});
    for (uint32_t i = 0; i < launch.shape.threads; ++i) {
        Thread &thread = block.threads[i];
        thread.index = i;
        thread.block = &block;
        thread.warp = &block.warps[i / kLanes];
        thread.warp->live |= 1u << i % kLanes;
        wake(thread);
    }
    plan.enter(block);
}

void enter_cluster(Launch &launch, Cluster &cluster, size_t number, int64_t index) {
    const uint32_t blocks = launch.shape.cluster;
    cluster = Cluster{};
    cluster.blocks = cluster.live = blocks;
    cluster.first = &launch.blocks[number * blocks];
    for (uint32_t rank = 0; rank < blocks; ++rank) {
        Block &block = cluster.first[rank];
        block.cluster = &cluster;
        block.rank = rank;
        enter(launch, number * blocks + rank, index * blocks + rank);
    }
}

// False when the block still has threads.
bool leave(Launch &launch, Thread &thread) {
    Block &block = *thread.block;
    thread.warp->live &= ~(1u << thread.index % kLanes);
    give_stack(thread.stack);
    thread.stack = nullptr;
    if (--block.live > 0) return false;
    ++memory.total.blocks;
    const char *where = launch.shape.kernel;
    char text[256] = "";
    if (!block.memory.intact())
        snprintf(text, sizeof text, "%s, block %lld: something wrote beyond its shared memory", where,
                 static_cast<long long>(block.index));
    launch.error = text;
    if (launch.error.empty()) launch.error = left_behind(launch, block);
    return --block.cluster->live == 0;
}

std::string deadlock(const Launch &launch) {
    std::map<std::string, std::pair<int, const Thread *>> places;
    for (const Block &block : launch.blocks)
        for (const Thread &thread : block.threads)
            if (!thread.done) {
                auto &place = places[told(thread.waits_at)];
                if (place.first++ == 0) place.second = &thread;
            }
    std::string text = std::string(launch.shape.kernel) + ": deadlock: ";
    for (const auto &[site, place] : places)
        text += std::to_string(place.first) + " threads wait at " + site + ", such as thread " +
                std::to_string(place.second->index) + " of block " + std::to_string(place.second->block->index) + "; ";
    text.resize(text.size() - 2);
    return text;
}

void run_thread(Launch &launch, Thread &thread) {
    if (thread.stack == nullptr) {
        thread.stack = take_stack();
        if (thread.stack == nullptr) {
            launch.error = "no memory for another stack";
            return;
        }
        thread.stack_pointer = fresh(thread.stack, live);
    }
    self = &thread;
    fuse = plan.fuse();
    ++memory.total.switches;
    gn_emulator_switch(&launch.scheduler, thread.stack_pointer);
    self = nullptr;
}

// A wild pointer, or a stack that is too small: the thread's error, not the end of the process.
void caught(int number, siginfo_t *info, void *) {
    if (self == nullptr) {
        signal(number, SIG_DFL);
        return;
    }
    if (below_a_stack(info->si_addr)) fail("needs more than %zu bytes of stack", kStack);
    fail("touches address %p, which is nobody's", info->si_addr);
}

class Trap {
  public:
    Trap() {
        static char alternative[64 * 1024];
        stack_t stack{};
        stack.ss_sp = alternative;
        stack.ss_size = sizeof alternative;
        sigaltstack(&stack, &stack_);
        struct sigaction action {};
        action.sa_sigaction = caught;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
        sigaction(SIGSEGV, &action, &segv_);
        sigaction(SIGBUS, &action, &bus_);
    }
    ~Trap() {
        sigaction(SIGSEGV, &segv_, nullptr);
        sigaction(SIGBUS, &bus_, nullptr);
        sigaltstack(&stack_, nullptr);
    }

  private:
    struct sigaction segv_ {}, bus_ {};
    stack_t stack_{};
};

const char *refused(const Shape &shape) {
    static char text[256];
    const gn_device &device = settings.device;
    const int64_t warps = (shape.threads + kLanes - 1) / kLanes;
    // Kernels are compiled for at most 64 registers; what they ask for is given in units of a warp.
    const int64_t by_registers = device.registers / (64 * kLanes) / std::max<int64_t>(warps, 1);
    const int64_t by_threads = device.threads / std::max<int64_t>(shape.threads, 1);
    const int64_t by_shared = device.shared / (shape.shared + 1024);  // CUDA keeps 1 KB of each block for itself
    const int64_t resident = device.multiprocessors * std::min({by_registers, by_threads, by_shared});
    auto say = [](const char *format, long long a, long long b) {
        snprintf(text, sizeof text, format, a, b);
        return text;
    };
    if (shape.blocks < 1 || shape.blocks > 0x7fffffff) return say("a grid of %lld blocks", shape.blocks, 0);
    if (shape.threads < 1 || shape.threads > 1024) return say("a block of %lld threads", shape.threads, 0);
    if (shape.shared > static_cast<uint32_t>(device.shared_per_block))
        return say("%lld bytes of shared memory, the device has %lld", shape.shared, device.shared_per_block);
    if (shape.cluster < 1 || shape.cluster > static_cast<uint32_t>(std::max(device.cluster_blocks, 1)))
        return say("clusters of %lld blocks, the device has at most %lld", shape.cluster, device.cluster_blocks);
    if (shape.blocks % shape.cluster != 0)
        return say("%lld blocks are not a whole number of clusters of %lld", shape.blocks, shape.cluster);
    if (shape.cooperative && !device.cooperative) return say("a cooperative launch, which the device cannot do", 0, 0);
    if (shape.cooperative && shape.blocks > resident)
        return say("%lld cooperative blocks, the device holds %lld at once", shape.blocks, resident);
    return nullptr;
}

void run_all(Launch &launch) {
    const Shape &shape = launch.shape;
    const bool some = settings.end_block > settings.first_block && !shape.cooperative && shape.cluster == 1;
    const int64_t only = some ? std::min(settings.end_block, shape.blocks) - settings.first_block : shape.blocks;
    // A second kernel goes over what the first did in reverse.
    const int64_t first = !some ? 0 : shape.overlaps ? shape.blocks - settings.end_block : settings.first_block;
    const int64_t count = only / shape.cluster;
    const int64_t window = shape.cooperative ? count : std::min<int64_t>(count, plan.random() ? kWindow : 1);
    launch.blocks = std::vector<Block>(static_cast<size_t>(window * shape.cluster));
    launch.clusters.resize(static_cast<size_t>(window));
    launch.ready.assign(launch.blocks.size() / 64 + 1, 0);
    for (Block &block : launch.blocks)
        if (!block.memory.allocate(shape.shared)) {
            launch.error = "no memory for another block";
            return;
        }
    int64_t started = 0, ended = 0;
    for (; started < window; ++started)
        enter_cluster(launch, launch.clusters[static_cast<size_t>(started)], static_cast<size_t>(started),
                      first + plan.block(started, count));
    while (ended < count && launch.error.empty()) {
        Thread *thread = plan.next(launch);
        if (!launch.sent.empty()) {
            const size_t due = plan.arrives(launch.sent.size(), thread == nullptr);
            if (due < launch.sent.size()) {
                launch.error = deliver(launch, due);
                if (thread != nullptr) wake(*thread);
                continue;
            }
        }
        if (thread == nullptr) {
            launch.error = deadlock(launch);
            return;
        }
        run_thread(launch, *thread);
        if (!launch.error.empty() || !thread->done || !leave(launch, *thread)) continue;
        ++ended;
        Cluster &cluster = *thread->block->cluster;
        const size_t number = static_cast<size_t>(&cluster - launch.clusters.data());
        if (started < count) enter_cluster(launch, cluster, number, first + plan.block(started++, count));
    }
}

}  // namespace

void fail(const char *format, ...) {
    char text[1024];
    const int used = snprintf(text, sizeof text, "%s, block %lld, thread %u: ", launched->shape.kernel,
                              static_cast<long long>(self->block->index), self->index);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text + used, sizeof text - static_cast<size_t>(used), format, arguments);
    va_end(arguments);
    launched->error = text;
    to_scheduler();
    __builtin_unreachable();
}

void wake(Thread &thread) {
    Block &block = *thread.block;
    thread.warp->ready |= 1u << thread.index % kLanes;
    block.ready |= 1u << thread.index / kLanes;
    launched->ready[block.slot / 64] |= uint64_t{1} << block.slot % 64;
}

void sleep(const Site &site) {
    self->waits_at = site;
    to_scheduler();
}

void yield() {
    wake(*self);
    to_scheduler();
}

void burnt() {
    if (!plan.random()) {
        fuse = plan.fuse();
        return;
    }
    yield();
}

const char *run(const Shape &shape, void (*entry)(void *), void *closure) {
    static std::string error;
    error.clear();
    if (const char *reason = refused(shape)) {
        error = std::string(shape.kernel) + ": launched with " + reason;
        settings.error = error;
        return error.c_str();
    }
    Launch launch;
    launch.shape = shape;
    launch.entry = entry;
    launch.closure = closure;
    launched = &launch;
    plan.start();
    memory.begin_launch();
    ++memory.total.launches;
    {
        Trap trap;
        run_all(launch);
    }
    for (Block &block : launch.blocks)
        for (Thread &thread : block.threads)
            if (thread.stack != nullptr) give_stack(thread.stack);
    launched = nullptr;
    error = launch.error;
    settings.error = error;
    return error.empty() ? nullptr : error.c_str();
}

}  // namespace gn::emulator
