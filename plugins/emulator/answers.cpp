// What kernels/launch.h asks, answered by the emulated GPU.
#include "../kernels/launch.h"

#include "launch.h"
#include "settings.h"

namespace gn {

std::string launch(Kernel kernel, const Grid &grid, const Arguments &arguments, void *) {
    emulator::Shape shape;
    shape.kernel = grid.name;
    shape.blocks = grid.blocks;
    shape.threads = static_cast<uint32_t>(grid.threads);
    shape.shared = static_cast<uint32_t>(grid.shared);
    shape.cluster = static_cast<uint32_t>(grid.cluster);
    shape.cooperative = grid.cooperative;
    shape.overlaps = grid.overlaps;
    const char *wrong = emulator::launch(shape, kernel, arguments);
    return wrong ? wrong : "";
}

std::string query(int ordinal, gn_device &device) {
    if (ordinal != 0) return "no CUDA device " + std::to_string(ordinal) + ": there is 1";
    device = emulator::settings.device;
    return "";
}

}  // namespace gn
