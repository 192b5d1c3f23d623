"""The node ``gn_deploy::GroupNorm`` as graph and library agree on it: attributes, order of inputs and outputs."""

from collections.abc import Mapping

DOMAIN = "gn_deploy"
"""Also the plugin's namespace: attribute ``plugin_namespace`` of the node."""
OPS = ("GroupNorm", "SkipGroupNorm", "GroupNormQuantize", "SkipGroupNormQuantize")
"""Op types, each also the name of a creator: Skip has a second output, ``sum``, and with Quantize y is not of x's type.
Otherwise the four are one plugin. TensorRT looks for a plugin, and where none is loaded for the function, by this name
alone, neither by domain nor by overload (measured on RTX 1.7.1), and a function has one list of outputs."""
VERSION = "1"
"""Attribute ``plugin_version`` of the node."""

INPUTS = ("x", "scale", "bias", "residual", "modulation_scale", "modulation_shift")
"""Always all six, since one function body serves every node: the last three count only where the attribute of the same
name is 1. Elsewhere a zero stands there that the body adds without effect and the plugin never reads: (1,) in x's type
for the residual, (1, C) in the type of scale and bias for the modulation.
x and residual: one shape, (N, C, ...) or with ``channels_last`` (N, ..., C), and one type: float32, float16, bfloat16.
scale and bias: (C,), modulation (N, C) or (N, C, 1, ...), or (N, 1, ..., C) with ``channels_last``; all of them float32
or all of x's type."""
OUTPUTS = ("y", "sum")
"""sum is x + residual in x's type, there when attribute ``sum`` is 1, that is in Skip; y is of ``output_type``."""
OUTPUT_TYPES = ("x", "int8", "float8e4m3fn")
"""x's own type, or saturate(round to even(value / output_scale)), which a DequantizeLinear with that scale reads."""

ATTRIBUTES: Mapping[str, int | float | str] = {
    "num_groups": 0,
    "epsilon": 1e-5,
    "activation": "none",  # a value of ``Activation``
    "channels_last": 0,
    "residual": 0,
    "modulation_scale": 0,
    "modulation_shift": 0,
    "sum": 0,
    "output_type": "x",
    "output_scale": 1.0,
}
"""Every attribute, in the library's order, with what it is when absent; a node writes all of them, since TensorRT knows
no defaults. num_groups has none. Other attributes than these and ``plugin_*`` are refused by nobody and ignored."""
