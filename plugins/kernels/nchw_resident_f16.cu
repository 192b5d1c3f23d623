// NCHW, f16: block, cluster and team.
#include "nchw_instances.h"

template gn::Kernel gn::nchw_resident<GN_F16>(gn_variant, Epilogue, int);
