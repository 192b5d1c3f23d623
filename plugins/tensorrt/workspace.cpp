// How much workspace to ask for, when the sizes, the variant and even the GPU may be others at run time.
#include <algorithm>

#include "tensors.h"

namespace gn {
namespace {

// The GPU with the most multiprocessors of each generation, and one with few: more of them means more, smaller parts.
constexpr gn_device kDevices[] = {
    {75, 72, 65536, 65536, 65536, 1024, 6 << 20, 1, 1},        // Quadro RTX 8000
    {80, 108, 65536, 166912, 167936, 2048, 40 << 20, 1, 1},    // A100
    {86, 84, 65536, 101376, 102400, 1536, 6 << 20, 1, 1},      // A40
    {89, 142, 65536, 101376, 102400, 1536, 96 << 20, 1, 1},    // L40S
    {90, 132, 65536, 232448, 233472, 2048, 50 << 20, 8, 1},    // H100, H200
    {100, 148, 65536, 232448, 233472, 2048, 126 << 20, 8, 1},  // B200
    {120, 188, 65536, 101376, 102400, 1536, 128 << 20, 8, 1},  // RTX PRO 6000
    {120, 20, 65536, 101376, 102400, 1536, 24 << 20, 8, 1},    // RTX 5050
};

size_t room(const gn_problem &largest, const gn_device &device) {
    int64_t workspace = 0;
    int32_t counters = 0;
    gn_room(&largest, &device, &workspace, &counters);
    return static_cast<size_t>(workspace);
}

}  // namespace

size_t workspace_of(const gn_problem &largest, const gn_device *here) noexcept try {
    size_t bytes = here == nullptr ? 0 : room(largest, *here);
    for (const gn_device &device : kDevices) bytes = std::max(bytes, room(largest, device));
    return bytes;
} catch (...) {
    return 0;
}

}  // namespace gn
