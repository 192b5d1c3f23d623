// NHWC, bf16.
#include "nhwc_instances.h"

template gn::Kernel gn::nhwc_resident<GN_BF16>(gn_variant, Epilogue, int);
template gn::Kernel gn::nhwc_split<GN_BF16>(Pass, Epilogue);
