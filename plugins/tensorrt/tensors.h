// Which types and formats go together, and what problem the tensors of a layer pose to the kernels.
#pragma once
#include "node.h"

namespace gn {

bool counts_fit(const Node &node, int32_t inputs, int32_t outputs, Message &message) noexcept;

// Whether tensor `pos` (inputs first, then outputs) may have the type and format it has, given those before it.
bool supported(const Node &node, int32_t pos, const nvinfer1::DynamicPluginTensorDesc *tensors) noexcept;

// The problem of these tensors, sizes known; false, with a message that names the tensor, when they do not fit.
bool problem_of(const Node &node, const nvinfer1::PluginTensorDesc *in, int32_t inputs,
                const nvinfer1::PluginTensorDesc *out, int32_t outputs, gn_problem *problem, Message &message) noexcept;

// What is known of the sizes when the layer is added: ranks, and whatever is constant.
bool shapes_fit(const Node &node, const nvinfer1::DimsExprs *in, int32_t inputs, int32_t outputs,
                Message &message) noexcept;

// Enough for this problem and any with fewer samples or positions, whatever the variant, here and on other GPUs.
size_t workspace_of(const gn_problem &largest, const gn_device *here) noexcept;

}  // namespace gn
