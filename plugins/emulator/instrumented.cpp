// What g++ -fsanitize=thread calls at each access to memory, answered here instead of by its library: kernels touch
// shared memory by plain pointers, and so every one of these touches is seen.
#include <stddef.h>
#include <stdint.h>

#include "fiber.h"
#include "machine.h"
#include "memory.h"

namespace gn::emulator {
namespace {

void touched(const void *address, size_t bytes, bool write) {
    if (self == nullptr || static_cast<size_t>(static_cast<const char *>(address) - self->stack) < kStack) return;
    SharedMemory &shared = self->block->memory;
    if (shared.holds(address)) {
        interrupt();
        shared.touched(*self, address, bytes, write);
    } else if (shared.near(address)) {
        fail("%s %zu bytes beside its block's shared memory", write ? "writes" : "reads", bytes);
    } else if (const Buffer *buffer = memory.find(reinterpret_cast<uintptr_t>(address))) {
        fail("%s %s by a plain pointer", write ? "writes" : "reads", buffer->name.c_str());
    }
}

}  // namespace
}  // namespace gn::emulator

#define GN_ACCESS(bytes)                                                                                              \
    void __tsan_read##bytes(void *address) { gn::emulator::touched(address, bytes, false); }                          \
    void __tsan_write##bytes(void *address) { gn::emulator::touched(address, bytes, true); }                          \
    void __tsan_volatile_read##bytes(void *address) { gn::emulator::touched(address, bytes, false); }                 \
    void __tsan_volatile_write##bytes(void *address) { gn::emulator::touched(address, bytes, true); }                 \
    void __tsan_unaligned_read##bytes(void *address) { gn::emulator::touched(address, bytes, false); }                \
    void __tsan_unaligned_write##bytes(void *address) { gn::emulator::touched(address, bytes, true); }

extern "C" {
void __tsan_init() {}
void __tsan_func_entry(void *) {}
void __tsan_func_exit(void *) {}
void __tsan_vptr_update(void *, void *) {}
void __tsan_vptr_read(void *) {}
void __tsan_read_range(void *address, size_t bytes) { gn::emulator::touched(address, bytes, false); }
void __tsan_write_range(void *address, size_t bytes) { gn::emulator::touched(address, bytes, true); }
GN_ACCESS(1)
GN_ACCESS(2)
GN_ACCESS(4)
GN_ACCESS(8)
GN_ACCESS(16)
}
