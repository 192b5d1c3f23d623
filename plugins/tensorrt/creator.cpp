// Null, and a message that names the layer, for attributes that make no sense.
#include "creator.h"

#include <new>

#include "plugin.h"

namespace gn {

nvinfer1::IPluginV3 *Creator::createPlugin(const char *name, const nvinfer1::PluginFieldCollection *fields,
                                           nvinfer1::TensorRTPhase phase) noexcept {
    Node node;
    Message message, whole;
    if (read(fields, kind_, phase == nvinfer1::TensorRTPhase::kRUNTIME, node, message)) {
        GroupNorm *plugin = new (std::nothrow) GroupNorm(node);
        if (plugin != nullptr) return plugin;
        message.say("out of memory");
    }
    whole.say("layer '%.80s': %.400s", name == nullptr ? "" : name, message.text);
    report(nullptr, nvinfer1::ErrorCode::kINVALID_ARGUMENT, whole);
    return nullptr;
}

nvinfer1::IPluginCreatorInterface *const *creators() noexcept {
    static Creator plain(0), skip(kSkip), quantize(kQuantize), both(kSkip + kQuantize);
    static nvinfer1::IPluginCreatorInterface *const all[kKinds] = {&plain, &skip, &quantize, &both};
    return all;
}

}  // namespace gn
