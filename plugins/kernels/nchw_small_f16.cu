// NCHW, f16: warp and split.
#include "nchw_instances.h"

template gn::Kernel gn::nchw_warp<GN_F16>(Epilogue, int);
template gn::Kernel gn::nchw_split<GN_F16>(Pass, Epilogue);
