// The attributes of a node of domain gn_deploy: read from TensorRT's fields, checked, written back, told in words.
#pragma once
#include "../kernels/gn.h"
#include "interface.h"
#include "message.h"

namespace gn {

constexpr const char *kVersion = "1", *kNamespace = "gn_deploy";

// One plugin under four names: TensorRT looks for a plugin, and for the function body where none is loaded, by name
// alone, and a function has one list of outputs. Skip has the sum as second output, Quantize has y not of x's type.
constexpr const char *kNames[] = {"GroupNorm", "SkipGroupNorm", "GroupNormQuantize", "SkipGroupNormQuantize"};
constexpr int kSkip = 1, kQuantize = 2, kKinds = 4;

// Of the fields an engine keeps; another number means that engine and library do not belong together.
constexpr int32_t kSerializationVersion = 1;

enum Output : int32_t { kLikeX, kInt8, kE4m3 };

// Inputs: always x, scale, bias, residual, s and t, since one function body serves every node; of the last three those
// count of which the attribute is 1, what stands for the others is never read. Outputs: y, and in Skip the sum.
constexpr int kInputs = 6, kResidual = 3, kModulationScale = 4, kModulationShift = 5, kMostTensors = 8;
struct Node {
    int32_t num_groups = 0;
    float epsilon = 1e-5f;
    int32_t activation = GN_NONE;
    int32_t channels_last = 0;
    int32_t residual = 0;
    int32_t modulation_scale = 0;
    int32_t modulation_shift = 0;
    int32_t sum = 0;
    int32_t output_type = kLikeX;
    float output_scale = 1;

    bool quantized() const noexcept { return output_type != kLikeX; }
    int32_t kind() const noexcept { return (sum ? kSkip : 0) + (quantized() ? kQuantize : 0); }
    int32_t outputs() const noexcept { return 1 + sum; }
    // Whether an input is one of those that count.
    bool reads(int32_t input) const noexcept {
        return input < kResidual || (input == kResidual && residual) || (input == kModulationScale && modulation_scale) ||
               (input == kModulationShift && modulation_shift);
    }
};

constexpr int kAttributes = 10;

// From a model, where an absent attribute is its default, or with `serialized` from an engine, where all must be there.
bool read(const nvinfer1::PluginFieldCollection *fields, int32_t kind, bool serialized, Node &node,
          Message &message) noexcept;

// What createPlugin understands, without values.
const nvinfer1::PluginFieldCollection &field_names() noexcept;

// The fields an engine keeps; they point into this object and into `node`, which must outlive them.
class Fields {
   public:
    explicit Fields(const Node &node) noexcept;
    const nvinfer1::PluginFieldCollection &collection() const noexcept { return collection_; }
    Fields(const Fields &) = delete;
    Fields &operator=(const Fields &) = delete;

   private:
    nvinfer1::PluginField fields_[kAttributes + 1];
    nvinfer1::PluginFieldCollection collection_;
};

// "num_groups=32,epsilon=9.99999975e-06,activation=silu,...": different for different nodes.
void describe(const Node &node, Message &text) noexcept;

}  // namespace gn
