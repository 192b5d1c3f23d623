"""Whole tensors of any size against float64 on the device, where NumPy would take minutes."""

import math
from collections.abc import Sequence
from typing import Any

from gn_deploy.parity.tolerance import LIPSCHITZ
from gn_deploy.rounding import FORMATS
from gn_deploy.spec import Activation
from scripts.gpu.cases import Case
from scripts.gpu.operands import Operands

AT_ONCE = 1 << 24  # elements in float64 at a time: 128 MiB for each of a dozen temporaries
GATE = 4.0  # u |y|: exp to 2 ulp, one addition, one division (parity/tolerance.py)
MODULATED = 4.0  # u (|w z| + |b|): 1 + s, two products, one sum, in float32


def error_over_bound(case: Case, operands: Operands, i: int, torch: Any, samples: Sequence[int] | None = None) -> float:
    """The worst of slot ``i``, infinite for NaN or a sum that is not x + residual rounded; of all samples, or of some.

    The bound is that of gn_deploy.parity.tolerance without its replayed sums, which serve data worse than these.
    """
    total = operands.x(i)
    if case.parts.residual:
        total = total + operands.residual(i)
    if case.parts.sum and not torch.equal(operands.sum(i), total):
        return math.inf
    worst, y = 0.0, operands.y(i)
    channels = case.shape[1] // case.groups
    step = max(AT_ONCE // (channels * case.positions), 1)  # groups
    for sample in range(case.shape[0]) if samples is None else samples:
        for first in range(0, case.groups, step):
            part = slice(first * channels, min(first + step, case.groups) * channels)
            modulation = [m[sample, part] for m in operands.modulation]
            ratio = _worst(case, torch, total[sample, part], y[sample, part], operands, part, modulation)
            worst = max(worst, math.inf if math.isnan(ratio) else ratio)
    return worst


def _worst(case: Case, torch: Any, x: Any, y: Any, operands: Operands, part: slice, modulation: list[Any]) -> float:
    """Of some groups of one sample; x and y are (C', ...)."""
    channels = case.shape[1] // case.groups
    x, y = (v.reshape(-1, channels, case.positions).double() for v in (x, y))
    n = channels * case.positions
    u, (u_o, _, least) = FORMATS["float32"].u, FORMATS[case.dtype]
    mean = x.mean((1, 2), keepdim=True)
    var = (x - mean).square().mean((1, 2), keepdim=True)
    r = (var + 1e-5).rsqrt()
    weight, bias = (p[part].double().view(-1, channels, 1) for p in (operands.scale, operands.bias))
    if modulation:
        s, t = (m.double().view(-1, channels, 1) for m in modulation)
        weight, bias = weight * (1 + s), bias * (1 + s) + t
    z = (x - mean) * r
    exact = weight * z + bias
    wz, size = (weight * z).abs(), bias.abs()
    d = math.ceil(math.log2(max(n, 2))) * u * x.abs().mean((1, 2), keepdim=True) * r
    rho = (math.ceil(math.log2(max(n, 2))) + 3) * u * var * r * r + d * d
    bound = weight.abs() * d + wz * rho / (2 * (1 - rho).clamp(min=0.1))
    bound = bound + 2 * u * (weight.abs() * r * (x.abs() + mean.abs()) + wz + size)
    bound = bound + MODULATED * u * (wz + size) * bool(modulation) + u_o * exact.abs() + least / 2
    activation = Activation(case.parts.activation)
    bound = LIPSCHITZ[activation] * bound
    if activation is Activation.SILU:
        wanted = exact * torch.sigmoid(exact)
        bound = bound + GATE * u * exact.abs() + 2 * u_o * wanted.abs() + least / 2 * (2 + exact.abs())
    elif activation is Activation.RELU:
        wanted = exact.clamp(min=0)
    else:
        wanted = exact
    return float(((y - wanted).abs() / bound).max())
