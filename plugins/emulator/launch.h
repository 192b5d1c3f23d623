// A kernel's launch on the emulated GPU: runs it to its end before it returns.
#pragma once
#include <tuple>

#include "machine.h"

namespace gn::emulator {

// Null, or what went wrong; the text lives until the next launch.
template <class... Parameters, class... Arguments>
const char *launch(const Shape &shape, void (*kernel)(Parameters...), const Arguments &...arguments) {
    struct Closure {
        void (*kernel)(Parameters...);
        std::tuple<Parameters...> parameters;
    } closure{kernel, {arguments...}};
    return run(
        shape,
        [](void *opaque) {
            const Closure &closure = *static_cast<Closure *>(opaque);
            std::apply(closure.kernel, closure.parameters);
        },
        &closure);
}

}  // namespace gn::emulator
