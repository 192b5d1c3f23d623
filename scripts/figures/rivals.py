"""The measures that others judge by, each as one number that grows with the error."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from gn_deploy.parity.metrics import ulp
from gn_deploy.reference import F64

Rival = Callable[[F64, F64, str], float]
"""(answer, exact, dtype) -> error; NaN and Inf are compared before."""


def max_abs(y: F64, want: F64, dtype: str) -> float:
    return float(np.abs(y - want).max())


def max_rel(y: F64, want: F64, dtype: str) -> float:
    """Equal zeros are equal."""
    error = np.abs(y - want)
    return float(np.where(error == 0, 0.0, error / np.maximum(np.abs(want), np.finfo(np.float64).tiny)).max())


def cosine(y: F64, want: F64, dtype: str) -> float:
    """1 - cosine, as half the squared distance of the unit vectors: nothing cancels."""
    lengths = [float(np.sqrt(np.square(v / (np.abs(v).max() or 1.0)).sum()) * np.abs(v).max()) for v in (y, want)]
    if not all(lengths):
        return float(lengths[0] != lengths[1])
    return float(np.square(y / lengths[0] - want / lengths[1]).sum() / 2)


def psnr(y: F64, want: F64, dtype: str) -> float:
    """Minus the peak signal-to-noise ratio in dB; the peak is the range of the exact answer."""
    noise = float(np.square(y - want).mean())
    peak = float(want.max() - want.min()) or 1.0
    return 10 * np.log10(noise / peak**2) if noise else -np.inf


def max_ulp(y: F64, want: F64, dtype: str) -> float:
    return float((np.abs(y - want) / ulp(want, dtype)).max())


RIVALS: dict[str, Rival] = {"max abs": max_abs, "max rel": max_rel, "cosine": cosine, "PSNR": psnr, "ULP": max_ulp}


def polygraphy(y: F64, want: F64) -> bool:
    """Whether its default alarms: one element with an absolute and a relative error above 1e-5."""
    error = np.abs(y - want)
    return bool(((error > 1e-5) & (error > 1e-5 * np.abs(want))).any())


def torch_verify(y: F64, want: F64) -> bool:
    """torch.onnx.export(verify=True): the largest absolute error reaches 5e-3 or the largest relative one 0.1."""
    error = np.abs(y - want)
    relative = error / (np.abs(want) + 1e-7)  # its own floor
    return bool(error.max() >= 5e-3 or relative.max() >= 0.1)


SHIPPED = {"polygraphy": polygraphy, "torch verify": torch_verify}


def errors(y: NDArray[np.generic], want: F64, dtype: str) -> dict[str, float]:
    """Every rival's number, infinite where only one of the two is NaN, or Inf; shipped rules as 0 or 1."""
    got = y.astype(np.float64)
    with np.errstate(all="ignore"):
        known = want.astype(dtype).astype(np.float64)
        special = ~np.isfinite(got) | ~np.isfinite(known)
        same = (got == known) | (np.isnan(got) & np.isnan(known))
        if (special & ~same).any():
            return dict.fromkeys([*RIVALS, *SHIPPED], np.inf)
        got, want = got[~special], want[~special]
        if not got.size:
            return dict.fromkeys([*RIVALS, *SHIPPED], -np.inf)
        numbers = {name: rival(got, want, dtype) for name, rival in RIVALS.items()}
        return numbers | {name: float(rule(got, want)) for name, rule in SHIPPED.items()}
