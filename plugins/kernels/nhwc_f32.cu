// NHWC, f32.
#include "nhwc_instances.h"

template gn::Kernel gn::nhwc_resident<GN_F32>(gn_variant, Epilogue, int);
template gn::Kernel gn::nhwc_split<GN_F32>(Pass, Epilogue);
