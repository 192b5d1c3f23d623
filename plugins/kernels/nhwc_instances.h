// NHWC: the kernels that are compiled, by number.
#pragma once
#include "dispatch.h"
#include "nhwc_resident.h"
#include "nhwc_split.h"

namespace gn {

template <class Exchange, int dtype, Epilogue epilogue>
Kernel nhwc_resident_of(int vectors) {
    switch (vectors) {
        case kVectors[0]: return nhwc_resident_kernel<Exchange, dtype, epilogue, kVectors[0]>;
        case kVectors[1]: return nhwc_resident_kernel<Exchange, dtype, epilogue, kVectors[1]>;
        case kVectors[2]: return nhwc_resident_kernel<Exchange, dtype, epilogue, kVectors[2]>;
        default: return nullptr;
    }
}

template <class Exchange, int dtype>
Kernel nhwc_resident_of(Epilogue epilogue, int vectors) {
    switch (epilogue) {
        case kPlain: return nhwc_resident_of<Exchange, dtype, kPlain>(vectors);
        case kSilu: return nhwc_resident_of<Exchange, dtype, kSilu>(vectors);
        default: return nhwc_resident_of<Exchange, dtype, kAny>(vectors);
    }
}

template <int dtype>
Kernel nhwc_resident(gn_variant variant, Epilogue epilogue, int vectors) {
    return variant == GN_TEAM ? nhwc_resident_of<Team, dtype>(epilogue, vectors)
                              : nhwc_resident_of<Cluster, dtype>(epilogue, vectors);
}

template <int dtype>
Kernel nhwc_split(Pass pass, Epilogue epilogue) {
    if (pass == kStatistics) return nhwc_statistics_kernel<dtype>;
    switch (epilogue) {
        case kPlain: return nhwc_apply_kernel<dtype, kPlain>;
        case kSilu: return nhwc_apply_kernel<dtype, kSilu>;
        default: return nhwc_apply_kernel<dtype, kAny>;
    }
}

}  // namespace gn
