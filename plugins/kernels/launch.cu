// Launches by CUDA's runtime, linked statically; nothing is allocated, waited for or remembered.
#include <cuda_runtime.h>

#include "launch.h"
#include "tiles.h"

namespace gn {
namespace {

// CUDA's words; and the error is not left behind for whoever asks next.
std::string told(const char *what, cudaError_t error) {
    cudaGetLastError();
    return std::string(what) + ": " + cudaGetErrorString(error);
}

int attribute(cudaDeviceAttr name, int ordinal, cudaError_t &error) {
    int value = 0;
    const cudaError_t now = cudaDeviceGetAttribute(&value, name, ordinal);
    if (error == cudaSuccess) error = now;
    return value;
}

}  // namespace

std::string launch(Kernel kernel, const Grid &grid, const Arguments &arguments, void *stream) {
    cudaLaunchAttribute attributes[3];
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(static_cast<unsigned>(grid.blocks));
    config.blockDim = dim3(static_cast<unsigned>(grid.threads));
    config.dynamicSmemBytes = static_cast<size_t>(grid.shared);
    config.stream = static_cast<cudaStream_t>(stream);
    config.attrs = attributes;
    if (grid.cluster > 1) {
        cudaLaunchAttribute &cluster = attributes[config.numAttrs++];
        cluster.id = cudaLaunchAttributeClusterDimension;
        cluster.val.clusterDim.x = static_cast<unsigned>(grid.cluster);
        cluster.val.clusterDim.y = cluster.val.clusterDim.z = 1;
    }
    if (grid.cooperative) {
        cudaLaunchAttribute &cooperative = attributes[config.numAttrs++];
        cooperative.id = cudaLaunchAttributeCooperative;
        cooperative.val.cooperative = 1;
    }
    if (grid.overlaps) {
        cudaError_t error = cudaSuccess;
        int device = 0;
        error = cudaGetDevice(&device);
        if (attribute(cudaDevAttrComputeCapabilityMajor, device, error) >= 9 && error == cudaSuccess) {
            cudaLaunchAttribute &overlap = attributes[config.numAttrs++];
            overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
            overlap.val.programmaticStreamSerializationAllowed = 1;
        }
    }
    const void *function = reinterpret_cast<const void *>(kernel);
    if (grid.shared > kSharedBytes) {
        // All there is, whatever is needed, as another thread may be launching the same kernel with more.
        cudaError_t error = cudaSuccess;
        int device = 0;
        error = cudaGetDevice(&device);
        const int most = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, device, error);
        if (error == cudaSuccess) error = cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize, most);
        if (error == cudaSuccess)
            error = cudaFuncSetAttribute(function, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared);
        if (error != cudaSuccess) return told(grid.name, error);
    }
    void *parameters[] = {const_cast<Arguments *>(&arguments)};
    const cudaError_t error = cudaLaunchKernelExC(&config, function, parameters);
    return error == cudaSuccess ? "" : told(grid.name, error);
}

std::string query(int ordinal, gn_device &device) {
    int count = 0;
    cudaError_t error = cudaGetDeviceCount(&count);
    if (error != cudaSuccess) return told("no CUDA device", error);
    if (ordinal < 0 || ordinal >= count)
        return "no CUDA device " + std::to_string(ordinal) + ": there are " + std::to_string(count);
    const auto get = [&](cudaDeviceAttr name) { return attribute(name, ordinal, error); };
    device.compute_capability = 10 * get(cudaDevAttrComputeCapabilityMajor) + get(cudaDevAttrComputeCapabilityMinor);
    device.multiprocessors = get(cudaDevAttrMultiProcessorCount);
    device.registers = get(cudaDevAttrMaxRegistersPerMultiprocessor);
    device.shared_per_block = get(cudaDevAttrMaxSharedMemoryPerBlockOptin);
    device.shared = get(cudaDevAttrMaxSharedMemoryPerMultiprocessor);
    device.threads = get(cudaDevAttrMaxThreadsPerMultiProcessor);
    device.l2 = get(cudaDevAttrL2CacheSize);
    device.cluster_blocks = get(cudaDevAttrClusterLaunch) ? 8 : 1;
    device.cooperative = get(cudaDevAttrCooperativeLaunch);
    return error == cudaSuccess ? "" : told("the device does not tell what it is", error);
}

}  // namespace gn
