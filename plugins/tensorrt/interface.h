// TensorRT's plugin interface: NVIDIA's headers where they are found, our own declarations of the same ABI elsewhere.
#pragma once
#if defined(GN_OWN_ABI) || !__has_include(<NvInferRuntime.h>)
#include "abi.h"
#define GN_HEADERS "own declarations"
#else
#include <NvInferRuntime.h>
#define GN_TEXT_OF(number) #number
#define GN_TEXT(number) GN_TEXT_OF(number)
#define GN_HEADERS "TensorRT " GN_TEXT(NV_TENSORRT_MAJOR) "." GN_TEXT(NV_TENSORRT_MINOR)
#endif

// What crosses the boundary by value or in arrays: a header that says otherwise is of another ABI.
static_assert(sizeof(nvinfer1::Dims) == 72, "Dims");
static_assert(sizeof(nvinfer1::PluginTensorDesc) == 88, "PluginTensorDesc");
static_assert(sizeof(nvinfer1::DynamicPluginTensorDesc) == 304, "DynamicPluginTensorDesc");
static_assert(sizeof(nvinfer1::PluginField) == 24, "PluginField");
static_assert(sizeof(nvinfer1::PluginFieldCollection) == 16, "PluginFieldCollection");
static_assert(sizeof(nvinfer1::DimsExprs) == 72, "DimsExprs");
static_assert(sizeof(nvinfer1::IDimensionExpr) == 16, "IDimensionExpr");
static_assert(sizeof(nvinfer1::IPluginV3) == 8, "IPluginV3");
static_assert(sizeof(nvinfer1::IPluginV3OneBuildV2) == 8, "IPluginV3OneBuildV2");
static_assert(sizeof(nvinfer1::IPluginCreatorV3One) == 8, "IPluginCreatorV3One");
static_assert(int(nvinfer1::DataType::kFP8) == 6 && int(nvinfer1::DataType::kBF16) == 7, "DataType");
static_assert(int(nvinfer1::TensorFormat::kHWC16) == 11 && int(nvinfer1::TensorFormat::kDHWC) == 12, "TensorFormat");
static_assert(int(nvinfer1::PluginFieldType::kINT64) == 10, "PluginFieldType");
static_assert(int(nvinfer1::ErrorCode::kFAILED_EXECUTION) == 7, "ErrorCode");
