// What tests have set, and what they may ask after a launch.
#pragma once
#include <string>

#include "../kernels/gn.h"

namespace gn::emulator {

struct Settings {
    // An H200, with as few multiprocessors as make its teams quick to emulate.
    gn_device device{90, 8, 65536, 232448, 233472, 2048, 60 << 20, 8, 1};
    int64_t first_block = 0, end_block = 0;
    std::string error;
};

extern Settings settings;

}  // namespace gn::emulator
