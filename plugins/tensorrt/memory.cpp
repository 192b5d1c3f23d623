// The same on the GPU.
#include "memory.h"

#include <cuda_runtime_api.h>

namespace gn {

static bool held(cudaError_t status, const char *what, Message &message) noexcept {
    return status == cudaSuccess || message.say("%s: %s", what, cudaGetErrorString(status));
}

bool current_device(gn_device *device, Message &message) noexcept {
    int ordinal = 0;
    if (!held(cudaGetDevice(&ordinal), "no current GPU", message)) return false;
    return gn_query_device(ordinal, device, message.text, sizeof message.text) == GN_OK;
}

void *allocate_zeroed(size_t bytes, Message &message) noexcept {
    void *memory = nullptr;
    if (!held(cudaMalloc(&memory, bytes), "no memory for the counters", message)) return nullptr;
    // Of the default stream, which does not order the others: waited for here, once for an execution context.
    if (held(cudaMemset(memory, 0, bytes), "counters not zeroed", message) &&
        held(cudaStreamSynchronize(cudaStreamLegacy), "counters not zeroed", message)) {
        return memory;
    }
    cudaFree(memory);
    return nullptr;
}

void release(void *memory) noexcept { cudaFree(memory); }

}  // namespace gn
