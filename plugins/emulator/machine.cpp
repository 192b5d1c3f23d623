// Barriers, shuffles, clusters and counters: threads meet here, and those that cannot meet are told why.
#include "machine.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <algorithm>
#include <functional>

#include "../kernels/platform.h"
#include "memory.h"

namespace gn::emulator {

Thread *self = nullptr;
Launch *launched = nullptr;

bool operator==(const Site &a, const Site &b) {
    return a.line == b.line && strcmp(a.what, b.what) == 0 && (a.file == b.file || strcmp(a.file, b.file) == 0);
}

std::string told(const Site &site) {
    if (site.what == nullptr) return "nowhere yet";
    const char *name = strrchr(site.file, '/');
    return std::string(site.what) + " (" + (name ? name + 1 : site.file) + ":" + std::to_string(site.line) + ")";
}

namespace {

[[noreturn]] void mismatch(const Site &site, const Site &there, const char *whom) {
    fail("reaches %s while %s is at %s", told(site).c_str(), whom, told(there).c_str());
}

void lane_must_be_whole(const Thread &thread, const Site &site) {
    if (thread.warp->live != 0xffffffffu)
        fail("%s by a warp with %d of 32 lanes", told(site).c_str(), __builtin_popcount(thread.warp->live));
}

// True for the lane that completes the warp; the others come back when it has.
bool meet_warp(Thread &thread, const Site &site, int32_t mask) {
    Warp &warp = *thread.warp;
    lane_must_be_whole(thread, site);
    if (warp.here == 0) {
        warp.site = site;
        warp.mask = mask;
    } else if (!(warp.site == site)) {
        mismatch(site, warp.site, "its warp");
    } else if (warp.mask != mask) {
        fail("%s with mask %d while its warp has %d", told(site).c_str(), mask, warp.mask);
    }
    warp.here |= 1u << thread.index % kLanes;
    if (warp.here != warp.live) {
        sleep(site);
        return false;
    }
    warp.here = 0;
    ++warp.round;
    for (Thread *lane = &thread - thread.index % kLanes, *end = lane + kLanes; lane < end; ++lane)
        if (lane != &thread) wake(*lane);
    return true;
}

}  // namespace

void barrier(const Site &site) {
    Thread &thread = *self;
    Block &block = *thread.block;
    if (block.live != launched->shape.threads)
        fail("%s, but %u threads of its block have returned", told(site).c_str(), launched->shape.threads - block.live);
    if (block.waiting == 0) block.site = site;
    if (!(block.site == site)) mismatch(site, block.site, "another thread of its block");
    if (++block.waiting < block.live) return sleep(site);
    block.waiting = 0;
    ++block.phase;
    block.any[block.phase & 1] = false;
    ++memory.total.barriers;
    block.clock.barrier();
    if (!block.memory.intact()) fail("something wrote beyond the shared memory of its block, before %s", told(site).c_str());
    for (Thread &other : block.threads)
        if (&other != &thread) wake(other);
}

bool barrier_any(bool mine, const Site &site) {
    bool &any = self->block->any[self->block->phase & 1];
    any = any || mine;
    barrier(site);
    return any;
}

void warp_barrier(const Site &site) {
    Thread &thread = *self;
    if (meet_warp(thread, site, 0)) thread.block->clock.warp_barrier(thread.index / kLanes);
    ++thread.warp_phase;
}

bool warp_any(bool mine, const Site &site) {
    const float *values = self->warp->value[self->warp->round & 1];
    shuffle(mine, 0, 0, site);
    for (uint32_t lane = 0; lane < kLanes; ++lane)
        if (values[lane] != 0) return true;
    return false;
}

float shuffle(float value, int32_t mask, uint32_t lane, const Site &site) {
    Thread &thread = *self;
    float *values = thread.warp->value[thread.warp->round & 1];
    values[thread.index % kLanes] = value;
    meet_warp(thread, site, mask);
    return values[lane];
}

void cluster_arrive(const Site &site) {
    Thread &thread = *self;
    Cluster &cluster = *thread.block->cluster;
    if (thread.cluster_arrivals != thread.cluster_waits) fail("%s twice without cluster_wait", told(site).c_str());
    if (cluster.live != cluster.blocks) fail("%s, but a block of its cluster has ended", told(site).c_str());
    thread.waits_at = site;
    ++thread.cluster_arrivals;
    if (++cluster.arrived == cluster.blocks * launched->shape.threads) {
        cluster.arrived = 0;
        ++cluster.completed;
        for (Thread *other : cluster.waiting) wake(*other);
        cluster.waiting.clear();
    }
    interrupt();
}

void cluster_wait(const Site &site) {
    Thread &thread = *self;
    if (thread.cluster_arrivals == thread.cluster_waits) fail("%s without cluster_arrive", told(site).c_str());
    Cluster &cluster = *thread.block->cluster;
    if (cluster.completed < thread.cluster_arrivals) {
        cluster.waiting.push_back(&thread);
        sleep(site);
    }
    thread.cluster_waits = thread.cluster_arrivals;
}

uint32_t arrive(uint32_t *counter, const Site &site) {
    interrupt();
    self->waits_at = site;
    memory.count(counter, false);
    const uint32_t before = (*counter)++;
    happened(counter);
    interrupt();
    return before;
}

namespace {

// Before what another block may change is read: a loop that reads it without pause() is a spin, too.
void look(const void *at, const Site &site) {
    constexpr uint32_t kPatience = 4;
    Thread &thread = *self;
    interrupt();
    thread.waits_at = site;
    if (thread.seen_events != launched->events || thread.looks_at != at)
        thread.rereads = 0;
    else if (++thread.rereads > kPatience)
        pause(site);
    thread.seen_events = launched->events;
    thread.looks_at = at;
}

}  // namespace

uint32_t arrived(const uint32_t *counter, const Site &site) {
    look(counter, site);
    memory.count(counter, true);
    return *counter;
}

void publish(Bits128 *slot, const Bits128 &value, const Site &site) {
    interrupt();
    self->waits_at = site;
    memory.slot(slot, true);
    *slot = value;
    happened(slot);
    interrupt();
}

Bits128 published(const Bits128 *slot, const Site &site) {
    look(slot, site);
    memory.slot(slot, false);
    return *slot;
}

// What is on its way may arrive at any time: here it does when it is waited for, and what was there is lost at once.
void copy(Bits128 *to, const Bits128 *from, const Site &site) {
    Thread &thread = *self;
    SharedMemory &shared = thread.block->memory;
    interrupt();
    if (!shared.holds(to) || reinterpret_cast<uintptr_t>(to) % sizeof *to)
        fail("%s to an address that is not 16 aligned bytes of its block's shared memory", told(site).c_str());
    memory.check_read(from, sizeof *from, Way::streamed);
    shared.touched(thread, to, sizeof *to, true);
    *to = Bits128{{kSignalling, kSignalling, kSignalling, kSignalling}};
    thread.copies.push_back({to, from});
}

void copies_arrived() {
    Thread &thread = *self;
    interrupt();
    for (const Copy &copy : thread.copies) {
        memory.check_unchanged(copy.from, sizeof(Bits128));
        thread.block->memory.touched(thread, copy.to, sizeof(Bits128), true);
        memcpy(copy.to, copy.from, sizeof(Bits128));
    }
    thread.copies.clear();
}

void pause(const Site &site) {
    Thread &thread = *self;
    if (thread.seen_events != launched->events) return yield();
    launched->spinning.push_back(&thread);
    sleep(site);
}

void wait_for_previous() {
    Thread &thread = *self;
    interrupt();
    thread.waited = true;
    if (thread.block->waited == kNotYet) thread.block->waited = thread.block->phase + 1;
}

void read(const void *address, void *value, size_t bytes, Way way) {
    interrupt();
    memory.check_read(address, bytes, way);
    memcpy(value, address, bytes);
}

void write(void *address, const void *value, size_t bytes) {
    interrupt();
    if (memory.check_write(address, bytes)) happened(address);
    memcpy(address, value, bytes);
}

void happened(const void *at) {
    ++launched->events;
    std::vector<Thread *> &spinning = launched->spinning;
    const auto looking = [at](Thread *thread) { return thread->looks_at == at; };
    const auto first = std::partition(spinning.begin(), spinning.end(), std::not_fn(looking));
    std::for_each(first, spinning.end(), [](Thread *thread) { wake(*thread); });
    spinning.erase(first, spinning.end());
}

}  // namespace gn::emulator
