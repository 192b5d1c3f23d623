// Make the plugin, under each of its names, from the attributes of a node or from the fields of an engine.
#pragma once
#include "node.h"

namespace gn {

class Creator final : public nvinfer1::IPluginCreatorV3One {
   public:
    explicit Creator(int32_t kind) noexcept : kind_(kind) {}
    nvinfer1::IPluginV3 *createPlugin(const char *name, const nvinfer1::PluginFieldCollection *fields,
                                      nvinfer1::TensorRTPhase phase) noexcept override;
    const nvinfer1::PluginFieldCollection *getFieldNames() noexcept override { return &field_names(); }
    const char *getPluginName() const noexcept override { return kNames[kind_]; }
    const char *getPluginVersion() const noexcept override { return kVersion; }
    const char *getPluginNamespace() const noexcept override { return kNamespace; }

   private:
    const int32_t kind_;
};

// One for each of kNames.
nvinfer1::IPluginCreatorInterface *const *creators() noexcept;

}  // namespace gn
