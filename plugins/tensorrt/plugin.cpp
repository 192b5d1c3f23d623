// What TensorRT asks while it builds and runs an engine, answered by the functions of gn.h. Nothing is thrown from here.
#include "plugin.h"

#include <string.h>

#include <initializer_list>
#include <new>

#include "about.h"
#include "memory.h"
#include "tensors.h"

using nvinfer1::DataType;
using nvinfer1::Dims;
using nvinfer1::DimsExprs;
using nvinfer1::DynamicPluginTensorDesc;
using nvinfer1::ErrorCode;
using nvinfer1::IPluginCapability;
using nvinfer1::IPluginV3;
using nvinfer1::PluginCapabilityType;
using nvinfer1::PluginTensorDesc;

namespace gn {
namespace {

enum Bound { kSmallest, kUsual, kLargest };

// The problem at one end of an optimization profile, or at its usual sizes.
bool problem_at(const Node &node, Bound bound, const DynamicPluginTensorDesc *in, int32_t inputs,
                const DynamicPluginTensorDesc *out, int32_t outputs, gn_problem *problem, Message &message) noexcept {
    if (in == nullptr || out == nullptr) return message.say("no tensors given");
    if (!counts_fit(node, inputs, outputs, message)) return false;
    PluginTensorDesc tensors[kMostTensors];
    for (int i = 0; i < inputs + outputs; ++i) {
        const DynamicPluginTensorDesc &tensor = i < inputs ? in[i] : out[i - inputs];
        tensors[i] = tensor.desc;
        tensors[i].dims = bound == kSmallest ? tensor.min : bound == kUsual ? tensor.opt : tensor.max;
    }
    return problem_of(node, tensors, inputs, tensors + inputs, outputs, problem, message);
}

bool same(const PluginTensorDesc &a, const PluginTensorDesc &b) noexcept {
    return a.type == b.type && a.format == b.format && a.dims.nbDims == b.dims.nbDims &&
           memcmp(a.dims.d, b.dims.d, sizeof(a.dims.d[0]) * static_cast<size_t>(a.dims.nbDims)) == 0;
}

}  // namespace

void GroupNorm::Release::operator()(void *memory) const noexcept { release(memory); }

GroupNorm::GroupNorm(const Node &node) noexcept : node_(node), fields_(node_) {
    describe(node_, attributes_);
    timing_.say("%s;%s", attributes_.text, kLibraryVersion);  // a new library may be faster or slower
}

GroupNorm::~GroupNorm() noexcept = default;

int32_t GroupNorm::fail(int32_t status, ErrorCode code, const Message &message) const noexcept {
    report(recorder_, code, message);
    return status;
}

IPluginCapability *GroupNorm::getCapabilityInterface(PluginCapabilityType type) noexcept {
    switch (type) {
        case PluginCapabilityType::kCORE: return static_cast<nvinfer1::IPluginV3OneCore *>(this);
        case PluginCapabilityType::kBUILD: return static_cast<nvinfer1::IPluginV3OneBuildV2 *>(this);
        case PluginCapabilityType::kRUNTIME: return static_cast<nvinfer1::IPluginV3OneRuntime *>(this);
    }
    return nullptr;
}

IPluginV3 *GroupNorm::clone() noexcept {
    GroupNorm *copy = new (std::nothrow) GroupNorm(node_);
    if (copy == nullptr) return nullptr;
    copy->tactic_ = tactic_;
    copy->tactics_ = tactics_;
    memcpy(copy->valid_, valid_, sizeof valid_);
    return copy;
}

int32_t GroupNorm::configurePlugin(const DynamicPluginTensorDesc *in, int32_t inputs, const DynamicPluginTensorDesc *out,
                                   int32_t outputs) noexcept try {
    Message message;
    gn_problem problem;
    // All sizes of the profile must pose a problem, not only those that are timed.
    for (Bound bound : {kSmallest, kLargest, kUsual}) {
        if (!problem_at(node_, bound, in, inputs, out, outputs, &problem, message)) {
            return fail(GN_BAD_PROBLEM, ErrorCode::kINVALID_ARGUMENT, message);
        }
        if (const int status = gn_check(&problem, message.text, sizeof message.text)) {
            return fail(status, ErrorCode::kINVALID_ARGUMENT, message);
        }
    }
    tactics_ = 0;
    prepared_ = false;
    gn_device device;
    if (!current_device(&device, message)) return 0;  // building for another GPU: the choice is made where it runs
    for (int variant = 0; variant < GN_VARIANTS; ++variant) {
        gn_choice choice;
        if (gn_select(&problem, &device, variant, &choice, nullptr, 0) == GN_OK && choice.counters <= kCounters) {
            valid_[tactics_++] = variant + 1;
        }
    }
    return 0;
} catch (...) {
    Message message;
    message.say("out of memory while the layer was configured");
    return fail(GN_BAD_PROBLEM, ErrorCode::kFAILED_ALLOCATION, message);
}

int32_t GroupNorm::getOutputDataTypes(DataType *out, int32_t outputs, const DataType *in,
                                      int32_t inputs) const noexcept {
    Message message;
    if (out == nullptr || in == nullptr ? !message.say("no tensors given")
                                        : !counts_fit(node_, inputs, outputs, message)) {
        return fail(GN_BAD_PROBLEM, ErrorCode::kINVALID_ARGUMENT, message);
    }
    out[0] = node_.output_type == kInt8 ? DataType::kINT8 : node_.output_type == kE4m3 ? DataType::kFP8 : in[0];
    if (node_.sum) out[1] = in[0];
    return 0;
}

int32_t GroupNorm::getOutputShapes(const DimsExprs *in, int32_t inputs, const DimsExprs *, int32_t, DimsExprs *out,
                                   int32_t outputs, nvinfer1::IExprBuilder &) noexcept {
    Message message;
    if (in == nullptr || out == nullptr) {
        message.say("no tensors given");
        return fail(GN_BAD_PROBLEM, ErrorCode::kINVALID_ARGUMENT, message);
    }
    if (!shapes_fit(node_, in, inputs, outputs, message)) {
        return fail(GN_BAD_PROBLEM, ErrorCode::kINVALID_ARGUMENT, message);
    }
    for (int i = 0; i < outputs; ++i) out[i] = in[0];
    return 0;
}

bool GroupNorm::supportsFormatCombination(int32_t pos, const DynamicPluginTensorDesc *tensors, int32_t inputs,
                                          int32_t outputs) noexcept {
    return tensors != nullptr && inputs == kInputs && outputs == node_.outputs() && supported(node_, pos, tensors);
}

size_t GroupNorm::getWorkspaceSize(const DynamicPluginTensorDesc *in, int32_t inputs, const DynamicPluginTensorDesc *out,
                                   int32_t outputs) const noexcept {
    Message message;
    gn_problem largest;
    if (!problem_at(node_, kLargest, in, inputs, out, outputs, &largest, message)) {
        fail(GN_BAD_PROBLEM, ErrorCode::kINVALID_ARGUMENT, message);
        return 0;
    }
    gn_device device;
    const bool here = current_device(&device, message);
    return workspace_of(largest, here ? &device : nullptr);
}

int32_t GroupNorm::getValidTactics(int32_t *tactics, int32_t count) noexcept {
    if (tactics == nullptr || count != tactics_) {
        Message message;
        message.say("%d tactics are asked for, there are %d", count, tactics_);
        return fail(GN_BAD_PROBLEM, ErrorCode::kINVALID_ARGUMENT, message);
    }
    memcpy(tactics, valid_, sizeof valid_[0] * static_cast<size_t>(tactics_));
    return 0;
}

int32_t GroupNorm::setTactic(int32_t tactic) noexcept {
    if (tactic < 0 || tactic > GN_VARIANTS) {
        Message message;
        message.say("there is no tactic %d, only 0 to %d", tactic, static_cast<int>(GN_VARIANTS));
        return fail(GN_BAD_PROBLEM, ErrorCode::kINVALID_ARGUMENT, message);
    }
    prepared_ = prepared_ && tactic == tactic_;
    tactic_ = tactic;
    return 0;
}

bool GroupNorm::prepared_for(const PluginTensorDesc *in, const PluginTensorDesc *out) const noexcept {
    if (!prepared_) return false;
    for (int i = 0; i < kInputs + node_.outputs(); ++i) {
        if (!same(tensors_[i], i < kInputs ? in[i] : out[i - kInputs])) return false;
    }
    return true;
}

int32_t GroupNorm::prepare(const PluginTensorDesc *in, const PluginTensorDesc *out) noexcept try {
    prepared_ = false;
    Message message;
    if (!problem_of(node_, in, kInputs, out, node_.outputs(), &problem_, message)) {
        return fail(GN_BAD_PROBLEM, ErrorCode::kINVALID_ARGUMENT, message);
    }
    if (const int status = gn_check(&problem_, message.text, sizeof message.text)) {
        return fail(status, ErrorCode::kINVALID_ARGUMENT, message);
    }
    gn_device device;
    if (!current_device(&device, message)) return fail(GN_LAUNCH_FAILED, ErrorCode::kFAILED_INITIALIZATION, message);
    // What was timed at the usual sizes may not suit these, and what is preferred may want too many counters.
    int status = GN_NOT_SUITED;
    for (int variant : {tactic_ - 1, -1, static_cast<int>(GN_SPLIT)}) {
        status = gn_select(&problem_, &device, variant, &choice_, message.text, sizeof message.text);
        if (status == GN_OK && choice_.counters <= kCounters) break;
    }
    if (status != GN_OK) return fail(status, ErrorCode::kINVALID_ARGUMENT, message);
    if (choice_.counters > 0 && !hold_counters(message)) {
        return fail(GN_LAUNCH_FAILED, ErrorCode::kFAILED_ALLOCATION, message);
    }
    for (int i = 0; i < kInputs + node_.outputs(); ++i) tensors_[i] = i < kInputs ? in[i] : out[i - kInputs];
    prepared_ = true;
    return 0;
} catch (...) {
    Message message;
    message.say("out of memory while a kernel was chosen");
    return fail(GN_LAUNCH_FAILED, ErrorCode::kFAILED_ALLOCATION, message);
}

bool GroupNorm::hold_counters(Message &message) noexcept {
    if (!counters_) counters_.reset(allocate_zeroed(sizeof(uint32_t) * kCounters, message));
    return static_cast<bool>(counters_);
}

int32_t GroupNorm::onShapeChange(const PluginTensorDesc *in, int32_t inputs, const PluginTensorDesc *out,
                                 int32_t outputs) noexcept {
    Message message;
    if (in == nullptr || out == nullptr ? !message.say("no tensors given")
                                        : !counts_fit(node_, inputs, outputs, message)) {
        return fail(GN_BAD_PROBLEM, ErrorCode::kINVALID_ARGUMENT, message);
    }
    return prepared_for(in, out) ? 0 : prepare(in, out);
}

int32_t GroupNorm::enqueue(const PluginTensorDesc *in_desc, const PluginTensorDesc *out_desc, const void *const *in,
                           void *const *out, void *workspace, cudaStream_t stream) noexcept try {
    Message message;
    if (in_desc == nullptr || out_desc == nullptr || in == nullptr || out == nullptr) {
        message.say("no tensors given");
        return fail(GN_BAD_POINTER, ErrorCode::kINVALID_ARGUMENT, message);
    }
    if (!prepared_for(in_desc, out_desc)) {
        if (const int32_t status = prepare(in_desc, out_desc)) return status;
    }
    if (problem_.samples == 0 || problem_.channels == 0 || problem_.positions == 0) return 0;
    const auto input = [&](int32_t place) { return node_.reads(place) ? in[place] : nullptr; };
    gn_buffers buffers{};
    buffers.x = in[0];
    buffers.scale = in[1];
    buffers.bias = in[2];
    buffers.residual = input(kResidual);
    buffers.modulation_scale = input(kModulationScale);
    buffers.modulation_shift = input(kModulationShift);
    buffers.y = out[0];
    buffers.sum = node_.sum ? out[1] : nullptr;
    buffers.workspace = workspace;
    buffers.counters = static_cast<uint32_t *>(counters_.get());
    const int status = gn_enqueue(&problem_, &choice_, &buffers, stream, message.text, sizeof message.text);
    if (status == GN_OK) return 0;
    return fail(status, status == GN_LAUNCH_FAILED ? ErrorCode::kFAILED_EXECUTION : ErrorCode::kINVALID_ARGUMENT,
                message);
} catch (...) {
    Message message;
    message.say("out of memory while a kernel was launched");
    return fail(GN_LAUNCH_FAILED, ErrorCode::kFAILED_ALLOCATION, message);
}

IPluginV3 *GroupNorm::attachToContext(nvinfer1::IPluginResourceContext *context) noexcept {
    GroupNorm *attached = static_cast<GroupNorm *>(clone());
    if (attached == nullptr) return nullptr;
    attached->recorder_ = context == nullptr ? nullptr : context->getErrorRecorder();
    Message message;
    if (!attached->hold_counters(message)) {  // now, since memory cannot be had while a stream is captured
        attached->fail(GN_LAUNCH_FAILED, ErrorCode::kFAILED_ALLOCATION, message);
        delete attached;
        return nullptr;
    }
    return attached;
}

}  // namespace gn
