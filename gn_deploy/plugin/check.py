"""Whether a problem is one at all, and the words for sizes: plugins/kernels/check.cpp and message.h in Python."""

import math

from gn_deploy.decision import Accepted, Decision, Rejected
from gn_deploy.plugin.binding import ACTIVATIONS, LAYOUTS
from gn_deploy.plugin.problem import Problem
from gn_deploy.plugin.units import ELEMENT_BYTES, GRID, TENSOR_BYTES, slab_of, units_of


def bytes_text(size: int) -> str:
    """ "80 KB", "1.5 MB", "12 bytes": one digit after the point, none where it is 0."""
    if size < 1024:
        return f"{size} bytes"
    unit = min(3, (size.bit_length() - 1) // 10 - 1)
    whole = 1024 ** (unit + 1)
    tenths = size // whole * 10 + (size % whole * 10 + whole // 2) // whole
    return f"{tenths // 10}" + (f".{tenths % 10}" if tenths % 10 else "") + (" KB", " MB", " GB", " TB")[unit]


def check(p: Problem) -> Decision:
    """Whether the problem is one at all, and is supported."""
    why = wrong(p)
    return Rejected(why) if why else Accepted("")


def wrong(p: Problem) -> str:
    """Why this is no problem that is supported, or an empty text."""
    if min(p.samples, p.channels, p.positions) < 0:
        return "a size is negative"
    if p.groups < 1:
        return f"{p.groups} groups: at least 1 is needed"
    if p.channels % p.groups:
        return f"{p.channels} channels are not divisible into {p.groups} groups"
    if not (p.epsilon >= 0 and math.isfinite(p.epsilon)):
        return "epsilon is not a finite number of 0 or more"
    if p.layout not in LAYOUTS:
        return f"layout {p.layout} is neither NCHW nor NHWC"
    if p.dtype not in ("float32", "float16", "bfloat16"):
        return f"x has type {p.dtype}: float32, float16 or bfloat16 is needed"
    if p.parameter_dtype not in ("float32", p.dtype):
        return "parameters are neither float32 nor of x's type"
    quantized, rows = p.output_dtype != p.dtype, p.layout == "nhwc"
    if quantized and p.output_dtype not in ("int8", "float8_e4m3fn"):
        return f"y has type {p.output_dtype}: x's type, int8 or float8 e4m3 is needed"
    if p.activation not in ACTIVATIONS:
        return f"there is no activation {p.activation}"
    if quantized and not (p.output_scale > 0 and math.isfinite(p.output_scale)):
        return "the scale of a quantized y is not a finite number above 0"
    if p.has_sum and not p.has_residual:
        return "a sum is asked for but there is no residual to add"
    if not (0 <= p.has_affine <= 3 and 0 <= p.has_modulation <= 3):
        return "has_affine and has_modulation are two bits each"
    if rows and p.pitch < p.channels:
        return f"rows of {p.channels} channels do not fit a pitch of {p.pitch}"
    if rows and quantized and p.output_pitch < p.channels:
        return f"rows of {p.channels} channels do not fit an output pitch of {p.output_pitch}"
    row = max(p.pitch, p.output_pitch if quantized else 0) if rows else p.channels
    elements = p.samples * p.positions * row
    if elements * ELEMENT_BYTES[p.dtype] > TENSOR_BYTES:
        return f"x or y is larger than {bytes_text(TENSOR_BYTES)}"
    if max(p.channels, p.samples) > GRID:
        return "more than 2147483647 samples or channels"
    if elements > 0 and p.channels > 0 and units_of(p, slab_of(p)).count > GRID:
        return "more than 2147483647 units for one launch: split the batch"
    return ""
