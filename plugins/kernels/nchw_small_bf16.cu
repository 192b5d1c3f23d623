// NCHW, bf16: warp and split.
#include "nchw_instances.h"

template gn::Kernel gn::nchw_warp<GN_BF16>(Epilogue, int);
template gn::Kernel gn::nchw_split<GN_BF16>(Pass, Epilogue);
