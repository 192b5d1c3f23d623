// For hosts that only dlopen a library (ONNX Runtime's TensorRT provider, Triton, LD_PRELOAD): asked for by
// GN_DEPLOY_PLUGIN_REGISTER, the creators go into TensorRT's registry when the library is loaded. Nothing is linked.
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "creator.h"

namespace gn {
namespace {

// IPluginRegistry is not the same in TensorRT 10 and 11; where registerCreator(IPluginCreatorInterface &, namespace)
// stands in its table of virtual functions. Versions as getInferLibVersion tells them: 10000 major + 100 minor + patch.
struct Host {
    const char *library;
    int32_t first, last;
    int slot;
};
constexpr Host kHosts[] = {
    {"libnvinfer.so.10", 100300, 109999, 12},     // with IPluginV3OneBuildV2, so since 10.3
    {"libnvinfer.so.11", 110000, 119999, 8},
    {"libtensorrt_rtx.so.1", 10701, 19999, 8},    // 1.7.1 was looked at; older ones were not
};

void say(const char *what, const char *which) noexcept {
    Message message;
    message.say("GN_DEPLOY_PLUGIN_REGISTER: %s%s", what, which);
    report(nullptr, nvinfer1::ErrorCode::kFAILED_INITIALIZATION, message);
}

bool enter(void *library, const char *name) noexcept {
    const auto version = reinterpret_cast<int32_t (*)()>(dlsym(library, "getInferLibVersion"));
    const auto registry_of = reinterpret_cast<void *(*)()>(dlsym(library, "getPluginRegistry"));
    void *const registry = version != nullptr && registry_of != nullptr ? registry_of() : nullptr;
    if (registry == nullptr) return say("no plugin registry in ", name), false;
    for (const Host &host : kHosts) {
        if (version() < host.first || version() > host.last) continue;
        using Register = bool (*)(void *, nvinfer1::IPluginCreatorInterface &, const char *);
        const auto enter_one = reinterpret_cast<Register>((*static_cast<void ***>(registry))[host.slot]);
        bool all = true;
        for (int i = 0; i < kKinds; ++i) all = enter_one(registry, *creators()[i], kNamespace) && all;
        if (!all) say("the creators are in the registry already: ", name);
        return true;
    }
    return say("not a TensorRT whose registry is known: ", name), false;
}

// The registry keeps pointers into this library: it must not go when its handle is closed.
void stay() noexcept {
    Dl_info here;
    if (dladdr(reinterpret_cast<void *>(&stay), &here) != 0) dlopen(here.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
}

// "1": whatever TensorRT the process has loaded; else the name of one to load, for LD_PRELOAD, which comes before it.
__attribute__((constructor)) void enter_when_asked() noexcept {
    const char *asked = getenv("GN_DEPLOY_PLUGIN_REGISTER");
    if (asked == nullptr || *asked == '\0' || strcmp(asked, "0") == 0) return;
    bool entered = false;
    if (strcmp(asked, "1") == 0) {
        bool found = false;
        for (const Host &host : kHosts) {
            void *const library = dlopen(host.library, RTLD_NOW | RTLD_NOLOAD);
            if (library == nullptr) continue;
            found = true;
            entered = enter(library, host.library) || entered;
        }
        if (!found) say("no TensorRT is loaded yet: set it to the name of one to load, such as ", kHosts[0].library);
    } else if (void *const library = dlopen(asked, RTLD_NOW | RTLD_GLOBAL)) {
        entered = enter(library, asked);
    } else {
        say("", dlerror());
    }
    if (entered) stay();
}

}  // namespace
}  // namespace gn
