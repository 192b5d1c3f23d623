// The little a plugin needs of the CUDA runtime; the harness of the tests brings its own, on host memory.
#pragma once
#include <stddef.h>

#include "../kernels/gn.h"
#include "message.h"

namespace gn {

// The device that is current in this thread.
bool current_device(gn_device *device, Message &message) noexcept;

// Zeroed when it returns; null, with a message, when there is none.
void *allocate_zeroed(size_t bytes, Message &message) noexcept;
void release(void *memory) noexcept;

}  // namespace gn
