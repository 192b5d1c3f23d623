// What the host asks of CUDA: launch.cu answers on a GPU, emulator/answers.cpp on the emulated one.
#pragma once
#include <string>

#include "dispatch.h"

namespace gn {

struct Grid {
    const char *name;  // for messages
    int64_t blocks;
    int threads, shared;  // of a block; bytes
    int cluster;          // blocks
    bool cooperative;     // all blocks are resident at once
    bool overlaps;        // may start before the launch before has ended: it waits itself
};

// Empty, or why not, in one line.
std::string launch(Kernel kernel, const Grid &grid, const Arguments &arguments, void *stream);
std::string query(int ordinal, gn_device &device);

}  // namespace gn
