// The C functions of emulator.h.
#include "emulator.h"

#include <sys/mman.h>

#include "memory.h"
#include "schedule.h"
#include "settings.h"

namespace gn::emulator {
Settings settings;
}

using gn::emulator::memory;
using gn::emulator::plan;
using gn::emulator::settings;

extern "C" {

void gn_emulator_device(const gn_device *device) { settings.device = *device; }

void gn_emulator_schedule(int schedule, uint64_t seed) {
    plan.schedule = schedule;
    plan.seed = seed;
}

int gn_emulator_buffer(const void *address, size_t bytes, int use, const char *name) {
    return memory.add(address, bytes, use, name);
}

void gn_emulator_forget_buffers(void) { memory.clear(); }

void *gn_emulator_reserve(size_t bytes) {
    void *found = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return found == MAP_FAILED ? nullptr : found;
}

void gn_emulator_release(void *reserved, size_t bytes) { munmap(reserved, bytes); }

void gn_emulator_only_blocks(int64_t first, int64_t end) {
    settings.first_block = first;
    settings.end_block = end;
}

void gn_emulator_traffic(int buffer, gn_traffic *traffic) {
    const gn::emulator::Buffer *one = memory.at(buffer);
    *traffic = one != nullptr ? one->traffic : memory.total;
}

void gn_emulator_reset_traffic(void) { memory.reset_traffic(); }

const char *gn_emulator_error(void) { return settings.error.c_str(); }

}  // extern "C"
