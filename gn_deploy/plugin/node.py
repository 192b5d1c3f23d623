"""The node ``gn_deploy::GroupNorm`` as graph and library agree on it: attributes, order of inputs and outputs."""

from collections.abc import Mapping

DOMAIN = "gn_deploy"
"""Also the plugin's namespace: attribute ``plugin_namespace`` of the node."""
OP = "GroupNorm"
VERSION = "1"
"""Attribute ``plugin_version`` of the node."""

INPUTS = ("x", "scale", "bias", "residual", "modulation_scale", "modulation_shift")
"""The first three always, then those whose attribute of the same name is 1, in this order: TensorRT has none absent.
x and residual: one shape, (N, C, ...) or with ``channels_last`` (N, ..., C), and one type: float32, float16, bfloat16.
scale and bias: (C,), modulation (N, C) or (N, C, 1, ...), all of them float32 or all of x's type."""
OUTPUTS = ("y", "sum")
"""sum is x + residual in x's type, there when attribute ``sum`` is 1; y is of ``output_type``."""
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
