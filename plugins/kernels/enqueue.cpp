// gn_enqueue and gn_query_device: pointers are checked, arguments filled in, and the compiled kernels looked up.
#include <math.h>
#include <stdint.h>

#include "fill.h"
#include "launch.h"
#include "message.h"

using namespace gn;

namespace {

uintptr_t number(const void *address) { return reinterpret_cast<uintptr_t>(address); }

// Empty, or which pointer is wrong and how.
std::string wrong(const gn_problem &p, const gn_choice &c, const gn_buffers &b) {
    const int x = element_bytes(p.dtype), parameter = element_bytes(p.parameter_dtype);
    const struct {
        const char *name;
        const void *address;
        bool needed;
        int alignment;
    } pointers[] = {
        {"x", b.x, true, x},
        {"residual", b.residual, p.has_residual != 0, x},
        {"scale", b.scale, (p.has_affine & 1) != 0, parameter},
        {"bias", b.bias, (p.has_affine & 2) != 0, parameter},
        {"modulation_scale", b.modulation_scale, (p.has_modulation & 1) != 0, parameter},
        {"modulation_shift", b.modulation_shift, (p.has_modulation & 2) != 0, parameter},
        {"y", b.y, true, element_bytes(p.output_dtype)},
        {"sum", b.sum, p.has_sum != 0, x},
        {"workspace", b.workspace, c.workspace > 0, kVectorBytes},
        {"counters", b.counters, c.counters > 0, kVectorBytes},
    };
    for (const auto &pointer : pointers) {
        if (!pointer.needed) continue;
        if (pointer.address == nullptr) return std::string(pointer.name) + " is null";
        if (number(pointer.address) % static_cast<uintptr_t>(pointer.alignment))
            return std::string(pointer.name) + " is not aligned to " + std::to_string(pointer.alignment) + " bytes";
    }
    return "";
}

template <int dtype>
Kernel find(const gn_problem &p, const gn_choice &c, Epilogue epilogue, Pass pass) {
    const gn_variant variant = static_cast<gn_variant>(c.variant);
    const bool rows = p.layout == GN_NHWC;
    if (variant == GN_WARP) return rows ? nullptr : nchw_warp<dtype>(epilogue, c.vectors);
    if (variant == GN_SPLIT) return rows ? nhwc_split<dtype>(pass, epilogue) : nchw_split<dtype>(pass, epilogue);
    return rows ? nhwc_resident<dtype>(variant, epilogue, c.vectors) : nchw_resident<dtype>(variant, epilogue, c.vectors);
}

Kernel kernel_of(const gn_problem &p, const gn_choice &c, Pass pass) {
    const Epilogue epilogue = epilogue_of(p);
    if (p.dtype == GN_F32) return find<GN_F32>(p, c, epilogue, pass);
    return p.dtype == GN_F16 ? find<GN_F16>(p, c, epilogue, pass) : find<GN_BF16>(p, c, epilogue, pass);
}

}  // namespace

extern "C" int gn_enqueue(const gn_problem *problem, const gn_choice *choice, const gn_buffers *buffers, void *stream,
                          char *message, size_t size) {
    const gn_problem &p = *problem;
    const gn_choice &c = *choice;
    const int status = gn_check(problem, message, size);
    if (status != GN_OK) return status;
    if (p.samples == 0 || p.channels == 0 || p.positions == 0) return GN_OK;
    const std::string text = wrong(p, c, *buffers);
    if (!text.empty()) return tell(GN_BAD_POINTER, text, message, size);
    if (c.blocks < 1 || c.slices < 1 || c.slab < 1)
        return tell(GN_NOT_SUITED, "the choice was made for an empty problem", message, size);

    const Arguments arguments = arguments_of(p, c, *buffers);
    Grid grid{gn_variant_name(c.variant), c.blocks, c.threads, c.shared, 1, false, false};
    if (c.variant == GN_CLUSTER) grid.cluster = c.slices;
    if (c.variant == GN_TEAM) grid.cooperative = true;
    for (const Pass pass : {kStatistics, kApply}) {
        if (c.variant == GN_SPLIT) {
            grid.name = pass == kStatistics ? "statistics" : "apply";
            // The sum is read by loads that a compiler may move before the wait: written by the launch before, it waits.
            grid.overlaps = pass == kApply && !p.has_sum;
        } else if (pass == kStatistics) {
            continue;
        }
        const Kernel kernel = kernel_of(p, c, pass);
        if (kernel == nullptr)
            return tell(GN_NOT_SUITED, std::string(grid.name) + " is not compiled for this problem", message, size);
        const std::string why = launch(kernel, grid, arguments, stream);
        if (!why.empty()) return tell(GN_LAUNCH_FAILED, why, message, size);
    }
    return GN_OK;
}

extern "C" int gn_query_device(int ordinal, gn_device *device, char *message, size_t size) {
    const std::string why = query(ordinal, *device);
    return why.empty() ? static_cast<int>(GN_OK) : tell(GN_LAUNCH_FAILED, why, message, size);
}
