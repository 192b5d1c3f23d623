// NCHW: the kernels that are compiled, by number.
#pragma once
#include "dispatch.h"
#include "nchw_resident.h"
#include "nchw_split.h"
#include "nchw_warp.h"

namespace gn {

template <class Exchange, int dtype, Epilogue epilogue>
Kernel nchw_resident_of(int vectors) {
    switch (vectors) {
        case kVectors[0]: return nchw_resident_kernel<Exchange, dtype, epilogue, kVectors[0]>;
        case kVectors[1]: return nchw_resident_kernel<Exchange, dtype, epilogue, kVectors[1]>;
        case kVectors[2]: return nchw_resident_kernel<Exchange, dtype, epilogue, kVectors[2]>;
        default: return nullptr;
    }
}

template <class Exchange, int dtype>
Kernel nchw_resident_of(Epilogue epilogue, int vectors) {
    switch (epilogue) {
        case kPlain: return nchw_resident_of<Exchange, dtype, kPlain>(vectors);
        case kSilu: return nchw_resident_of<Exchange, dtype, kSilu>(vectors);
        default: return nchw_resident_of<Exchange, dtype, kAny>(vectors);
    }
}

template <int dtype>
Kernel nchw_resident(gn_variant variant, Epilogue epilogue, int vectors) {
    return variant == GN_TEAM ? nchw_resident_of<Team, dtype>(epilogue, vectors)
                              : nchw_resident_of<Cluster, dtype>(epilogue, vectors);
}

template <int dtype, Epilogue epilogue>
Kernel nchw_warp_of(int vectors) {
    switch (vectors) {
        case kWarpVectors[0]: return nchw_warp_kernel<dtype, epilogue, kWarpVectors[0]>;
        case kWarpVectors[1]: return nchw_warp_kernel<dtype, epilogue, kWarpVectors[1]>;
        case kWarpVectors[2]: return nchw_warp_kernel<dtype, epilogue, kWarpVectors[2]>;
        default: return nullptr;
    }
}

template <int dtype>
Kernel nchw_warp(Epilogue epilogue, int vectors) {
    switch (epilogue) {
        case kPlain: return nchw_warp_of<dtype, kPlain>(vectors);
        case kSilu: return nchw_warp_of<dtype, kSilu>(vectors);
        default: return nchw_warp_of<dtype, kAny>(vectors);
    }
}

template <int dtype>
Kernel nchw_split(Pass pass, Epilogue epilogue) {
    if (pass == kStatistics) return nchw_statistics_kernel<dtype>;
    switch (epilogue) {
        case kPlain: return nchw_apply_kernel<dtype, kPlain>;
        case kSilu: return nchw_apply_kernel<dtype, kSilu>;
        default: return nchw_apply_kernel<dtype, kAny>;
    }
}

}  // namespace gn
