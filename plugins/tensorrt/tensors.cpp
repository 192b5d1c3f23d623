// TensorRT's descriptions of tensors against what the kernels take.
#include "tensors.h"

using nvinfer1::DataType;
using nvinfer1::Dims;
using nvinfer1::DimsExprs;
using nvinfer1::PluginTensorDesc;
using nvinfer1::TensorFormat;

namespace gn {
namespace {

constexpr int kUnknown = -1;  // a size that is not known yet

const char *const kInputNames[kInputs] = {"x", "scale", "bias", "residual", "modulation_scale", "modulation_shift"};

// Channels of a format are padded to a multiple of this many; 0 when the format does not suit the type and rank.
// HWC formats take the third last dimension for the channels and DHWC the fourth last, so they mean (N, C, H, W) and
// (N, C, D, H, W) only. Types as in the comments of NvInferRuntime.h.
int padding(const Node &node, int rank, DataType type, TensorFormat format) noexcept {
    if (format == TensorFormat::kLINEAR) return rank >= 2 ? 1 : 0;
    if (node.channels_last) return 0;
    const bool half = type == DataType::kHALF || type == DataType::kBF16;
    const bool quantized = type == DataType::kINT8 || type == DataType::kFP8;
    switch (format) {
        case TensorFormat::kHWC: return rank == 4 && type == DataType::kFLOAT ? 1 : 0;
        case TensorFormat::kHWC8: return rank == 4 && half ? 8 : 0;
        case TensorFormat::kHWC16: return rank == 4 && (type == DataType::kHALF || quantized) ? 16 : 0;
        case TensorFormat::kDHWC: return rank == 5 && type == DataType::kFLOAT ? 1 : 0;
        case TensorFormat::kDHWC8: return rank == 5 && half ? 8 : 0;
        default: return 0;
    }
}

bool floating(DataType type) noexcept {
    return type == DataType::kFLOAT || type == DataType::kHALF || type == DataType::kBF16;
}

DataType output_type(const Node &node, DataType x) noexcept {
    return node.output_type == kInt8 ? DataType::kINT8 : node.output_type == kE4m3 ? DataType::kFP8 : x;
}

gn_dtype dtype_of(DataType type) noexcept {
    switch (type) {
        case DataType::kHALF: return GN_F16;
        case DataType::kBF16: return GN_BF16;
        case DataType::kINT8: return GN_I8;
        case DataType::kFP8: return GN_E4M3;
        default: return GN_F32;
    }
}

int64_t rounded_up(int64_t value, int64_t multiple) noexcept { return (value + multiple - 1) / multiple * multiple; }

// Sizes as far as they are known, however TensorRT tells them.
struct Shape {
    int32_t rank;
    int64_t size[Dims::MAX_DIMS];
};
Shape shape_of(const Dims &dims) noexcept {
    Shape shape{dims.nbDims, {}};
    for (int i = 0; i < dims.nbDims && i < Dims::MAX_DIMS; ++i) shape.size[i] = dims.d[i] < 0 ? kUnknown : dims.d[i];
    return shape;
}
Shape shape_of(const DimsExprs &dims) noexcept {
    Shape shape{dims.nbDims, {}};
    for (int i = 0; i < dims.nbDims && i < Dims::MAX_DIMS; ++i) {
        const bool known = dims.d[i] != nullptr && dims.d[i]->isConstant();
        shape.size[i] = known ? dims.d[i]->getConstantValue() : kUnknown;
    }
    return shape;
}

bool differ(int64_t a, int64_t b) noexcept { return a != kUnknown && b != kUnknown && a != b; }

bool same(const Shape &a, const Shape &b) noexcept {
    if (a.rank != b.rank) return false;
    for (int i = 0; i < a.rank; ++i) {
        if (differ(a.size[i], b.size[i])) return false;
    }
    return true;
}

void write(const Shape &shape, Message &text) noexcept {
    size_t used = 0;
    for (int i = 0; i < shape.rank && used < sizeof text.text; ++i) {
        const char *comma = i ? "," : "";
        const int more = shape.size[i] == kUnknown
                             ? snprintf(text.text + used, sizeof text.text - used, "%s?", comma)
                             : snprintf(text.text + used, sizeof text.text - used, "%s%lld", comma,
                                        static_cast<long long>(shape.size[i]));
        used += static_cast<size_t>(more);
    }
}

// (N, C), or of any rank with ones besides, the channels where x has them: it is broadcast against x in the graph.
bool per_sample(const Node &node, const Shape &tensor, const Shape &x, int64_t channels) noexcept {
    if (tensor.rank < 2 || differ(tensor.size[0], x.size[0])) return false;
    const int channel_axis = node.channels_last ? tensor.rank - 1 : 1;
    for (int axis = 1; axis < tensor.rank; ++axis) {
        if (differ(tensor.size[axis], axis == channel_axis ? channels : 1)) return false;
    }
    return true;
}

// x (N, C, ...) or (N, ..., C), residual of the same shape, scale and bias (C,), modulation for each sample.
bool fit(const Node &node, const Shape *in, int32_t inputs, int32_t outputs, Message &message) noexcept {
    if (!counts_fit(node, inputs, outputs, message)) return false;
    for (int i = 0; i < inputs; ++i) {
        if (in[i].rank < 0 || in[i].rank > Dims::MAX_DIMS) return message.say("%s has no rank", kInputNames[i]);
    }
    const Shape &x = in[0];
    Message shape, other;
    write(x, shape);
    if (x.rank < 2) return message.say("x has shape (%s), needed (N, C, ...), at least two axes", shape.text);
    const int64_t channels = x.size[node.channels_last ? x.rank - 1 : 1];
    if (channels != kUnknown && channels % node.num_groups != 0) {
        return message.say("x has shape (%s): %lld channels do not divide into %d groups", shape.text,
                           static_cast<long long>(channels), node.num_groups);
    }
    for (int i = 1; i < inputs; ++i) {
        if (!node.reads(i)) continue;
        write(in[i], other);
        if (i < kResidual) {
            if (in[i].rank != 1 || differ(in[i].size[0], channels)) {
                return message.say("%s has shape (%s), needed one number for each channel of x (%s)", kInputNames[i],
                                   other.text, shape.text);
            }
        } else if (i == kResidual) {
            if (!same(in[i], x)) return message.say("residual has shape (%s), x has (%s)", other.text, shape.text);
        } else {
            if (!per_sample(node, in[i], x, channels)) {
                return message.say("%s has shape (%s), needed (N, C) or (N, %s) of x (%s)", kInputNames[i], other.text,
                                   node.channels_last ? "1, ..., C" : "C, 1, ...", shape.text);
            }
        }
    }
    return true;
}

}  // namespace

bool counts_fit(const Node &node, int32_t inputs, int32_t outputs, Message &message) noexcept {
    if (inputs == kInputs && outputs == node.outputs()) return true;
    return message.say("the layer has %d inputs and %d outputs, %s has %d and %d", inputs, outputs, kNames[node.kind()],
                       kInputs, node.outputs());
}

bool supported(const Node &node, int32_t pos, const nvinfer1::DynamicPluginTensorDesc *tensors) noexcept {
    if (pos < 0 || pos >= kInputs + node.outputs()) return false;
    const PluginTensorDesc &x = tensors[0].desc, &tensor = tensors[pos].desc;
    const bool linear = tensor.format == TensorFormat::kLINEAR;
    switch (pos) {
        case 0:
            if (!floating(x.type) || padding(node, x.dims.nbDims, x.type, x.format) == 0) return false;
            // There is no 8-bit format of 3-D data with the channels last: the answer about x must be no already.
            return !node.quantized() || x.dims.nbDims != 5 || linear;
        case 1: return linear && (tensor.type == DataType::kFLOAT || tensor.type == x.type);
        case kResidual: return tensor.type == x.type && (node.residual ? tensor.format == x.format : linear);
        case kInputs:
            if (!node.quantized()) return tensor.type == x.type && tensor.format == x.format;
            if (tensor.type != output_type(node, x.type)) return false;
            return x.format == TensorFormat::kLINEAR ? linear : tensor.format == TensorFormat::kHWC16;
        case kInputs + 1: return tensor.type == x.type && tensor.format == x.format;
        default: return linear && tensor.type == tensors[1].desc.type;
    }
}

bool problem_of(const Node &node, const PluginTensorDesc *in, int32_t inputs, const PluginTensorDesc *out,
                int32_t outputs, gn_problem *problem, Message &message) noexcept {
    if (in == nullptr || out == nullptr) return message.say("no tensors given");
    Shape shapes[kInputs] = {};
    for (int i = 0; i < inputs && i < kInputs; ++i) shapes[i] = shape_of(in[i].dims);
    if (!fit(node, shapes, inputs, outputs, message)) return false;
    const Shape &x = shapes[0];
    Message shape;
    write(x, shape);
    for (int i = 0; i < inputs; ++i) {
        for (int axis = 0; axis < shapes[i].rank; ++axis) {
            if (node.reads(i) && shapes[i].size[axis] == kUnknown) return message.say("sizes of %s are not known yet", kInputNames[i]);
        }
    }
    for (int i = 0; i < outputs; ++i) {
        if (!same(shape_of(out[i].dims), x)) {
            write(shape_of(out[i].dims), shape);
            return message.say("output %d has shape (%s), which is not that of x", i, shape.text);
        }
    }
    nvinfer1::DynamicPluginTensorDesc tensors[kMostTensors];
    for (int i = 0; i < inputs + outputs; ++i) {
        tensors[i].desc = i < inputs ? in[i] : out[i - inputs];
        if (!supported(node, i, tensors)) {
            return message.say("tensor %d has type %d and format %d, which do not go with those before it", i,
                               static_cast<int>(tensors[i].desc.type), static_cast<int>(tensors[i].desc.format));
        }
    }

    const bool last = node.channels_last || in[0].format != TensorFormat::kLINEAR;
    const int channel_axis = node.channels_last ? x.rank - 1 : 1;
    gn_problem p{};
    p.samples = x.size[0];
    p.channels = x.size[channel_axis];
    p.positions = 1;
    for (int axis = 1; axis < x.rank; ++axis) p.positions *= axis == channel_axis ? 1 : x.size[axis];
    p.layout = last ? GN_NHWC : GN_NCHW;
    p.pitch = rounded_up(p.channels, padding(node, x.rank, in[0].type, in[0].format));
    p.output_pitch = rounded_up(p.channels, padding(node, x.rank, out[0].type, out[0].format));
    p.groups = node.num_groups;
    p.epsilon = node.epsilon;
    p.dtype = dtype_of(in[0].type);
    p.parameter_dtype = dtype_of(in[1].type);
    p.output_dtype = dtype_of(out[0].type);
    p.activation = node.activation;
    p.output_scale = node.output_scale;
    p.has_residual = node.residual;
    p.has_sum = node.sum;
    p.has_affine = 3;
    p.has_modulation = node.modulation_scale | node.modulation_shift << 1;
    *problem = p;
    return true;
}

bool shapes_fit(const Node &node, const DimsExprs *in, int32_t inputs, int32_t outputs, Message &message) noexcept {
    Shape shapes[kInputs] = {};
    for (int i = 0; i < inputs && i < kInputs; ++i) shapes[i] = shape_of(in[i]);
    return fit(node, shapes, inputs, outputs, message);
}

}  // namespace gn
