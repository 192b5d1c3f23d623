// NHWC, f16.
#include "nhwc_instances.h"

template gn::Kernel gn::nhwc_resident<GN_F16>(gn_variant, Epilogue, int);
template gn::Kernel gn::nhwc_split<GN_F16>(Pass, Epilogue);
