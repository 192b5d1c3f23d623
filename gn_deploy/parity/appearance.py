"""What an error looks like, in words: which numbers are wrong, and how they follow from the right ones."""

import numpy as np
from numpy.typing import NDArray

from gn_deploy.reference import F64
from gn_deploy.rounding import FORMATS, rounded

_FEW = 0.5  # of an axis: wrong in more than half of its places is wrong along it; of a tensor: rounding is everywhere
_LOWER = ("bfloat16", "float16", "tf32")  # the last two keep as many bits, in another range
_MANY = 32  # numbers at least, before what they have in common is more than chance
_STORED = 4  # numbers other than zero that all end in 13 or 16 zero bits: no accident
_HELD = 0.98  # of the error that a fit must explain, as a share of its mean square


def appearance(actual: NDArray[np.generic], expected: F64, bound: F64 | float, *, channel_axis: int = 1) -> str:
    """One phrase on ``actual``, which should be within ``bound`` of the float64 ``expected``; "" when it is.

    Tried in this order: another shape; NaN and infinity; nothing or one number everywhere; how the wrong numbers follow
    from the right ones (slope and offset, whole or per channel, a sign, an activation, channels in another order, a
    lower precision); else where they are. What all of a tensor shows goes before what a part of it does.
    """
    if actual.shape != expected.shape:
        return f"shape {_dims(actual.shape)} instead of {_dims(expected.shape)}"
    a = np.asarray(actual).astype(np.float64)
    allowed = np.broadcast_to(np.asarray(bound, np.float64), expected.shape)
    with np.errstate(all="ignore"):
        special = (np.isfinite(a) != np.isfinite(expected)) & np.isfinite(allowed)
        wrong = special | (np.abs(a - expected) > allowed)
    if not wrong.any():
        return ""
    if special.any():
        what = "NaN" if np.isnan(a[special]).any() else "infinity" if np.isinf(a[special]).any() else "a finite number"
        than = "" if np.isfinite(expected[special]).all() else " where NaN or infinity is right"
        return f"{what} in {_share(special)}{than}{_place(special, channel_axis)}"
    if a.size > 1 and not np.any(a) and np.any(expected):
        return "zeros everywhere"
    if a.size >= _MANY and np.ptp(a) == 0:
        return f"the number {a.flat[0]:g} everywhere"
    with np.errstate(all="ignore"):
        follows = _follows(a, expected, allowed) or _follows_in_part(a, expected, allowed, wrong)
        follows = follows or _channels(a, expected, allowed, channel_axis)
        lower = "" if follows else _steps(a - expected, wrong) or _precision(a, expected, allowed, wrong)
    where = _place(wrong, channel_axis)
    if follows or lower:
        return (follows or lower) + where
    size = float(
        np.sqrt(np.square(a - expected)[wrong].mean()) / max(float(np.sqrt(np.square(expected).mean())), 1e-300)
    )
    return f"off by {size:.2g} of the usual size in {_share(wrong)}{where}"


def fit(a: F64, r: F64) -> tuple[float, float]:
    """Least squares a = slope r + offset; NaN slope when r has no spread."""
    centred = r - r.mean()
    spread = float(np.square(centred).sum())
    if spread <= 0:
        return float("nan"), float(a.mean() - r.mean())
    slope = float((a * centred).sum() / spread)
    return slope, float(a.mean() - slope * r.mean())


def _follows(a: F64, r: F64, allowed: F64) -> str:
    """How all of ``a`` is made from ``r``, up to the bound; "" when no simple rule is found."""
    if a.size < _MANY:
        return ""
    slope, offset = fit(a, r)
    if np.isfinite(slope) and _near(a, slope * r + offset, r, allowed):
        return _line(slope, offset, float(allowed.max()), float(np.abs(r).max()))
    for told, guess in (
        ("negative numbers are zero, as after a ReLU", np.maximum(r, 0.0)),
        ("turned along its last two axes", np.swapaxes(r, -1, -2) if r.ndim > 2 and r.shape[-1] == r.shape[-2] else r),
    ):
        if guess is not r and _explained(a, guess, allowed):
            return told
    if _explained(np.maximum(a, 0.0), r, allowed) and (a < 0).any():
        return "negative numbers are still there, as before a ReLU"
    return ""


