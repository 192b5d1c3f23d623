// The part of TensorRT's binary interface that a V3 plugin meets, for people without NvInferRuntime.h: the same from
// TensorRT 10.3 to 11 and in TensorRT-RTX. Names and the order of virtual functions are NVIDIA's, the text is ours.
#pragma once
#include <stddef.h>
#include <stdint.h>

struct CUstream_st;
using cudaStream_t = CUstream_st *;

namespace nvinfer1 {

using AsciiChar = char;

enum class DataType : int32_t { kFLOAT, kHALF, kINT8, kINT32, kBOOL, kUINT8, kFP8, kBF16, kINT64, kINT4 };
enum class TensorFormat : int32_t {
    kLINEAR,
    kCHW2,
    kHWC8,
    kCHW4,
    kCHW16,
    kCHW32,
    kDHWC8,
    kCDHW32,
    kHWC,
    kDLA_LINEAR,
    kDLA_HWC4,
    kHWC16,
    kDHWC
};
enum class APILanguage : int32_t { kCPP, kPYTHON };
enum class TensorRTPhase : int32_t { kBUILD, kRUNTIME };
enum class PluginCapabilityType : int32_t { kCORE, kBUILD, kRUNTIME };
enum class DimensionOperation : int32_t { kSUM, kPROD, kMAX, kMIN, kSUB, kEQUAL, kLESS, kFLOOR_DIV, kCEIL_DIV };
enum class ErrorCode : int32_t {
    kSUCCESS,
    kUNSPECIFIED_ERROR,
    kINTERNAL_ERROR,
    kINVALID_ARGUMENT,
    kINVALID_CONFIG,
    kFAILED_ALLOCATION,
    kFAILED_INITIALIZATION,
    kFAILED_EXECUTION
};
enum class PluginFieldType : int32_t {
    kFLOAT16,
    kFLOAT32,
    kFLOAT64,
    kINT8,
    kINT16,
    kINT32,
    kCHAR,
    kDIMS,
    kUNKNOWN,
    kBF16,
    kINT64,
    kFP8,
    kINT4
};

class Dims64 {
   public:
    static constexpr int32_t MAX_DIMS = 8;
    int32_t nbDims;
    int64_t d[MAX_DIMS];
};
using Dims = Dims64;

struct PluginTensorDesc {
    Dims dims;
    DataType type;
    TensorFormat format;
    float scale;
};
struct DynamicPluginTensorDesc {
    PluginTensorDesc desc;
    Dims min, max, opt;
};

class PluginField {
   public:
    AsciiChar const *name;
    void const *data;
    PluginFieldType type;
    int32_t length;

    PluginField(AsciiChar const *name_ = nullptr, void const *data_ = nullptr,
                PluginFieldType type_ = PluginFieldType::kUNKNOWN, int32_t length_ = 0) noexcept
        : name(name_), data(data_), type(type_), length(length_) {}
};
struct PluginFieldCollection {
    int32_t nbFields{};
    PluginField const *fields{};
};

class InterfaceInfo {
   public:
    char const *kind;
    int32_t major, minor;
};
class IVersionedInterface {
   public:
    virtual APILanguage getAPILanguage() const noexcept { return APILanguage::kCPP; }
    virtual InterfaceInfo getInterfaceInfo() const noexcept = 0;
    virtual ~IVersionedInterface() noexcept = default;
};

class IErrorRecorder : public IVersionedInterface {
   public:
    InterfaceInfo getInterfaceInfo() const noexcept override { return {"IErrorRecorder", 1, 0}; }
    virtual int32_t getNbErrors() const noexcept = 0;
    virtual ErrorCode getErrorCode(int32_t index) const noexcept = 0;
    virtual char const *getErrorDesc(int32_t index) const noexcept = 0;
    virtual bool hasOverflowed() const noexcept = 0;
    virtual void clear() noexcept = 0;
    virtual bool reportError(ErrorCode code, char const *description) noexcept = 0;
    virtual int32_t incRefCount() noexcept = 0;
    virtual int32_t decRefCount() noexcept = 0;
};

class IGpuAllocator;
class ILoggerFinder;
class IPluginRegistry;

class IPluginResourceContext {
   public:
    virtual IGpuAllocator *getGpuAllocator() const noexcept = 0;
    virtual IErrorRecorder *getErrorRecorder() const noexcept = 0;
    virtual ~IPluginResourceContext() noexcept = default;
};

// Expressions of sizes. TensorRT's own classes hold a pointer to what computes them, and that is what is called.
namespace apiv {
class VRoot {
   public:
    virtual ~VRoot() noexcept = default;
};
class VDimensionExpr : public VRoot {
   public:
    virtual bool isConstant() const = 0;
    virtual int64_t getConstantValue() const = 0;
    virtual bool isSizeTensor() const = 0;
};
class VExprBuilder;
}  // namespace apiv

class IDimensionExpr {
   public:
    bool isConstant() const noexcept { return mImpl->isConstant(); }
    int64_t getConstantValue() const noexcept { return mImpl->getConstantValue(); }
    bool isSizeTensor() const noexcept { return mImpl->isSizeTensor(); }

