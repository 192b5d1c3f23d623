"""What a Group Normalization computes, apart from where it stands and how it is written."""

import math
from dataclasses import dataclass
from enum import StrEnum

from gn_deploy.errors import InputError


class Activation(StrEnum):
    """A pointwise function applied to the normalized value."""

    NONE = "none"
    RELU = "relu"
    SILU = "silu"
    """y * sigmoid(y), also called Swish (Elfwing et al. 2018)."""
    HARDSWISH = "hardswish"
    """y * min(max(y + 3, 0), 6) / 6 (Howard et al. 2019)."""
    GELU = "gelu"
    """y * (1 + erf(y / sqrt 2)) / 2 (Hendrycks & Gimpel 2016)."""
    GELU_TANH = "gelu_tanh"
    """Its approximation y * (1 + tanh(sqrt(2 / pi) * (y + 0.044715 y^3))) / 2, at most 4.74e-4 away."""
    MISH = "mish"
    """y * tanh(log(1 + exp y)) (Misra 2019)."""


FLOAT_DTYPES = ("float32", "float16", "bfloat16", "float64")
HALF_DTYPES = ("float16", "bfloat16")


@dataclass(frozen=True, slots=True)
class GroupNormSpec:
    """y = activation((x - mean) / sqrt(var + epsilon) * scale + bias), var biased (Wu & He 2018, eq. 1-2).

    1. Mean and variance are taken over each sample's group of ``num_channels / num_groups`` consecutive
       channels and all spatial positions: x is (N, C, ...) or, with ``channel_axis`` -1, (N, ..., C).
    2. scale and bias are (C,) each, one number per channel (ONNX GroupNormalization-21); absent means 1 and 0.
    3. ``num_groups == num_channels`` is instance normalization, ``num_groups == 1`` normalizes over all channels.
    """

    num_groups: int
    num_channels: int
    epsilon: float = 1e-5
    rank: int | None = None
    """Rank of x, N and C counted; None when the graph does not say."""
    dtype: str = "float32"
    """Element type of x and y: one of FLOAT_DTYPES."""
    stash_dtype: str = "float32"
    """Type in which the statistics are computed (``stash_type`` of ONNX GroupNormalization-21)."""
    channel_axis: int = 1
    """1 for (N, C, ...), -1 for channels last (N, ..., C)."""
    activation: Activation = Activation.NONE
    residual: bool = False
    """A tensor of x's shape, or (N, C, 1, ...), is added to x before the statistics."""
    scale_shift: bool = False
    """A per-sample (N, C) modulation follows the bias: y * (1 + s) + t (adaptive GroupNorm, FiLM)."""
    wide_affine: bool = False
    """Scale and bias are applied in ``stash_dtype`` and only the result is rounded to ``dtype`` (a pair of Casts
    around the normalization, or a fused kernel); the op of ONNX rounds before."""

    def __post_init__(self) -> None:
        if self.num_groups < 1 or self.num_channels < 1:
            raise InputError(
                f"num_groups={self.num_groups}, num_channels={self.num_channels}: both must be at least 1",
            )
        if self.num_channels % self.num_groups:
            raise InputError(
                f"num_channels={self.num_channels} is not divisible by num_groups={self.num_groups}",
                "every group must have the same number of channels",
            )
        if not (self.epsilon >= 0 and math.isfinite(self.epsilon)):
            raise InputError(f"epsilon={self.epsilon} is not a number of 0 or more", "usual values are 1e-5 and 1e-6")
        for name, dtype in (("dtype", self.dtype), ("stash_dtype", self.stash_dtype)):
            if dtype not in FLOAT_DTYPES:
                raise InputError(f"{name}={dtype!r} is not a floating-point type", f"one of {', '.join(FLOAT_DTYPES)}")
        if self.channel_axis not in (1, -1):
            raise InputError(f"channel_axis={self.channel_axis} is neither 1 nor -1")

    @property
    def channels_per_group(self) -> int:
        return self.num_channels // self.num_groups

    @property
    def around(self) -> frozenset[str]:
        """What it computes beyond normalization, scale and bias: what a form must name in ``fuses`` to write it."""
        told = {
            "residual": self.residual,
            "scale_shift": self.scale_shift,
            str(self.activation): self.activation is not Activation.NONE,
            "wide_affine": self.wide_affine,
            "channels_last": self.channel_axis == -1,
        }
        return frozenset(name for name, present in told.items() if present)
