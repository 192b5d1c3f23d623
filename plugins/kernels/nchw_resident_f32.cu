// NCHW, f32: block, cluster and team.
#include "nchw_instances.h"

template gn::Kernel gn::nchw_resident<GN_F32>(gn_variant, Epilogue, int);
