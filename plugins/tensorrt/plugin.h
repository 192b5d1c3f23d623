// The layer TensorRT sees: one object that is core, build and runtime capability at once.
#pragma once
#include <memory>

#include "node.h"

namespace gn {

// 32-bit integers for the counters and slots of teams: 256 KB, for all blocks of any GPU and a slab of some ten groups.
constexpr int32_t kCounters = 64 * 1024;

class GroupNorm final : public nvinfer1::IPluginV3,
                        public nvinfer1::IPluginV3OneCore,
                        public nvinfer1::IPluginV3OneBuildV2,
                        public nvinfer1::IPluginV3OneRuntime {
   public:
    explicit GroupNorm(const Node &node) noexcept;
    ~GroupNorm() noexcept override;

    nvinfer1::IPluginCapability *getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept override;
    nvinfer1::IPluginV3 *clone() noexcept override;

    const char *getPluginName() const noexcept override { return kNames[node_.kind()]; }
    const char *getPluginVersion() const noexcept override { return kVersion; }
    const char *getPluginNamespace() const noexcept override { return kNamespace; }

    int32_t configurePlugin(const nvinfer1::DynamicPluginTensorDesc *in, int32_t inputs,
                            const nvinfer1::DynamicPluginTensorDesc *out, int32_t outputs) noexcept override;
    int32_t getOutputDataTypes(nvinfer1::DataType *out, int32_t outputs, const nvinfer1::DataType *in,
                               int32_t inputs) const noexcept override;
    int32_t getOutputShapes(const nvinfer1::DimsExprs *in, int32_t inputs, const nvinfer1::DimsExprs *shape_inputs,
                            int32_t shapes, nvinfer1::DimsExprs *out, int32_t outputs,
                            nvinfer1::IExprBuilder &builder) noexcept override;
    bool supportsFormatCombination(int32_t pos, const nvinfer1::DynamicPluginTensorDesc *tensors, int32_t inputs,
                                   int32_t outputs) noexcept override;
    int32_t getNbOutputs() const noexcept override { return node_.outputs(); }
    size_t getWorkspaceSize(const nvinfer1::DynamicPluginTensorDesc *in, int32_t inputs,
                            const nvinfer1::DynamicPluginTensorDesc *out, int32_t outputs) const noexcept override;
    int32_t getNbTactics() noexcept override { return tactics_; }
    int32_t getValidTactics(int32_t *tactics, int32_t count) noexcept override;
    const char *getTimingCacheID() noexcept override { return timing_.text; }
    const char *getMetadataString() noexcept override { return attributes_.text; }
    // Every element of the sum is written by the thread that has read the residual's, so they may share memory.
    int32_t getAliasedInput(int32_t output) noexcept override { return output == 1 && node_.sum ? kResidual : -1; }

    int32_t setTactic(int32_t tactic) noexcept override;
    int32_t onShapeChange(const nvinfer1::PluginTensorDesc *in, int32_t inputs, const nvinfer1::PluginTensorDesc *out,
                          int32_t outputs) noexcept override;
    int32_t enqueue(const nvinfer1::PluginTensorDesc *in_desc, const nvinfer1::PluginTensorDesc *out_desc,
                    const void *const *in, void *const *out, void *workspace, cudaStream_t stream) noexcept override;
    nvinfer1::IPluginV3 *attachToContext(nvinfer1::IPluginResourceContext *context) noexcept override;
    const nvinfer1::PluginFieldCollection *getFieldsToSerialize() noexcept override { return &fields_.collection(); }

   private:
    struct Release {
        void operator()(void *memory) const noexcept;
    };

    int32_t fail(int32_t status, nvinfer1::ErrorCode code, const Message &message) const noexcept;
    // The kernel for these tensors; what was chosen before is kept as long as they and the tactic stay the same.
    int32_t prepare(const nvinfer1::PluginTensorDesc *in, const nvinfer1::PluginTensorDesc *out) noexcept;
    bool prepared_for(const nvinfer1::PluginTensorDesc *in, const nvinfer1::PluginTensorDesc *out) const noexcept;
    bool hold_counters(Message &message) noexcept;

    const Node node_;
    Fields fields_;
    Message attributes_, timing_;
    nvinfer1::IErrorRecorder *recorder_ = nullptr;
    int32_t tactic_ = 0;  // 0: what gn_select prefers; else a gn_variant, plus one
    int32_t tactics_ = 0, valid_[GN_VARIANTS] = {};

    bool prepared_ = false;
    nvinfer1::PluginTensorDesc tensors_[kMostTensors];
    gn_problem problem_{};
    gn_choice choice_{};
    std::unique_ptr<void, Release> counters_;  // of this execution context alone
};

}  // namespace gn
