// What TensorRT looks for in a library of plugins.
#include "creator.h"

#define GN_EXPORT extern "C" __attribute__((visibility("default")))

GN_EXPORT nvinfer1::IPluginCreatorInterface *const *getCreators(int32_t &count) noexcept {
    count = gn::kKinds;
    return gn::creators();
}

// Demanded of every library. The logger it would find is not used: its interface is not the same in TensorRT 10 and 11.
GN_EXPORT void setLoggerFinder(nvinfer1::ILoggerFinder *) noexcept {}
