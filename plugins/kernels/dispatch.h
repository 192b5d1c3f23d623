// The compiled kernels by name: each function stands in a file of its own, so that they compile side by side.
#pragma once
#include "arguments.h"
#include "gn.h"

namespace gn {

using Kernel = void (*)(const Arguments);

// How a kernel treats its result: two cases of their own, and one that asks at run time for activation and type of y.
enum Epilogue { kPlain, kSilu, kAny };
enum Pass { kStatistics, kApply };

// Null where no such instance is compiled. `dtype` of x; `vectors` and `pass` as in tiles.h and gn_choice.
template <int dtype>
Kernel nchw_warp(Epilogue epilogue, int vectors);
template <int dtype>
Kernel nchw_resident(gn_variant variant, Epilogue epilogue, int vectors);
template <int dtype>
Kernel nchw_split(Pass pass, Epilogue epilogue);
template <int dtype>
Kernel nhwc_resident(gn_variant variant, Epilogue epilogue, int vectors);
template <int dtype>
Kernel nhwc_split(Pass pass, Epilogue epilogue);

}  // namespace gn