def _channels(a: F64, r: F64, allowed: F64, channel_axis: int) -> str:
    """The same channel by channel."""
    if a.size < _MANY or a.ndim < 2 or a.shape[channel_axis] < 2:
        return ""
    first = [np.moveaxis(v, channel_axis, 0) for v in (a, r, allowed)]
    found = _by_channel(first[0], first[1], first[2], "channel")
    if not found and a.ndim > 2 and channel_axis % a.ndim and a.shape[0] > 1:
        second = [np.moveaxis(v, channel_axis, 1) for v in (a, r, allowed)]
        rows = [v.reshape(-1, *v.shape[2:]) for v in second]
        found = _by_channel(rows[0], rows[1], rows[2], "channel of each sample")
    return found


def _follows_in_part(a: F64, r: F64, allowed: F64, wrong: NDArray[np.bool_]) -> str:
    """The same for the wrong numbers alone, the others being right."""
    if wrong.sum() < _MANY or wrong.all():
        return ""
    if not np.any(a[wrong]):
        return "zeros"
    slope, offset = fit(a[wrong], r[wrong])
    if np.isfinite(slope) and _near(a[wrong], slope * r[wrong] + offset, r[wrong], allowed[wrong]):
        return _line(slope, offset, float(allowed.max()), float(np.abs(r).max()))
    return ""


def _by_channel(a: F64, r: F64, allowed: F64, unit: str) -> str:
    """Channels first in all three."""
    count = len(a)
    a, r, allowed = (v.reshape(count, -1) for v in (a, r, allowed))
    bad = (np.abs(a - r) > allowed).any(axis=1)
    mean = r.mean(axis=1, keepdims=True)
    spread = np.square(r - mean).sum(axis=1)
    with np.errstate(all="ignore"):
        slope = np.where(spread > 0, (a * (r - mean)).sum(axis=1) / spread, 1.0)[:, None]
    offset = a.mean(axis=1, keepdims=True) - slope * mean
    if a.shape[1] >= 4 and _explained(a, slope * r + offset, allowed):  # 4: two numbers are always on a line
        moved = np.abs(offset[bad]).max() > allowed[bad].max()
        scaled = np.abs(slope[bad] - 1).max() * np.abs(r).max() > allowed[bad].max()
        if bad.sum() == 1:
            return _line(
                float(slope[bad][0, 0]), float(offset[bad][0, 0]), float(allowed.max()), float(np.abs(r).max())
            )
        words = " and ".join(w for w, yes in (("scaled", scaled), ("moved", moved)) if yes) or "moved"
        return f"each {unit} {words} by its own amount"
    if unit == "channel" and bad.sum() > 1:
        order = _order(a, r, allowed)
        if order is not None:
            step = (order - np.arange(count)) % count
            if (step == step[0]).all():
                return f"channels moved by {min(int(step[0]), count - int(step[0]))}"
            return "channels in another order"
    return ""


def _order(a: F64, r: F64, allowed: F64) -> NDArray[np.intp] | None:
    """Which channel of ``r`` each channel of ``a`` is, when every one is another one."""
    key = np.argsort(r[:, 0])
    found = np.empty(len(a), np.intp)
    for i, channel in enumerate(a):
        at = int(np.searchsorted(r[key, 0], channel[0]))
        near = [key[k] for k in range(max(at - 2, 0), min(at + 2, len(key)))]
        match = [c for c in near if (np.abs(channel - r[c]) <= allowed.max()).all()]
        if not match:
            return None
        found[i] = match[0]
    return found if len(np.unique(found)) == len(found) else None


def _steps(error: F64, wrong: NDArray[np.bool_]) -> str:
    """Errors that are all whole multiples of one number, as where a number was rounded to another step."""
    sizes = np.sort(np.abs(error[wrong]))
    step = float(sizes[0])
    if len(sizes) < _STORED or step <= 0 or sizes[-1] > 64 * step:  # 64: beyond, anything is near a multiple
        return ""
    whole = np.round(sizes / step)
    if np.abs(sizes / step - whole).max() > 0.02:  # of a step: what rounding elsewhere adds
        return ""
    steps = "one step" if whole.max() == 1 else f"up to {int(whole.max())} steps"
    return f"off by {steps} of {step:.3g} in {_share(wrong)}"


