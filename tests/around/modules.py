"""Blocks of real networks around a Group Normalization, in torch, with what each site's spec must say."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

GROUPS, CHANNELS = 4, 16


@dataclass(frozen=True)
class Block:
    module: Callable[[], nn.Module]
    inputs: tuple[Tensor, ...]
    around: tuple[frozenset[str], ...]
    """What stands around each site, in graph order."""
    dynamic: dict[str, dict[int, str]] = field(default_factory=lambda: {"x": {0: "N"}})


class ResnetBlock(nn.Module):
    """diffusers' ResnetBlock2D with time_embedding_norm "scale_shift" or "default"."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(GROUPS, CHANNELS), nn.GroupNorm(GROUPS, CHANNELS)
        self.conv1, self.conv2 = (nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1) for _ in range(2))
        self.time = nn.Linear(8, CHANNELS * (2 if how == "scale_shift" else 1))
        self.how = how

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        t = self.time(F.silu(emb))[:, :, None, None]
        if self.how == "scale_shift":
            scale, shift = torch.chunk(t, 2, dim=1)
            h = self.norm2(h) * (1 + scale) + shift
        else:
            h = self.norm2(h + t)
        return x + self.conv2(F.silu(h))


class Film(nn.Module):
    def __init__(self, gain: str) -> None:
        super().__init__()
        self.norm, self.film = nn.GroupNorm(GROUPS, CHANNELS), nn.Linear(8, 2 * CHANNELS)
        self.gain = gain

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        film = self.film(emb)
        s, t = (v.unsqueeze(-1).unsqueeze(-1) for v in (film[:, :CHANNELS], film[:, CHANNELS:]))
        y = self.norm(x)
        match self.gain:
            case "s + 1":
                return F.relu(y * (s + 1) + t)
            case "silu":
                return F.silu(y * (1 + s) + t)
            case "s":
                return F.silu(y * s + t)
            case "1 - s":
                return F.silu(y * (1 - s) + t)
            case "addcmul":
                return F.silu(torch.addcmul(t, y, 1 + s))
        return F.silu(y + t)


class Skip(nn.Module):
    """A residual before, of which the sum is used once more."""

    def __init__(self, again: str) -> None:
        super().__init__()
        self.norm, self.conv = nn.GroupNorm(GROUPS, CHANNELS), nn.Conv2d(CHANNELS, CHANNELS, 1)
        self.again = again

    def forward(self, x: Tensor, r: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        h = x + r
        if self.again == "before":
            side = self.conv(h)
            return F.silu(self.norm(h)) + side
        y = F.silu(self.norm(h))
        if self.again == "after":
            return y + self.conv(h)
        return (y, h) if self.again == "output" else y


class SpatialNorm(nn.Module):
    """Of MoVQ's decoder: scale and shift are maps."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, CHANNELS)
        self.scale, self.shift = (nn.Conv2d(3, CHANNELS, 1) for _ in range(2))

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        return self.norm(x) * self.scale(z) + self.shift(z)


class LastAxis(nn.Module):
    """Channels last in, channels first inside, out again."""

    def __init__(self, inside: bool, outside: bool, axes: int = 4) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, CHANNELS)
        self.inside, self.outside, self.axes = inside, outside, axes

    def forward(self, x: Tensor) -> Tensor:
        last = list(range(2, self.axes))
        y = self.norm(x.permute(0, self.axes - 1, *range(1, self.axes - 1)))
        y = F.silu(y) if self.inside else y
        y = y.permute(0, *last, 1)
        return F.silu(y) if self.outside else y


class PerFrame(nn.Module):
    """Video (N, C, T, H, W), every frame a sample."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        n, c, t, h, w = x.shape
        frames = x.permute(0, 2, 1, 3, 4).reshape(n * t, c, h, w)
        y = F.silu(self.norm(frames))
        return y.reshape(n, t, c, h, w).permute(0, 2, 1, 3, 4)


class GroupNorm32(nn.GroupNorm):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float() if x.dtype is torch.half else x).type(x.dtype)


class PostScale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.gamma = nn.GroupNorm(GROUPS, CHANNELS), nn.Parameter(torch.linspace(0.5, 2, CHANNELS))

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x) * self.gamma[:, None, None] * 0.5


_X, _EMB, _MAP = torch.randn(2, CHANNELS, 6, 5), torch.randn(2, 8), torch.randn(2, 3, 6, 5)
_SEQ, _VIDEO = torch.randn(2, 7, CHANNELS), torch.randn(2, CHANNELS, 3, 6, 5)
_NONE: frozenset[str] = frozenset()
_WIDE = frozenset({"wide_affine", "silu"})
_LAST = torch.randn(2, 6, 5, CHANNELS)
_TURNED, _TURNED_SILU = frozenset({"channels_last"}), frozenset({"channels_last", "silu"})
_ADA, _SKIP = frozenset({"scale_shift", "silu"}), frozenset({"residual", "silu"})
_BOTH = {"x": {0: "N"}, "emb": {0: "N"}}
_TWO = {"x": {0: "N", 2: "H", 3: "W"}, "r": {0: "N", 2: "H", 3: "W"}}

BLOCKS = {
    "resnet scale_shift": Block(lambda: ResnetBlock("scale_shift"), (_X, _EMB), (frozenset({"silu"}), _ADA), _BOTH),
    "resnet default": Block(lambda: ResnetBlock("default"), (_X, _EMB), (frozenset({"silu"}), _SKIP), _BOTH),
    "film s + 1": Block(lambda: Film("s + 1"), (_X, _EMB), (frozenset({"scale_shift", "relu"}),), _BOTH),
    "adagn": Block(lambda: Film("silu"), (_X, _EMB), (_ADA,), _BOTH),
    "film addcmul": Block(lambda: Film("addcmul"), (_X, _EMB), (_ADA,), _BOTH),
    "film s": Block(lambda: Film("s"), (_X, _EMB), (_NONE,), _BOTH),
    "film 1 - s": Block(lambda: Film("1 - s"), (_X, _EMB), (_NONE,), _BOTH),
    "film t": Block(lambda: Film("t"), (_X, _EMB), (_ADA,), _BOTH),
    "skip": Block(lambda: Skip("no"), (_X, _X * 2), (_SKIP,), _TWO),
    "skip, sum used before": Block(lambda: Skip("before"), (_X, _X * 2), (_SKIP,), _TWO),
    "skip, sum used after": Block(lambda: Skip("after"), (_X, _X * 2), (_SKIP,), _TWO),
    "skip, sum an output": Block(lambda: Skip("output"), (_X, _X * 2), (_SKIP,), _TWO),
    "spatial norm": Block(SpatialNorm, (_X, _MAP), (_NONE,), {"x": {0: "N"}, "z": {0: "N"}}),
    "nhwc": Block(lambda: LastAxis(False, False), (_LAST,), (_TURNED,)),
    "nhwc, silu inside": Block(lambda: LastAxis(True, False), (_LAST,), (_TURNED_SILU,)),
    "nhwc, silu outside": Block(lambda: LastAxis(False, True), (_LAST,), (_TURNED_SILU,)),
    "nlc": Block(lambda: LastAxis(False, True, 3), (_SEQ,), (_TURNED_SILU,), {"x": {0: "N", 1: "L"}}),
    "video": Block(PerFrame, (_VIDEO,), (frozenset({"silu"}),)),
    "ldm": Block(lambda: nn.Sequential(GroupNorm32(GROUPS, CHANNELS), nn.SiLU()), (_X.half(),), (_WIDE,)),
    "post scale": Block(PostScale, (_X,), (_NONE,)),
}  # fmt: skip
