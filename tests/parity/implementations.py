"""Right implementations of GroupNorm, each with its own rounding; wrong ones are gn_deploy.faults."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gn_deploy.spec import GroupNormSpec

Array = NDArray[Any]
Implementation = Callable[[Array, GroupNormSpec, Array, Array], Array]
"""x (N, C, ...), spec, scale (C,), bias (C,) -> y in x's dtype."""


def _groups(x: Array, spec: GroupNormSpec) -> Array:
    return x.reshape(x.shape[0] * spec.num_groups, -1).astype(np.float32)


def _channels(values: Array, x: Array) -> Array:
    return values.astype(np.float32).reshape(1, -1, *[1] * (x.ndim - 2))


def _finish(z: Array, x: Array, scale: Array, bias: Array) -> Array:
    return (z.reshape(x.shape) * _channels(scale, x) + _channels(bias, x)).astype(x.dtype)


def pairwise(x: Array, spec: GroupNormSpec, scale: Array, bias: Array) -> Array:
    g = _groups(x, spec)
    centred = g - g.mean(1, keepdims=True, dtype=np.float32)
    var = np.square(centred).mean(1, keepdims=True, dtype=np.float32)
    return _finish(centred / np.sqrt(var + np.float32(spec.epsilon)), x, scale, bias)


def _lane_mean(g: Array, lanes: int) -> Array:
    padded = np.pad(g, ((0, 0), (0, -g.shape[1] % lanes)))
    sums = np.add.reduce(padded.reshape(len(g), -1, lanes), axis=1).sum(1, keepdims=True)
    return (sums / np.float32(g.shape[1])).astype(np.float32)


def lanes(count: int) -> Implementation:
    """``count`` running sums, as a vectorized loop keeps them; mean and variance in two passes."""

    def run(x: Array, spec: GroupNormSpec, scale: Array, bias: Array) -> Array:
        g = _groups(x, spec)
        centred = g - _lane_mean(g, count)
        var = _lane_mean(centred * centred, count)
        return _finish(centred * (1 / np.sqrt(var + np.float32(spec.epsilon))), x, scale, bias)

    return run


def fused(x: Array, spec: GroupNormSpec, scale: Array, bias: Array) -> Array:
    """x * s + t with s = w r and t = b - m s, as most kernels write it."""
    g = _groups(x, spec)
    mean = g.mean(1, keepdims=True, dtype=np.float32)
    var = np.square(g - mean).mean(1, keepdims=True, dtype=np.float32)
    r = (1 / np.sqrt(var + np.float32(spec.epsilon))).reshape(x.shape[0], spec.num_groups)
    r, m = (np.repeat(v.reshape(r.shape), spec.channels_per_group, 1) for v in (r, mean))
    s = scale.astype(np.float32) * r
    t = bias.astype(np.float32) - m * s
    tail = [1] * (x.ndim - 2)
    return (x.astype(np.float32) * s.reshape(*s.shape, *tail) + t.reshape(*t.shape, *tail)).astype(x.dtype)


def welford_merged(x: Array, spec: GroupNormSpec, scale: Array, bias: Array) -> Array:
    """Chan's merge of per-block (mean, M2) in a fixed order, as a GPU kernel does."""
    g = _groups(x, spec)
    mean = m2 = np.zeros((len(g), 1), np.float32)
    done = 0
    for block in np.array_split(g, min(16, g.shape[1]), axis=1):
        b = np.float32(block.shape[1])
        block_mean = block.mean(1, keepdims=True, dtype=np.float32)
        delta = block_mean - mean
        m2 = (
            m2 + np.square(block - block_mean).sum(1, keepdims=True) + delta * delta * np.float32(done * b / (done + b))
        )
        mean = mean + delta * np.float32(b / (done + b))
        done += block.shape[1]
    return _finish((g - mean) / np.sqrt(m2 / np.float32(done) + np.float32(spec.epsilon)), x, scale, bias)


def torch_contiguous(x: Array, spec: GroupNormSpec, scale: Array, bias: Array) -> Array:
    import torch

    kind = getattr(torch, str(x.dtype))
    tensors = [torch.from_numpy(v.astype(np.float32)).to(kind) for v in (x, scale, bias)]
    y = torch.nn.functional.group_norm(tensors[0], spec.num_groups, tensors[1], tensors[2], spec.epsilon)
    return y.float().numpy().astype(x.dtype)


RIGHT: dict[str, Implementation] = {
    "pairwise": pairwise,
    "8 lanes": lanes(8),
    "24 lanes": lanes(24),
    "64 lanes": lanes(64),
    "fused": fused,
    "welford": welford_merged,
    "torch": torch_contiguous,
}
