"""Constants of the choice from times: least squares, a search for what chooses best, and what either would lose."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from gn_deploy.decision import Rejected
from gn_deploy.plugin.problem import Device, Problem
from gn_deploy.plugin.select import Selection, select
from scripts.gpu.choices import Key, key
from scripts.gpu.model import SELECTING, TIMES, Constants, Parts, current, parts, selecting, whole

ROW_BYTES = range(0, 129, 8)  # of which the least squares are taken: a line of 128 bytes for nothing is the worst
NEAR = 2.0  # times the best of a layer: what takes longer is chosen by nobody, and need not be known
UNTIMED = 0.5  # of the time, counted as lost where what would be chosen was not timed
STEPS = (0.5, 0.7, 1.4, 2.0)  # by which a constant is tried to be changed
FEWEST = 3  # times that must know of a constant for it to be fitted


@dataclass(frozen=True, slots=True)
class Layer:
    """One problem with its times in microseconds."""

    key: str
    problem: Problem
    times: Mapping[Key, float]
    copy_us: float | None = None

    @property
    def best(self) -> Key:
        return min(self.times, key=self.times.__getitem__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What some constants would choose for one layer."""

    layer: Layer
    chosen: Key
    us: float | None
    """None: not timed."""
    expected_us: float

    @property
    def loss(self) -> float:
        """Of the best time, in addition to it."""
        return UNTIMED if self.us is None else self.us / self.layer.times[self.layer.best] - 1


def outcomes(layers: Sequence[Layer], d: Device, c: Constants) -> list[Outcome]:
    found = []
    with selecting(c):
        for layer in layers:
            k = chosen(layer.problem, d)
            expected = parts(layer.problem, d, k).nanoseconds(c) / 1e3
            found.append(Outcome(layer, k, layer.times.get(k), expected))
    return found


def chosen(p: Problem, d: Device) -> Key:
    selection: Selection | Rejected = select(p, d)
    assert isinstance(selection, Selection), "split runs everything"
    return key(selection.choice)


def mean_loss(found: Sequence[Outcome]) -> float:
    return statistics.fmean(o.loss for o in found)


def worst(found: Sequence[Outcome]) -> Outcome:
    return max(found, key=lambda o: o.loss)


def fitted(layers: Sequence[Layer], d: Device) -> Constants:
    """By least squares of relative errors; outliers count less (Huber 1964). What no time knows of stays as it is."""
    rows = [(parts(layer.problem, d, k), us * 1e3, layer) for layer in layers for k, us in _telling(layer).items()]
    best = min((_squares(rows, float(width)) for width in ROW_BYTES), key=lambda found: found[0])
    width = best[1].row_bytes  # once more, finer
    near = [width + step for step in range(-7, 8) if width + step >= 0] if any(r.rows for r, _, _ in rows) else []
    return min([best, *(_squares(rows, w) for w in near)], key=lambda found: found[0])[1]


def _telling(layer: Layer) -> dict[Key, float]:
    """Near the best; of those that differ in their tile only, which other rules choose, the fastest."""
    found: dict[Any, Key] = {}
    for k, us in layer.times.items():
        variant, vectors, _, slices, slab, blocks, ahead = k
        # the blocks of a warp's units are no matter of the model either
        alike = variant, slices, slab, blocks * (variant != "warp"), ahead / vectors
        if us <= NEAR * layer.times[layer.best] and (alike not in found or us < layer.times[found[alike]]):
            found[alike] = k
    return {k: layer.times[k] for k in found.values()}


def _squares(rows: Sequence[tuple[Parts, float, Layer]], row_bytes: float) -> tuple[float, Constants]:
    """The error that is left, and the constants with that width of rows."""
    now = current()
    names = ["cached", "memory", *TIMES]
    full = np.zeros((len(rows), len(names)))
    for line, (part, _, _) in zip(full, rows, strict=True):
        line[0 if part.cached else 1] = part.plain + part.rows * row_bytes
        for name, times in part.times.items():
            line[names.index(name)] = times
    ns = np.array([time for _, time, _ in rows])
    full /= ns[:, None]
    target = np.ones(len(rows))
    known = {
        "cached": 1 / now.cached_rate,
        "memory": 1 / now.memory_rate,
        **{name: float(getattr(now, name)) for name in TIMES},
    }
    for i, name in enumerate(names):
        if np.count_nonzero(full[:, i]) < FEWEST:
            target = target - full[:, i] * known[name]
            full[:, i] = 0
    weight = np.ones(len(rows))
    for _ in range(8):  # far more than it takes to settle
        solved = _not_negative(full * weight[:, None], target * weight)
        error = np.abs(full @ solved - target)
        scale = max(1.4826 * float(np.median(error)), 1e-9)  # a standard deviation, where errors are normal
        weight = np.sqrt(np.minimum(1, 1.345 * scale / np.maximum(error, 1e-12)))  # 95 % efficient (Huber)
    used = {n: float(solved[i]) if full[:, i].any() else known[n] for i, n in enumerate(names)}
    rates = (1 / max(used.pop(name), 1e-6) for name in ("cached", "memory"))
    fixed = {"row_bytes": row_bytes if any(part.rows for part, _, _ in rows) else now.row_bytes, "crowd": now.crowd}
    found = Constants(**dict(zip(("cached_rate", "memory_rate"), rates, strict=True)), **used, **fixed)
    return float(np.mean(np.minimum(error, 0.5) ** 2)), found  # half of the time wrong is as wrong as it gets


