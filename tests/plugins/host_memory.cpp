// The plugin's CUDA runtime where there is no GPU: memory of the host, and the device that a test has set.
#include <stdlib.h>

#include "../../plugins/tensorrt/memory.h"
#include "../../plugins/tensorrt/node.h"

static gn_device device;
static int allocations, held, refuse;

namespace gn {

bool current_device(gn_device *found, Message &message) noexcept {
    if (device.multiprocessors == 0) return message.say("no current GPU: none was set");
    *found = device;
    return true;
}

void *allocate_zeroed(size_t bytes, Message &message) noexcept {
    if (refuse) return message.say("no memory for the counters: refused by the test"), nullptr;
    ++allocations, ++held;
    return calloc(1, bytes);
}

void release(void *memory) noexcept {
    if (memory != nullptr) --held;
    free(memory);
}

}  // namespace gn

extern "C" {
void test_device(const gn_device *given) { device = given == nullptr ? gn_device{} : *given; }
void test_refuse(int yes) { refuse = yes; }
void test_allocations(int *made, int *now) { *made = allocations, *now = held; }
}