   protected:
    apiv::VDimensionExpr *mImpl;
    virtual ~IDimensionExpr() noexcept = default;
};

namespace apiv {
class VExprBuilder : public VRoot {
   public:
    virtual IDimensionExpr const *constant(int64_t value) = 0;
    virtual IDimensionExpr const *operation(DimensionOperation op, IDimensionExpr const &first,
                                            IDimensionExpr const &second) = 0;
    virtual IDimensionExpr const *declareSizeTensor(int32_t output, IDimensionExpr const &opt,
                                                    IDimensionExpr const &upper) = 0;
};
}  // namespace apiv

class IExprBuilder {
   public:
    IDimensionExpr const *constant(int64_t value) noexcept { return mImpl->constant(value); }
    IDimensionExpr const *operation(DimensionOperation op, IDimensionExpr const &first,
                                    IDimensionExpr const &second) noexcept {
        return mImpl->operation(op, first, second);
    }

   protected:
    apiv::VExprBuilder *mImpl;
    virtual ~IExprBuilder() noexcept = default;
};

class DimsExprs {
   public:
    int32_t nbDims;
    IDimensionExpr const *d[Dims::MAX_DIMS];
};

class IPluginCapability : public IVersionedInterface {};

class IPluginV3 : public IVersionedInterface {
   public:
    InterfaceInfo getInterfaceInfo() const noexcept override { return {"PLUGIN", 1, 0}; }
    virtual IPluginCapability *getCapabilityInterface(PluginCapabilityType type) noexcept = 0;
    virtual IPluginV3 *clone() noexcept = 0;
};

class IPluginV3OneCore : public IPluginCapability {
   public:
    InterfaceInfo getInterfaceInfo() const noexcept override { return {"PLUGIN_V3ONE_CORE", 1, 0}; }
    virtual AsciiChar const *getPluginName() const noexcept = 0;
    virtual AsciiChar const *getPluginVersion() const noexcept = 0;
    virtual AsciiChar const *getPluginNamespace() const noexcept = 0;
};

class IPluginV3OneBuild : public IPluginCapability {
   public:
    static constexpr int32_t kDEFAULT_FORMAT_COMBINATION_LIMIT = 100;

    InterfaceInfo getInterfaceInfo() const noexcept override { return {"PLUGIN_V3ONE_BUILD", 1, 0}; }
    virtual int32_t configurePlugin(DynamicPluginTensorDesc const *in, int32_t nbInputs,
                                    DynamicPluginTensorDesc const *out, int32_t nbOutputs) noexcept = 0;
    virtual int32_t getOutputDataTypes(DataType *outputTypes, int32_t nbOutputs, DataType const *inputTypes,
                                       int32_t nbInputs) const noexcept = 0;
    virtual int32_t getOutputShapes(DimsExprs const *inputs, int32_t nbInputs, DimsExprs const *shapeInputs,
                                    int32_t nbShapeInputs, DimsExprs *outputs, int32_t nbOutputs,
                                    IExprBuilder &exprBuilder) noexcept = 0;
    virtual bool supportsFormatCombination(int32_t pos, DynamicPluginTensorDesc const *inOut, int32_t nbInputs,
                                           int32_t nbOutputs) noexcept = 0;
    virtual int32_t getNbOutputs() const noexcept = 0;
    virtual size_t getWorkspaceSize(DynamicPluginTensorDesc const *, int32_t, DynamicPluginTensorDesc const *,
                                    int32_t) const noexcept {
        return 0;
    }
    virtual int32_t getValidTactics(int32_t *, int32_t) noexcept { return 0; }
    virtual int32_t getNbTactics() noexcept { return 0; }
    virtual char const *getTimingCacheID() noexcept { return nullptr; }
    virtual int32_t getFormatCombinationLimit() noexcept { return kDEFAULT_FORMAT_COMBINATION_LIMIT; }
    virtual char const *getMetadataString() noexcept { return nullptr; }
};

class IPluginV3OneBuildV2 : public IPluginV3OneBuild {
   public:
    InterfaceInfo getInterfaceInfo() const noexcept override { return {"PLUGIN_V3ONE_BUILD", 2, 0}; }
    virtual int32_t getAliasedInput(int32_t) noexcept { return -1; }
};

class IPluginV3OneRuntime : public IPluginCapability {
   public:
    InterfaceInfo getInterfaceInfo() const noexcept override { return {"PLUGIN_V3ONE_RUNTIME", 1, 0}; }
    virtual int32_t setTactic(int32_t) noexcept { return 0; }
    virtual int32_t onShapeChange(PluginTensorDesc const *in, int32_t nbInputs, PluginTensorDesc const *out,
                                  int32_t nbOutputs) noexcept = 0;
    virtual int32_t enqueue(PluginTensorDesc const *inputDesc, PluginTensorDesc const *outputDesc,
                            void const *const *inputs, void *const *outputs, void *workspace,
                            cudaStream_t stream) noexcept = 0;
    virtual IPluginV3 *attachToContext(IPluginResourceContext *context) noexcept = 0;
    virtual PluginFieldCollection const *getFieldsToSerialize() noexcept = 0;
};

class IPluginCreatorInterface : public IVersionedInterface {};

class IPluginCreatorV3One : public IPluginCreatorInterface {
   public:
    InterfaceInfo getInterfaceInfo() const noexcept override { return {"PLUGIN CREATOR_V3ONE", 1, 0}; }
    virtual IPluginV3 *createPlugin(AsciiChar const *name, PluginFieldCollection const *fc,
                                    TensorRTPhase phase) noexcept = 0;
    virtual PluginFieldCollection const *getFieldNames() noexcept = 0;
    virtual AsciiChar const *getPluginName() const noexcept = 0;
    virtual AsciiChar const *getPluginVersion() const noexcept = 0;
    virtual AsciiChar const *getPluginNamespace() const noexcept = 0;
};

}  // namespace nvinfer1
