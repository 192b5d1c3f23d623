// One table says what the attributes are called and may be; everything else walks over it.
#include "node.h"

#include <math.h>
#include <string.h>

using nvinfer1::PluginField;
using nvinfer1::PluginFieldCollection;
using nvinfer1::PluginFieldType;

namespace gn {
namespace {

constexpr const char *kActivations[] = {"none", "relu", "silu", "hardswish", "gelu", "gelu_tanh", "mish", nullptr};
constexpr const char *kOutputTypes[] = {"x", "int8", "float8e4m3fn", nullptr};
constexpr const char *kSerializationField = "serialization_version";

// An integer in [0, most], a float, or a word of which the place in `words` is kept.
struct Attribute {
    const char *name;
    int32_t Node::*integer;
    float Node::*real;
    const char *const *words;
    int64_t most;
};
constexpr Attribute kTable[kAttributes] = {
    {"num_groups", &Node::num_groups, nullptr, nullptr, INT32_MAX},
    {"epsilon", nullptr, &Node::epsilon, nullptr, 0},
    {"activation", &Node::activation, nullptr, kActivations, 0},
    {"channels_last", &Node::channels_last, nullptr, nullptr, 1},
    {"residual", &Node::residual, nullptr, nullptr, 1},
    {"modulation_scale", &Node::modulation_scale, nullptr, nullptr, 1},
    {"modulation_shift", &Node::modulation_shift, nullptr, nullptr, 1},
    {"sum", &Node::sum, nullptr, nullptr, 1},
    {"output_type", &Node::output_type, nullptr, kOutputTypes, 0},
    {"output_scale", nullptr, &Node::output_scale, nullptr, 0},
};

PluginFieldType type_of(const Attribute &a) noexcept {
    return a.words ? PluginFieldType::kCHAR : a.real ? PluginFieldType::kFLOAT32 : PluginFieldType::kINT32;
}

template <class T>
T at(const PluginField &field) noexcept {
    T value;
    memcpy(&value, field.data, sizeof value);
    return value;
}

bool read_integer(const PluginField &field, int64_t &value) noexcept {
    if (field.length != 1 || field.data == nullptr) return false;
    switch (field.type) {
        case PluginFieldType::kINT8: value = at<int8_t>(field); return true;
        case PluginFieldType::kINT16: value = at<int16_t>(field); return true;
        case PluginFieldType::kINT32: value = at<int32_t>(field); return true;
        case PluginFieldType::kINT64: value = at<int64_t>(field); return true;
        default: return false;
    }
}

bool read_real(const PluginField &field, float &value) noexcept {
    if (field.length != 1 || field.data == nullptr) return false;
    if (field.type == PluginFieldType::kFLOAT32) value = at<float>(field);
    if (field.type == PluginFieldType::kFLOAT64) value = static_cast<float>(at<double>(field));
    return field.type == PluginFieldType::kFLOAT32 || field.type == PluginFieldType::kFLOAT64;
}

bool read_word(const PluginField &field, const Attribute &attribute, Node &node, Message &message) noexcept {
    if (field.type != PluginFieldType::kCHAR || field.length < 0 || (field.data == nullptr && field.length > 0)) {
        return message.say("attribute '%s' must be a string", attribute.name);
    }
    const char *text = static_cast<const char *>(field.data);
    int length = field.length;
    while (length > 0 && text[length - 1] == '\0') --length;  // TensorRT's ONNX parser adds one
    for (int i = 0; attribute.words[i] != nullptr; ++i) {
        if (static_cast<int>(strlen(attribute.words[i])) == length && memcmp(attribute.words[i], text, length) == 0) {
            node.*attribute.integer = i;
            return true;
        }
    }
    Message known;
    for (const char *const *word = attribute.words; *word != nullptr; ++word) {
        size_t used = strlen(known.text);
        snprintf(known.text + used, sizeof known.text - used, "%s%s", used ? ", " : "", *word);
    }
    return message.say("attribute '%s' is '%.*s', which is not one of %s", attribute.name, length > 40 ? 40 : length,
                       text, known.text);
}

bool read_one(const PluginField &field, const Attribute &attribute, Node &node, Message &message) noexcept {
    if (attribute.words) return read_word(field, attribute, node, message);
    if (attribute.real) {
        return read_real(field, node.*attribute.real) ||
               message.say("attribute '%s' must be one float", attribute.name);
    }
    int64_t value = 0;
    if (!read_integer(field, value)) return message.say("attribute '%s' must be one integer", attribute.name);
    if (value < 0 || value > attribute.most) {
        return message.say("attribute '%s' is %lld, needed 0 to %lld", attribute.name, static_cast<long long>(value),
                           static_cast<long long>(attribute.most));
    }
    node.*attribute.integer = static_cast<int32_t>(value);
    return true;
}

bool agree(const Node &node, int32_t kind, Message &message) noexcept {
    if (node.num_groups < 1) return message.say("attribute 'num_groups' is %d, needed 1 or more", node.num_groups);
    if (!(node.epsilon >= 0 && isfinite(node.epsilon))) {
        return message.say("attribute 'epsilon' is %g, needed a number of 0 or more", node.epsilon);
    }
    if (node.quantized() && !(node.output_scale > 0 && isfinite(node.output_scale))) {
        return message.say("attribute 'output_scale' is %g, needed a number above 0", node.output_scale);
    }
    if (node.sum && !node.residual) return message.say("attribute 'sum' is 1 without a residual to add");
    if (node.kind() == kind) return true;
    return message.say("attributes sum=%d and output_type=%s are those of %s, not of %s", node.sum,
                       kOutputTypes[node.output_type], kNames[node.kind()], kNames[kind]);
}

int place_of(const char *name) noexcept {
    for (int i = 0; i < kAttributes; ++i) {
        if (strcmp(kTable[i].name, name) == 0) return i;
    }
    return -1;
}

}  // namespace

bool read(const PluginFieldCollection *fields, int32_t kind, bool serialized, Node &node, Message &message) noexcept {
    if (fields == nullptr || fields->nbFields < 0 || (fields->nbFields > 0 && fields->fields == nullptr)) {
        return message.say("no attributes given");
    }
    bool seen[kAttributes] = {};
    int64_t version = 0;
    for (int i = 0; i < fields->nbFields; ++i) {
        const PluginField &field = fields->fields[i];
        if (field.name == nullptr) return message.say("an attribute has no name");
        if (serialized && strcmp(field.name, kSerializationField) == 0) {
            if (!read_integer(field, version)) version = -1;
            continue;
        }
        const int place = place_of(field.name);
        if (place < 0) {
            // An engine of another version may hold what is unknown here: its version is the better answer.
            if (serialized) continue;
            return message.say("attribute '%.60s' is not known to version %s", field.name, kVersion);
        }
        if (seen[place]) return message.say("attribute '%s' is given twice", field.name);
        seen[place] = true;
        if (!read_one(field, kTable[place], node, message)) return false;
    }
    if (serialized && version != kSerializationVersion) {
        return message.say("the engine was built with fields of version %lld, this library reads version %d: build it "
                           "again, or load the library it was built with",
                           static_cast<long long>(version), kSerializationVersion);
    }
    for (int i = 0; i < kAttributes; ++i) {
        if (!seen[i] && (serialized || i == 0)) return message.say("attribute '%s' is missing", kTable[i].name);
    }
    return agree(node, kind, message);
}

const PluginFieldCollection &field_names() noexcept {
    static PluginField fields[kAttributes];
    static const PluginFieldCollection collection = [] {
        for (int i = 0; i < kAttributes; ++i) fields[i] = {kTable[i].name, nullptr, type_of(kTable[i]), 1};
        PluginFieldCollection all;
        all.nbFields = kAttributes;
        all.fields = fields;
        return all;
    }();
    return collection;
}

Fields::Fields(const Node &node) noexcept {
    for (int i = 0; i < kAttributes; ++i) {
        const Attribute &a = kTable[i];
        if (a.words) {
            const char *word = a.words[node.*a.integer];
            fields_[i] = {a.name, word, type_of(a), static_cast<int32_t>(strlen(word))};
        } else {
            const void *value = a.real ? static_cast<const void *>(&(node.*a.real)) : &(node.*a.integer);
            fields_[i] = {a.name, value, type_of(a), 1};
        }
    }
    fields_[kAttributes] = {kSerializationField, &kSerializationVersion, PluginFieldType::kINT32, 1};
    collection_.nbFields = kAttributes + 1;
    collection_.fields = fields_;
}

void describe(const Node &node, Message &text) noexcept {
    size_t used = 0;
    for (const Attribute &a : kTable) {
        char *const place = text.text + used;
        const size_t left = sizeof text.text - used;
        const char *comma = used ? "," : "";
        int more;
        if (a.words) {
            more = snprintf(place, left, "%s%s=%s", comma, a.name, a.words[node.*a.integer]);
        } else if (a.real) {
            more = snprintf(place, left, "%s%s=%.9g", comma, a.name, node.*a.real);  // 9 digits tell any two floats apart
        } else {
            more = snprintf(place, left, "%s%s=%d", comma, a.name, node.*a.integer);
        }
        if (more < 0 || static_cast<size_t>(more) >= left) return;
        used += static_cast<size_t>(more);
    }
}

}  // namespace gn