def _precision(a: F64, r: F64, allowed: F64, wrong: NDArray[np.bool_]) -> str:
    """A dtype lower than was bound for: stored in it, or computed in it."""
    if np.count_nonzero(a) < _STORED or float(allowed.min()) <= 0:
        return ""
    typical = float(np.sqrt(np.square(r).mean()))
    error = float(np.sqrt(np.square(a - r).mean()))
    for dtype in _LOWER:
        kept = rounded(a, dtype)
        form = FORMATS[dtype]
        if (
            np.mean(kept == a) > _HELD and (np.abs(a - r) <= 4 * form.u * np.abs(r) + float(allowed.max())).all()
        ):  # 4: and two or three operations before it
            return f"rounded to {dtype}"
    for dtype in ("float16", "bfloat16") if a.size >= _MANY and wrong.mean() > _FEW else ():  # the finer first
        if (
            typical and FORMATS[dtype].u / 16 < error / typical < 4 * FORMATS[dtype].u
        ):  # random signs: far below u per operation
            return f"errors of the size that {dtype} arithmetic makes"
    return ""


def _line(slope: float, offset: float, bound: float, size: float) -> str:
    scaled = abs(slope - 1) * size > bound
    moved = abs(offset) > bound
    if not scaled:
        return f"moved by {offset:.4g}"
    if abs(slope + 1) * size <= bound and not moved:
        return "the other sign"
    return f"{slope:.6g} times what it should be" + (f", moved by {offset:.4g}" if moved else "")


def _near(a: F64, guess: F64, r: F64, allowed: F64) -> bool:
    """A guess with fitted numbers holds where the bound or nearly all of the error is explained."""
    left, error = np.square(a - guess), np.square(a - r)
    return _explained(a, guess, allowed) or bool(left.sum() < (1 - _HELD) ** 2 * error.sum())


def _explained(a: F64, guess: F64, allowed: F64) -> bool:
    return bool((np.abs(a - guess) <= 2 * allowed).all())  # 2: the fit has an error of its own


def _place(wrong: NDArray[np.bool_], channel_axis: int) -> str:
    """Where the wrong numbers are, when that is less than everywhere."""
    told = []
    kinds = {0: "sample", channel_axis % wrong.ndim: "channel"} if wrong.ndim >= 2 else {}
    for axis, kind in kinds.items():
        if wrong.shape[axis] > 1:
            others = tuple(i for i in range(wrong.ndim) if i != axis)
            hit = np.flatnonzero(wrong.any(axis=others))
            if len(hit) <= max(1, _FEW * wrong.shape[axis]) and len(hit) < wrong.shape[axis]:
                told.append(f"{kind}{'s' if len(hit) > 1 else ''} {_listed(hit)} of {wrong.shape[axis]}")
    spatial = tuple(i for i in range(1, wrong.ndim) if i not in kinds)
    if spatial and (edge := _edge(wrong, spatial)):
        told.append(edge)
    elif not told and 0 < wrong.sum() <= max(1, wrong.size // 100):
        last = np.flatnonzero(wrong.ravel())
        if last[0] >= wrong.size - 4 * len(last):
            told.append(f"the last {wrong.size - last[0]} numbers")
        elif len(last) == 1:
            told.append("one number")
    return f" (only {', '.join(told)})" if told else ""


def _edge(wrong: NDArray[np.bool_], spatial: tuple[int, ...]) -> str:
    """Only first or last places along spatial axes of more than two."""
    axes = [i for i in spatial if wrong.shape[i] > 2]  # of two places both are borders
    if not axes:
        return ""
    inside = wrong
    for axis in axes:
        inside = np.take(inside, range(1, inside.shape[axis] - 1), axis)
    return "" if inside.any() else "at the border"


def _share(mask: NDArray[np.bool_]) -> str:
    count = int(mask.sum())
    return "every number" if count == mask.size and count > 1 else f"{count} of {mask.size} numbers"


def _listed(hit: NDArray[np.intp], limit: int = 4) -> str:
    shown = [str(int(i)) for i in hit[:limit]]
    return ", ".join(shown) + (f" and {len(hit) - limit} more" if len(hit) > limit else "")


def _dims(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "()"
