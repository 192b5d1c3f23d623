// NCHW, f32: warp and split.
#include "nchw_instances.h"

template gn::Kernel gn::nchw_warp<GN_F32>(Epilogue, int);
template gn::Kernel gn::nchw_split<GN_F32>(Pass, Epilogue);
