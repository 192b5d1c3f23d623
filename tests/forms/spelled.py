"""Group Normalization as people write it in torch by hand, and what only looks like it."""

import contextlib
import io
import warnings
from collections.abc import Callable
from functools import cache

import onnx
import onnx_ir as ir
import torch
from torch import Tensor, nn
from torch.nn import functional as F

N, C, H, W, G = 2, 8, 4, 6, 4
EPSILON = 1e-5
Function = Callable[["Spelled", Tensor], Tensor]


class Spelled(nn.Module):
    """``function`` of x (N, C, H, W) with ``weight`` and ``bias`` (C,)."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function
        self.weight = nn.Parameter(torch.arange(C) / 8 + 0.5)
        self.bias = nn.Parameter(torch.arange(C) / 4 - 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)

    def affine(self, y: Tensor) -> Tensor:
        return y * self.weight.view(1, C, 1, 1) + self.bias.view(1, C, 1, 1)


GOOD: dict[str, Function] = {}
BAD: dict[str, tuple[Function, str]] = {}
"""What is no GroupNorm, and a part of the reason that ``inspect --why`` gives."""


def good(function: Function) -> Function:
    GOOD[function.__name__] = function
    return function


def bad(reason: str) -> Callable[[Function], Function]:
    def add(function: Function) -> Function:
        BAD[function.__name__] = function, reason
        return function

    return add


def rows(x: Tensor) -> Tensor:
    return x.reshape(x.shape[0], G, -1)


def moments(v: Tensor, keepdim: bool = True) -> tuple[Tensor, Tensor]:
    mean, variance = v.mean(-1, keepdim=keepdim), v.var(-1, unbiased=False, keepdim=keepdim)
    return mean, torch.rsqrt(variance + EPSILON)


@good
def batch_norm(m: Spelled, x: Tensor) -> Tensor:
    v = x.reshape(1, x.shape[0] * G, -1)
    return m.affine(F.batch_norm(v, None, None, training=True).view(x.shape))


@good
def instance_norm_with_weight(m: Spelled, x: Tensor) -> Tensor:
    weight, bias = torch.arange(G, dtype=x.dtype) + 1, torch.arange(G, dtype=x.dtype)
    y = F.instance_norm(rows(x), weight=weight, bias=bias)
    return m.affine(y.view(x.shape))


@good
def layer_norm_each(m: Spelled, x: Tensor) -> Tensor:
    return m.affine(torch.cat([F.layer_norm(part, part.shape[1:]) for part in x.chunk(G, 1)], 1))


@good
def group_norm_each(m: Spelled, x: Tensor) -> Tensor:
    size = C // G
    parts = enumerate(x.split(size, 1))
    cut = [slice(i * size, i * size + size) for i in range(G)]
    return torch.cat([F.group_norm(part, 1, m.weight[cut[i]], m.bias[cut[i]]) for i, part in parts], 1)


@good
def layer_norm_of_rows(m: Spelled, x: Tensor) -> Tensor:
    v = rows(x)
    return m.affine(F.layer_norm(v, v.shape[-1:]).view(x.shape))


@good
def corrected_back(m: Spelled, x: Tensor) -> Tensor:
    """Bessel's correction, taken back exactly."""
    v = x.reshape(x.shape[0], G, C // G * H * W)
    variance, mean = torch.var_mean(v, -1, keepdim=True)
    n = C // G * H * W
    variance = variance * (n - 1) / n
    return m.affine(((v - mean) / (variance + EPSILON).sqrt()).view(x.shape))


@good
def five_axes(m: Spelled, x: Tensor) -> Tensor:
    v = x.reshape(x.shape[0], G, C // G, *x.shape[2:])
    mean = v.mean((2, 3, 4), keepdim=True)
    variance = v.var((2, 3, 4), unbiased=False, keepdim=True)
    return m.affine(((v - mean) * torch.rsqrt(variance + EPSILON)).view(x.shape))


@good
def to_a_negative_power(m: Spelled, x: Tensor) -> Tensor:
    v = rows(x)
    mean = v.mean(-1, keepdim=True)
    variance = (v - mean).pow(2).mean(-1, keepdim=True)
    return m.affine(((v - mean) * (variance + EPSILON) ** -0.5).view(x.shape))


@good
def unsqueezed_late(m: Spelled, x: Tensor) -> Tensor:
    v = rows(x)
    mean, variance = v.mean(-1), v.var(-1, unbiased=False)
    return m.affine(((v - mean[..., None]) / torch.sqrt(variance + EPSILON)[..., None]).view(x.shape))


@good
def one_pass_clamped(m: Spelled, x: Tensor) -> Tensor:
    v = rows(x)
    mean = v.mean(-1, keepdim=True)
    variance = ((v * v).mean(-1, keepdim=True) - mean * mean).clamp(min=0)
    return m.affine(((v - mean) * torch.rsqrt(variance + EPSILON)).view(x.shape))


@good
def one_pass_abs(m: Spelled, x: Tensor) -> Tensor:
    v = rows(x)
    mean = v.mean(-1, keepdim=True)
    variance = ((v * v).mean(-1, keepdim=True) - mean**2).abs()
    return m.affine(((v - mean) * torch.rsqrt(variance + EPSILON)).view(x.shape))


@good
def repeated_for_channels(m: Spelled, x: Tensor) -> Tensor:
    mean, rstd = (s.repeat_interleave(C // G, 1)[:, :, None, None] for s in moments(rows(x), keepdim=False))
    return m.affine((x - mean) * rstd)


@good
def repeated_and_folded(m: Spelled, x: Tensor) -> Tensor:
    mean, rstd = (s.repeat_interleave(C // G, 1) for s in moments(rows(x), keepdim=False))
    factor = rstd * m.weight
    return x * factor[:, :, None, None] + (m.bias - mean * factor)[:, :, None, None]


@good
def expanded(m: Spelled, x: Tensor) -> Tensor:
    n = x.shape[0]
    mean, rstd = (s.expand(n, G, C // G).reshape(n, C, 1, 1) for s in moments(rows(x)))
    return m.affine((x - mean) * rstd)


@good
def expanded_and_folded(m: Spelled, x: Tensor) -> Tensor:
    n = x.shape[0]
    mean, rstd = (s.expand(n, G, C // G).reshape(n, C, 1, 1) for s in moments(rows(x)))
    factor = rstd * m.weight.view(1, C, 1, 1)
    return x * factor + (m.bias.view(1, C, 1, 1) - mean * factor)


@good
def gathered(m: Spelled, x: Tensor) -> Tensor:
    """The group of each channel, looked up."""
    group = torch.arange(C) // (C // G)
    mean, rstd = (s.index_select(1, group).unsqueeze(-1).unsqueeze(-1) for s in moments(rows(x), keepdim=False))
    return m.affine((x - mean) * rstd)


@good
def divided_and_subtracted(m: Spelled, x: Tensor) -> Tensor:
    y = F.instance_norm(rows(x)).view(x.shape)
    return y / m.weight.view(C, 1, 1) - m.bias.view(C, 1, 1)


@good
def affine_of_the_groups(m: Spelled, x: Tensor) -> Tensor:
    y = F.instance_norm(rows(x)).view(x.shape[0], G, C // G, -1)
    return (y * m.weight.view(1, G, C // G, 1) + m.bias.view(1, G, C // G, 1)).view(x.shape)


@good
def unflattened(m: Spelled, x: Tensor) -> Tensor:
    """As einops.rearrange does it."""
    v = x.unflatten(1, (G, C // G)).flatten(2)
    v = v - v.mean(-1, keepdim=True)
    v = v / torch.sqrt((v * v).mean(-1, keepdim=True) + EPSILON)
    return m.affine(v.unflatten(2, (C // G, x.shape[2], x.shape[3])).flatten(1, 2))


@good
def wide_affine(m: Spelled, x: Tensor) -> Tensor:
    """Parameters stored for every pixel, all alike."""
    y = F.instance_norm(rows(x)).view(x.shape)
    return y * m.weight.view(C, 1, 1).expand(C, H, W) + m.bias.view(1, C, 1, 1).expand(1, C, H, W)


@bad("unbiased")
def unbiased(m: Spelled, x: Tensor) -> Tensor:
    v = rows(x)
    return m.affine(((v - v.mean(-1, keepdim=True)) / torch.sqrt(v.var(-1, keepdim=True) + EPSILON)).view(x.shape))


@bad("outside the root")
def epsilon_outside(m: Spelled, x: Tensor) -> Tensor:
    v = rows(x)
    deviation = v.std(-1, unbiased=False, keepdim=True) + EPSILON
    return m.affine(((v - v.mean(-1, keepdim=True)) / deviation).view(x.shape))


@bad("lower bound")
def epsilon_at_least(m: Spelled, x: Tensor) -> Tensor:
    v = rows(x)
    variance = v.var(-1, keepdim=True, unbiased=False).clamp(min=EPSILON)
    return m.affine(((v - v.mean(-1, keepdim=True)) / torch.sqrt(variance)).view(x.shape))


@bad("not x less its mean: RMS norm")
def root_mean_square(m: Spelled, x: Tensor) -> Tensor:
    v = rows(x)
    return m.affine((v * torch.rsqrt((v * v).mean(-1, keepdim=True) + EPSILON)).view(x.shape))


@bad("EvoNorm")
def evo_norm(m: Spelled, x: Tensor) -> Tensor:
    v = rows(x)
    deviation = torch.sqrt(v.var(-1, unbiased=False, keepdim=True) + EPSILON).expand(v.shape).reshape(x.shape)
    return m.affine(x * torch.sigmoid(x) / deviation)


@bad("interleaved")
def shuffled(m: Spelled, x: Tensor) -> Tensor:
    v = x.view(x.shape[0], C // G, G, *x.shape[2:]).transpose(1, 2)
    y = F.instance_norm(v.reshape(x.shape[0], G, -1)).view(v.shape)
    return m.affine(y.transpose(1, 2).reshape(x.shape))


@bad("are not its last axes")
def interleaved(m: Spelled, x: Tensor) -> Tensor:
    v = x.view(x.shape[0], C // G, G, -1)
    mean, variance = v.mean((1, 3), keepdim=True), v.var((1, 3), keepdim=True, unbiased=False)
    return m.affine(((v - mean) / torch.sqrt(variance + EPSILON)).view(x.shape))


@bad("over C alone")
def layer_norm_of_channels(m: Spelled, x: Tensor) -> Tensor:
    return F.layer_norm(x.permute(0, 2, 3, 1), (C,), m.weight, m.bias).permute(0, 3, 1, 2)


@bad("instance normalization as such")
def instance_norm(m: Spelled, x: Tensor) -> Tensor:
    return m.affine(F.instance_norm(x))


@bad("mixes samples")
def two_rows_for_each_sample(m: Spelled, x: Tensor) -> Tensor:
    return m.affine(F.instance_norm(x.reshape(2 * x.shape[0], G, -1)).view(x.shape))


@bad("samples")
def samples_merged(m: Spelled, x: Tensor) -> Tensor:
    return m.affine(F.instance_norm(x.reshape(1, G, -1)).view(x.shape))


@bad("does not come back to the shape")
def another_shape(m: Spelled, x: Tensor) -> Tensor:
    return F.instance_norm(rows(x)).view(x.shape[0], C, x.shape[3], x.shape[2])


@bad("repeat each group's number for its own channels")
def tiled(m: Spelled, x: Tensor) -> Tensor:
    """repeat where repeat_interleave was meant: channel c gets the statistics of group c % G."""
    mean, rstd = (s.repeat(1, C // G)[:, :, None, None] for s in moments(rows(x), keepdim=False))
    return m.affine((x - mean) * rstd)


@bad("different axes")
def variance_of_the_sample(m: Spelled, x: Tensor) -> Tensor:
    v = rows(x)
    variance = x.reshape(x.shape[0], 1, -1).var(-1, unbiased=False, keepdim=True)
    return m.affine(((v - v.mean(-1, keepdim=True)) / torch.sqrt(variance + EPSILON)).view(x.shape))


@cache
def exported(function: Function, exporter: str, dynamic: bool) -> onnx.ModelProto:
    """``exporter`` is "torchscript" (opset 17) or "dynamo" (18); dynamic in everything but the channels."""
    module, x = Spelled(function).eval(), torch.randn(N, C, H, W)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        if exporter == "torchscript":
            file = io.BytesIO()
            axes = {"x": {0: "N", 2: "H", 3: "W"}} if dynamic else None
            torch.onnx.export(module, (x,), file, opset_version=17, dynamo=False, input_names=["x"], dynamic_axes=axes)
            return onnx.load_from_string(file.getvalue())
        shapes = ({0: "N", 2: "H", 3: "W"},) if dynamic else None
        program = torch.onnx.export(module, (x,), opset_version=18, dynamo=True, dynamic_shapes=shapes, verbose=False)
    assert program is not None
    return ir.to_proto(program.model)