def _not_negative(a: Any, b: Any) -> Any:
    """Least squares where what would be negative is zero: columns leave one by one."""
    solved = np.zeros(a.shape[1])
    kept = [i for i in range(a.shape[1]) if a[:, i].any()]
    size = np.linalg.norm(a, axis=0)
    while kept:
        found = np.linalg.lstsq(a[:, kept] / size[kept], b, rcond=None)[0] / size[kept]
        if (found >= 0).all():
            solved[kept] = found
            break
        del kept[int(np.argmin(found * size[kept]))]
    return solved


def searched(layers: Sequence[Layer], d: Device, begin: Sequence[Constants], tries: int = 2) -> Constants:
    """From the best of some, one constant after the other is changed while the mean of what is lost falls."""
    best = min((whole(c) for c in begin), key=lambda c: mean_loss(outcomes(layers, d, c)))
    least = mean_loss(outcomes(layers, d, best))
    for _ in range(tries):
        before = least
        for name in SELECTING:
            value = getattr(best, name)
            for to in {round(value * step) for step in STEPS} - {round(value)}:
                other = whole(replace(best, **{name: to}))
                loss = mean_loss(outcomes(layers, d, other))
                if loss < least - 1e-4:  # less is not worth another number
                    best, least = other, loss
        if least >= before:
            break
    return best


def page(layers: Sequence[Layer], d: Device, told: str) -> str:
    """All that --fit prints."""
    now, by_squares = current(), fitted(layers, d)
    by_search = searched(layers, d, (now, by_squares))
    lines = [told, "", *_table(_layers(outcomes(layers, d, now), d, now)), ""]
    sets = {"now": now, "least squares": by_squares, "search": by_search}
    rows = [("constant", *sets)]
    for f in fields(Constants):
        rows.append((f"k{f.name.title().replace('_', '')}", *(f"{getattr(c, f.name):.4g}" for c in sets.values())))
    found = {name: outcomes(layers, d, c) for name, c in sets.items()}
    rows.append(("mean loss", *(f"{100 * mean_loss(each):.1f} %" for each in found.values())))
    rows.append(("worst loss", *(f"{100 * worst(each).loss:.0f} %" for each in found.values())))
    rows.append(("worst layer", *(worst(each).layer.key for each in found.values())))
    rows.append(("not timed", *(str(sum(o.us is None for o in each)) for each in found.values())))
    lines += [*_table(rows), ""]
    lines.append(
        f"Loss: beyond the best choice's time; {100 * UNTIMED:.0f} % where what would be chosen was not timed."
    )
    lines.append(
        "kStartNs is every launch's, no constant of select.cpp; what is expected now is without it. The search"
    )
    lines.append("knows these layers only: changes of a percent are noise. kSectorBytes and the rule of a tenth stay.")
    return "\n".join(lines)


def _layers(found: Sequence[Outcome], d: Device, c: Constants) -> list[tuple[str, ...]]:
    rows = [("layer", "selected", "us", "expected", "best", "us", "expected", "times as fast", "copy us")]
    for o in found:
        layer, best = o.layer, o.layer.best
        expected = parts(layer.problem, d, best).nanoseconds(c) / 1e3
        cells = _short(o.chosen), _us(o.us), _us(o.expected_us), _short(best), _us(layer.times[best]), _us(expected)
        rows.append((layer.key, *cells, "-" if o.us is None else f"{1 + o.loss:.2f}", _us(layer.copy_us)))
    return rows


def _us(us: float | None) -> str:
    return "-" if us is None else f"{us:.2f}"


def _short(k: Key) -> str:
    """team 5x256 2/264 slab 80 +5"""
    variant, vectors, threads, slices, slab, blocks, ahead = k
    return f"{variant} {vectors}x{threads} {slices}/{blocks} slab {slab}" + (f" +{ahead}" if ahead else "")


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    wide = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, wide, strict=True)).rstrip() for row in rows]
