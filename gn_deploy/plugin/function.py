"""The body of the plugin's nodes in standard operators: what a runtime computes that has no plugin for them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from gn_deploy.plugin.node import ATTRIBUTES, DOMAIN, INPUTS, VERSION
from gn_deploy.spec import Activation, GroupNormSpec

if TYPE_CHECKING:
    import onnx_ir as ir

SINCE = 18
"""Opset from which the body says the same in the same words: ReduceMean with its axes as an input, Mish."""
QUANTIZE_SINCE = 19
"""Opset from which CastLike gives float8."""
CODES = {"int8": 3, "float8e4m3fn": 17}
"""``output_type`` -> TensorProto.DataType."""
_NAMED = (*ATTRIBUTES, "plugin_namespace", "plugin_version")
_VIEWS = ("view", "axes", "per_channel", "per_sample")

_BODY = """
<domain: "{domain}", opset_import: ["": {opset}]>
{op} <{attributes}>({inputs}) => ({outputs})
{{
    wide_x = Cast <to = 1> (x)
    wide_residual = Cast <to = 1> (residual)
    added = Add (wide_x, wide_residual)
    sum = CastLike (added, x)
    wide_sum = Cast <to = 1> (sum)
    view = Constant <value_ints: ints = @view> ()
    axes = Constant <value_ints: ints = @axes> ()
    grouped = Reshape (wide_sum, view)
    mean = ReduceMean (grouped, axes)
    centred = Sub (grouped, mean)
    square = Mul (centred, centred)
    variance = ReduceMean (square, axes)
    epsilon = Constant <value_float: float = @epsilon> ()
    shifted = Add (variance, epsilon)
    deviation = Sqrt (shifted)
    normalized = Div (centred, deviation)
    per_channel = Constant <value_ints: ints = @per_channel> ()
    per_sample = Constant <value_ints: ints = @per_sample> ()
    wide_scale = Cast <to = 1> (scale)
    viewed_scale = Reshape (wide_scale, per_channel)
    scaled = Mul (normalized, viewed_scale)
    wide_bias = Cast <to = 1> (bias)
    viewed_bias = Reshape (wide_bias, per_channel)
    affine = Add (scaled, viewed_bias)
    wide_s = Cast <to = 1> (modulation_scale)
    viewed_s = Reshape (wide_s, per_sample)
    unit = Constant <value_float = 1.0> ()
    gain = Add (viewed_s, unit)
    gained = Mul (affine, gain)
    wide_t = Cast <to = 1> (modulation_shift)
    viewed_t = Reshape (wide_t, per_sample)
    u = Add (gained, viewed_t)
    {constants}
    {activated}
    shape = Shape (x)
    wide_y = Reshape (relu_or_not, shape)
    {result}
}}
"""
_RESULT = "y = CastLike (wide_y, x)"
_QUANTIZED = """rounded = CastLike (wide_y, x)
    wide_rounded = Cast <to = 1> (rounded)
    steps = Div (wide_rounded, step)
    in_range = If (is_int8) <
        then_branch = whole () => (clipped) {
            whole_steps = Round (steps)
            low = Constant <value_float = -128.0> ()
            high = Constant <value_float = 127.0> ()
            clipped = Clip (whole_steps, low, high)
        },
        else_branch = any () => (same) { same = Identity (steps) }>
    y = CastLike (in_range, zero_point)"""
"""QuantizeLinear in other words, since TensorRT-RTX 1.7.1 cannot inline that one twice: it names both layers alike. It
builds no Cast to float8 either, so plugin nodes of that type need the plugin there."""
_STEPS = (
    "step = Constant <value_float: float = @output_scale> ()",
    "zero_point = Constant <value: tensor = @zero_point> ()",
    "is_int8 = Constant <value: tensor = @is_int8> ()",
)
_ACTIVATIONS = {
    Activation.RELU: "$y = Relu (u)",
    Activation.SILU: "$gate = Sigmoid (u) $y = Mul (u, $gate)",
    Activation.HARDSWISH: "$y = HardSwish (u)",
    Activation.GELU: """$exact = Constant <value = double {1.4142135623730951}> () $root = Cast <to = 1> ($exact)
        $slope = Div (u, $root) $gate = Erf ($slope)
        $one = Constant <value_float = 1.0> () $more = Add ($gate, $one) $twice = Mul (u, $more)
        $half = Constant <value_float = 0.5> () $y = Mul ($twice, $half)""",
    Activation.GELU_TANH: """$square = Mul (u, u) $cube = Mul (u, $square)
        $exact = Constant <value = double {0.044715}> () $k = Cast <to = 1> ($exact)
        $bend = Mul ($cube, $k) $sum = Add (u, $bend)
        $precise = Constant <value = double {0.7978845608028654}> () $root = Cast <to = 1> ($precise)
        $slope = Mul ($sum, $root) $gate = Tanh ($slope)
        $one = Constant <value_float = 1.0> () $more = Add ($gate, $one) $twice = Mul (u, $more)
        $half = Constant <value_float = 0.5> () $y = Mul ($twice, $half)""",
    Activation.MISH: "$y = Mish (u)",
}
"""$ stands for the name of the activation and a line. Numbers that float32 does not hold are there for the float64
oracle, which takes every float32 for float64."""


def views(spec: GroupNormSpec) -> dict[str, tuple[int, ...]]:
    """The attributes that only the body reads: x as samples, groups, channels of a group, positions, whatever its rank.

    Channels last the positions come second. ``axes`` are those of the statistics.
    """
    pair = (spec.num_groups, spec.channels_per_group)
    if spec.channel_axis == 1:
        shapes = (0, *pair, -1), (2, 3), (1, *pair, 1), (0, *pair, 1)
    else:
        shapes = (0, -1, *pair), (1, 3), (1, 1, *pair), (0, 1, *pair)
    return dict(zip(_VIEWS, shapes, strict=True))


def chosen(activation: Activation) -> "Mapping[str, ir.TensorProtocol]":
    """One attribute for each activation, true for this one: constants, so no runtime keeps the branches not taken."""
    import onnx_ir as ir

    return {str(name): ir.tensor(np.asarray(name is activation), name=str(name)) for name in _ACTIVATIONS}


def rounding(output_type: str) -> "Mapping[str, ir.TensorProtocol]":
    """The attributes that only the body reads, where y is of one of ``CODES``."""
    import onnx_ir as ir

    zero = np.zeros((), ir.DataType(CODES[output_type]).numpy())
    held = {"zero_point": zero, "is_int8": np.asarray(output_type == "int8")}
    return {name: ir.tensor(array, name=name) for name, array in held.items()}


def function(op: str, opset: int) -> "ir.Function":
    """One of ``node.OPS`` at an opset (18 and later, with Quantize 19): float32 inside, two passes.

    All that differs between nodes of the same name is in their attributes, since TensorRT knows a function by its name.
    They are all read before the first If: TensorRT-RTX 1.7.1 does not find them any more after one.
    """
    import onnx.parser
    import onnx_ir as ir

    quantized = op.endswith("Quantize")
    attributes = (*_NAMED, *_VIEWS, *map(str, _ACTIVATIONS), *(("zero_point", "is_int8") if quantized else ()))
    conditions = [f"is_{name} = Constant <value: tensor = @{name}> ()" for name in _ACTIVATIONS]
    text = _BODY.format(
        domain=DOMAIN,
        opset=opset,
        op=op,
        attributes=", ".join(attributes),
        inputs=", ".join(INPUTS),
        outputs="y, sum" if op.startswith("Skip") else "y",
        constants="\n    ".join([*conditions, *(_STEPS if quantized else ())]),
        activated=_branches(),
        result=_QUANTIZED if quantized else _RESULT,
    )
    proto = onnx.parser.parse_function(text)
    proto.doc_string = (
        "act(((x + residual) - mean) / sqrt(var + epsilon) * scale * (1 + s) + bias * (1 + s) + t), mean and var over "
        f"each group of channels, in float32: the body of gn_deploy's TensorRT plugin, version {VERSION}"
    )
    return ir.serde.deserialize_function(proto)


def _branches() -> str:
    """For each activation a branch with its nodes and one with the If of the next."""
    text, result = "none_y = Identity (u)", "none_y"
    for name, nodes in reversed(_ACTIVATIONS.items()):
        text = f"""{name}_or_not = If (is_{name}) <
        then_branch = {name}_graph () => ({name}_y) {{ {nodes.replace("$", f"{name}_")} }},
        else_branch = not_{name}_graph () => ({result}) {{ {text} }}>"""
        result = f"{name}_or_not"
    return text
