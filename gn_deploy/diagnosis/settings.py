"""What can be switched off in each runtime, and what a user writes to do so."""

from dataclasses import dataclass, field
from typing import Any

RULES: tuple[str, ...] = tuple(
    # rewrite rules of level 1 and 2
    """
    Pad_Fusion ConvAddFusion ConvMulFusion ConvBNFusion MatMul_BatchNormalization_Fusion DivMulFusion FuseReluClip
    GemmSumFusion GemmTransposeFusion NotWhereFusion CastElimination CastChainElimination EliminateIdentity
    EliminateSlice EliminateDropout UnsqueezeElimination ExpandElimination PreShapeNodeElimination NoopElimination
    LabelEncoderFusion ClipQuantRewrite ReluQuantRewrite
    """.split()
    # graph transformers of level 1
    + """
    ConstantFolding ConstantSharing CommonSubexpressionElimination DoubleQDQPairsRemover MatMulAddFusion ReshapeFusion
    GeluFusionL1 LayerNormFusionL1 QDQPropagationTransformer WeightBiasQuantization EnsureUniqueDQForNodeUnit
    GatherToSliceFusion GatherSliceToSplitFusion SliceConcatToSpaceToDepthFusion TransposeOptimizer
    FreeDimensionOverrideTransformer SaveShapeValuesFromDataPropagation
    """.split()
    # of level 2
    + """
    QDQS8ToU8Transformer Avx2WeightS8ToU8Transformer QDQSelectorActionTransformer QDQFinalCleanupTransformer
    GemmActivationFusion MatMulIntegerToFloatFusion DynamicQuantizeMatMulFusion ConvActivationFusion
    ConvAddActivationFusion GeluFusionL2 LayerNormFusionL2 SimplifiedLayerNormFusion AttentionFusion
    EmbedLayerNormFusion GatherToSplitFusion MatmulTransposeFusion BiasGeluFusion GroupQueryAttentionFusion
    GroupQueryAttentionPreNormFusion SkipLayerNormFusion BiasSkipLayerNormFusion FastGeluFusion QuickGeluFusion
    SwiGluFusion BiasSoftmaxFusion BiasDropoutFusion MatMulScaleFusion MatMulActivationFusion MatMulNBitsFusion
    DQMatMulNBitsFusion MatMulNBitsMlpFusion MatMulNBitsQkvFusion MatMulNBitsQLoRAFusion GeluApproximation
    IdenticalChildrenConsolidation DoubleQDQPairsRemover
    """.split()
    # of level 3, layouts
    + "NchwcTransformer NhwcTransformer GqaValueLayoutTransformer".split()
    # these stand for many of the above, and so come last
    + "Level1_RuleBasedTransformer Level2_RuleBasedTransformer".split()
)
"""Names that ONNX Runtime's ``disabled_optimizers`` knows, which no call lists; one it does not know has no effect.

From ``onnxruntime/core/optimizer/graph_transformer_utils.cc`` and the constructors of the classes it names (read at
microsoft/onnxruntime main), and from the text in the library of the releases 1.31 and 1.32."""

LEVELS = ("none", "basic", "extended", "layout", "all")
"""Of ``optimization``, each with all that the ones before it do."""
LEVEL_NAMES = {
    "none": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "layout": "ORT_ENABLE_LAYOUT",
    "all": "ORT_ENABLE_ALL",
}


@dataclass(frozen=True, slots=True)
class Setting:
    """``options`` are what ``Runtime.open`` takes to do without it; ``remedy`` what a user writes."""

    name: str
    kind: str
    remedy: str
    options: dict[str, Any] = field(default_factory=dict)


def _entry(key: str, value: str, what: str) -> Setting:
    code = f'options.add_session_config_entry("{key}", "{value}")'
    return Setting(what, "execution option", code, {"config": {key: value}})


def _property(key: str, value: object, what: str, kind: str) -> Setting:
    code = f'core.compile_model(model, "CPU", {{"{key}": {value!r}}})'
    return Setting(what, kind, code, {"properties": {key: value}})


EXECUTION: dict[str, tuple[Setting, ...]] = {
    "onnxruntime": (
        Setting("more than one thread", "execution option", "options.intra_op_num_threads = 1", {"threads": 1}),
        _entry("session.disable_prepacking", "1", "weights packed beforehand"),
        _entry("session.x64quantprecision", "1", "8-bit products whose sums of two may overflow 16 bits"),
        _entry("session.disable_aot_function_inlining", "1", "functions inlined beforehand"),
        _entry("session.disable_quant_qdq", "1", "quantized kernels for QDQ"),
        _entry("mlas.qnbit.force_fp32", "1", "4-bit kernels below float32"),
    ),
    "openvino": (
        _property("INFERENCE_PRECISION_HINT", "f32", "INFERENCE_PRECISION_HINT", "precision hint"),
        _property("EXECUTION_MODE_HINT", "ACCURACY", "EXECUTION_MODE_HINT=PERFORMANCE", "precision hint"),
        _property("DYNAMIC_QUANTIZATION_GROUP_SIZE", 0, "DYNAMIC_QUANTIZATION_GROUP_SIZE", "precision hint"),
        _property("KV_CACHE_PRECISION", "f32", "KV_CACHE_PRECISION", "precision hint"),
        _property("CPU_DENORMALS_OPTIMIZATION", False, "CPU_DENORMALS_OPTIMIZATION", "execution option"),
        _property("INFERENCE_NUM_THREADS", 1, "more than one thread", "execution option"),
    ),
    "ort-cuda": (
        Setting(
            "use_tf32",
            "precision hint",
            'providers=[("CUDAExecutionProvider", {"use_tf32": 0})]',
            {"precision": "float32"},
        ),
    ),
    "tensorrt": (
        Setting("TF32", "precision hint", "config.clear_flag(trt.BuilderFlag.TF32)", {"precision": "float32"}),
    ),
    "tensorrt-rtx": (
        Setting("TF32", "precision hint", "config.clear_flag(trt.BuilderFlag.TF32)", {"precision": "float32"}),
    ),
}
"""Runtime -> settings outside its graph optimizer that change numbers."""
WITH_RULES = ("onnxruntime", "ort-cuda", "ort-tensorrt")
"""Runtimes whose ``open`` takes ``optimization`` and ``disabled_optimizers``."""
