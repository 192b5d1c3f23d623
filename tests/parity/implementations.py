"""Right implementations of GroupNorm, each with its own rounding; and wrong ones, one fault each."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gn_deploy.reference import group_norm
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


def one_pass(x: Array, spec: GroupNormSpec, scale: Array, bias: Array) -> Array:
    g = _groups(x, spec)
    mean = g.mean(1, keepdims=True, dtype=np.float32)
    var = np.square(g).mean(1, keepdims=True, dtype=np.float32) - mean * mean
    with np.errstate(invalid="ignore"):
        return _finish((g - mean) / np.sqrt(var + np.float32(spec.epsilon)), x, scale, bias)


def _with(**changes: Any) -> Implementation:
    """The oracle itself with something else in its specification."""
    from dataclasses import replace

    def run(x: Array, spec: GroupNormSpec, scale: Array, bias: Array) -> Array:
        wanted = {k: v(spec) if callable(v) else v for k, v in changes.items()}
        return group_norm(x, replace(spec, **wanted), scale, bias).astype(x.dtype)

    return run


def _z(function: Callable[[Array, GroupNormSpec], Array]) -> Implementation:
    """Another normalization of the grouped values (N, G, n) in float64, then the right scale and bias."""

    def run(x: Array, spec: GroupNormSpec, scale: Array, bias: Array) -> Array:
        g = x.astype(np.float64).reshape(x.shape[0], spec.num_groups, -1)
        z = function(g, spec).reshape(x.shape)
        tail = [1] * (x.ndim - 2)
        with np.errstate(over="ignore"):
            return (z * scale.astype(np.float64).reshape(-1, *tail) + bias.reshape(-1, *tail)).astype(x.dtype)

    return run


def _parameters(change: Callable[[Array, Array, GroupNormSpec], tuple[Array, Array]]) -> Implementation:
    def run(x: Array, spec: GroupNormSpec, scale: Array, bias: Array) -> Array:
        return group_norm(x, spec, *change(scale, bias, spec)).astype(x.dtype)

    return run


def _moments(g: Array) -> tuple[Array, Array]:
    return g.mean(-1, keepdims=True), g.var(-1, keepdims=True)


def _standard(g: Array, mean: Array, var: Array, spec: GroupNormSpec) -> Array:
    return (g - mean) / np.sqrt(var + spec.epsilon)


def _interleaved(x: Array, spec: GroupNormSpec, scale: Array, bias: Array) -> Array:
    order = np.arange(spec.num_channels).reshape(spec.channels_per_group, spec.num_groups).T.ravel()
    y = np.empty_like(x)
    y[:, order] = group_norm(x[:, order], spec, scale[order], bias[order]).astype(x.dtype)
    return y


def _late(x: Array, spec: GroupNormSpec, scale: Array, bias: Array) -> Array:
    order = np.roll(np.arange(spec.num_channels), -1)
    y = np.empty_like(x)
    y[:, order] = group_norm(x[:, order], spec, scale[order], bias[order]).astype(x.dtype)
    return y


def _transposed(x: Array, spec: GroupNormSpec, scale: Array, bias: Array) -> Array:
    return np.ascontiguousarray(np.swapaxes(group_norm(x, spec, scale, bias), -1, -2)).astype(x.dtype)


def _rounded_output(dtype: str) -> Implementation:
    def run(x: Array, spec: GroupNormSpec, scale: Array, bias: Array) -> Array:
        return group_norm(x, spec, scale, bias).astype(dtype).astype(x.dtype)

    return run


def _padded(g: Array, spec: GroupNormSpec) -> Array:
    wide = np.pad(g, ((0, 0), (0, 0), (0, max(1, g.shape[-1] // 8))))
    return _standard(g, *_moments(wide), spec)


def _rms(g: Array, spec: GroupNormSpec) -> Array:
    return g / np.sqrt(np.square(g).mean(-1, keepdims=True) + spec.epsilon)


def _mean_abs(g: Array, spec: GroupNormSpec) -> Array:
    centred = g - g.mean(-1, keepdims=True)
    return centred / (np.abs(centred).mean(-1, keepdims=True) + np.sqrt(spec.epsilon))


def _outside(g: Array, spec: GroupNormSpec) -> Array:
    mean, var = _moments(g)
    return (g - mean) / (np.sqrt(var) + spec.epsilon)


def _unbiased(g: Array, spec: GroupNormSpec) -> Array:
    mean, var = _moments(g)
    return _standard(g, mean, var * g.shape[-1] / (g.shape[-1] - 1), spec)


FAULTS: dict[str, Implementation] = {
    "epsilon 1e-3": _with(epsilon=1e-3),
    "epsilon 1e-6": _with(epsilon=1e-6),
    "epsilon x10": _with(epsilon=lambda s: 10 * s.epsilon),
    "epsilon absent": _with(epsilon=1e-30),
    "epsilon outside the root": _z(_outside),
    "unbiased variance": _z(_unbiased),
    "interleaved groups": _interleaved,
    "half the groups": _with(num_groups=lambda s: s.num_groups // 2),
    "per channel": _with(num_groups=lambda s: s.num_channels),
    "one group": _with(num_groups=1),
    "groups one channel late": _late,
    "batch statistics": _z(lambda g, s: _standard(g, g.mean((0, 2), keepdims=True), g.var((0, 2), keepdims=True), s)),
    "first sample's statistics": _z(lambda g, s: _standard(g, *_moments(g[:1]), s)),
    "last element left out": _z(lambda g, s: _standard(g, *_moments(g[..., :-1]), s)),
    "padding counted": _z(_padded),
    "no centring": _z(_rms),
    "mean absolute deviation": _z(_mean_abs),
    "bias dropped": _parameters(lambda w, b, s: (w, 0 * b)),
    "scale dropped": _parameters(lambda w, b, s: (np.ones_like(w), b)),
    "scale and bias per group": _parameters(
        lambda w, b, s: (
            np.repeat(w[:: s.channels_per_group], s.channels_per_group),
            np.repeat(b[:: s.channels_per_group], s.channels_per_group),
        )
    ),
    "scale and bias one channel off": _parameters(lambda w, b, s: (np.roll(w, 1), np.roll(b, 1))),
    "height and width swapped": _transposed,
    "stored in float16": _rounded_output("float16"),
    "stored in bfloat16": _rounded_output("bfloat16"),
}
