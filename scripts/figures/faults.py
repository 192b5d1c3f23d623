"""Which of the named faults of a GroupNorm are seen: by error over bound, by what others measure, by the probes."""

from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from multiprocessing import get_context
from unittest.mock import patch

import numpy as np

from gn_deploy.faults import FAULTS, Kind, applies
from gn_deploy.parity import per_site
from gn_deploy.parity.cases import deal, hands
from gn_deploy.parity.metrics import by_slot, classify
from gn_deploy.parity.per_site import judge_arrays, settled
from gn_deploy.parity.promise import Promise
from gn_deploy.parity.status import Status, worst
from gn_deploy.reference import F64
from scripts.figures import percent, versions
from scripts.figures.operators import DATA, DTYPES, OPERATORS, Given, given, judged
from scripts.figures.rivals import RIVALS, SHIPPED, errors
from scripts.pages import table

HOPELESS = ("large_mean",)
"""Mean over spread is 1e6: rounding x to float32 moves it by 6 % of the spread, so that little is left to be told."""


@dataclass(frozen=True, slots=True)
class Found:
    """One fault on one input that it acts on."""

    dtype: str
    operator: str
    data: str
    fault: str
    status: Status
    effect: float
    """How far off the answer is, in the largest error of the right implementations in the same group."""
    errors: dict[str, float]
    """Of the rivals; empty unless asked for."""

    @property
    def seen(self) -> bool:
        return self.status is not Status.PASS


@dataclass(frozen=True)
class Measured:
    """What ``seed`` found out, and the rivals' numbers for right implementations on the same inputs."""

    found: list[Found]
    benign: list[tuple[str, dict[str, float]]]
    """Data and numbers."""
    alarms: int

    def tellable(self) -> "Measured":
        """Without the data on which float32 holds too little to tell."""
        found = [f for f in self.found if f.data not in HOPELESS]
        return Measured(found, [b for b in self.benign if b[0] not in HOPELESS], self.alarms)

    @cached_property
    def thresholds(self) -> dict[str, float]:
        """The best each rival can do without a false alarm."""
        return {name: max(numbers[name] for _, numbers in self.benign) for name in RIVALS}

    def false_alarms(self, name: str) -> int:
        return sum(numbers[name] > 0 for _, numbers in self.benign)


def seed(operators: Iterable[str] = OPERATORS, dtype: str = "float32", *, rivals: bool = True) -> Measured:
    """Every fault that acts, on every operator and kind of data."""
    found: list[Found] = []
    benign: list[tuple[str, dict[str, float]]] = []
    alarms = 0
    for operator in operators:
        for data in DATA:
            one = given(operator, data, dtype)
            for y in one.right():
                alarms += classify(y, one.limits, dtype=dtype) is not Status.PASS
                benign += [(data, errors(y, one.limits.reference, dtype))] if rivals else []
            noise = _noise(one)
            found += [f for fault in FAULTS if _acts(one, fault) and (f := _found(one, fault, noise, rivals))]
    return Measured(found, benign, alarms)


def _acts(one: Given, fault: str) -> bool:
    if FAULTS[fault].kind is not Kind.NAN and one.data in ("one_nan", "one_inf"):
        return False  # as good as normal data: it would only swell the count
    return bool(applies(FAULTS[fault], one.spec, one.x.shape))


def _found(one: Given, fault: str, noise: F64, rivals: bool) -> Found | None:
    """None where the fault does not move the answer."""
    exact = FAULTS[fault].compute(one.x, one.spec, **one.around)
    if not one.is_moved(exact):
        return None
    y = one.rounded(exact)
    numbers = errors(y, one.limits.reference, one.spec.dtype) if rivals else {}
    status = classify(y, one.limits, dtype=one.spec.dtype)
    return Found(one.spec.dtype, one.operator, one.data, fault, status, _effect(one, y, noise), numbers)


def _noise(one: Given) -> F64:
    """The largest error of any right implementation in each group."""
    return np.max([_errors(one, y) for y in one.right()], axis=0)


def _effect(one: Given, y: np.ndarray, noise: F64) -> float:
    with np.errstate(all="ignore"):
        return float(np.nanmax(np.append(_errors(one, y) / noise, 0.0)))


def _errors(one: Given, y: np.ndarray) -> F64:
    """The largest error in each group; infinite where only one of the two is NaN."""
    with np.errstate(all="ignore"):
        error = np.abs(y.astype(np.float64) - one.limits.reference)
    error = np.where(np.isnan(y) & np.isnan(one.limits.reference), 0.0, np.nan_to_num(error, nan=np.inf))
    return by_slot(error, one.spec).max(axis=1)


@dataclass(frozen=True, slots=True)
class Probed:
    """One fault under all probes of one operator, families dealt over its groups as the harness does."""

    moved: bool
    """Whether it acts on any of them."""
    status: Status
    effect: float
    """As ``Found.effect``, on the probe that shows most."""


def probed(operator: str, dtype: str) -> dict[str, Probed]:
    """Every fault that applies to the operator."""
    spec, shape = OPERATORS[operator]
    spec = replace(spec, dtype=dtype)
    dealt = [
        (judged(operator, "", spec, x), hand) for x, hand in zip(deal(shape, spec), hands(shape, spec), strict=True)
    ]
    noise = [_noise(one) for one, _ in dealt]
    found = {}
    for name, fault in FAULTS.items():
        if not applies(fault, spec, shape):
            continue
        moved, effect, evidence = False, 0.0, []
        for (one, hand), least in zip(dealt, noise, strict=True):
            exact = fault.compute(one.x, spec, **one.around)
            moved |= one.is_moved(exact)
            y = one.rounded(exact)
            effect = max(effect, _effect(one, y, least))
            operands = {n: a for n, a in one.around.items() if n not in ("scale", "bias")}
            scale, bias = one.around["scale"], one.around["bias"]
            with patch.object(per_site, "SIGNED", 0):  # what the fault looks like is not asked here, and costs most
                evidence += judge_arrays(one.x, y, spec, scale, bias, case="probe", hand=hand, operands=operands)
        evidence, _ = settled(evidence, Promise(written=(dtype,)))
        found[name] = Probed(moved, worst(e.status for e in evidence), effect)
    return found


def share(found: Sequence[Found], *, clear: bool = False) -> str:
    """Percent seen; ``clear`` keeps what is further off than any right implementation on the same input."""
    kept = [f for f in found if f.effect > 1] if clear else found
    return percent(sum(f.seen for f in kept), len(kept))


def section() -> str:
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as workers:  # one process to a core
        parts = {d: [workers.submit(seed, [o], d, rivals=d == "float32") for o in OPERATORS] for d in DTYPES}
        words = {d: {o: workers.submit(probed, o, d) for o in OPERATORS} for d in DTYPES[:2]}
        measured = [_together(part.result() for part in parts[d]) for d in DTYPES]
        told = {d: {o: future.result() for o, future in of.items()} for d, of in words.items()}
    return "\n\n".join(
        [
            _by_fault(measured),
            _alarms(measured[0]),
            _by_data(measured),
            _misses(measured),
            _words(told),
            versions("numpy", "torch"),
        ]
    )


def _together(parts: Iterable[Measured]) -> Measured:
    kept = list(parts)
    found = [f for part in kept for f in part.found]
    return Measured(found, [b for part in kept for b in part.benign], sum(part.alarms for part in kept))


def _by_fault(measured: Sequence[Measured]) -> str:
    header = ["fault", "cases", "error / bound", *RIVALS, *SHIPPED, *DTYPES[1:]]
    tellable = [m.tellable() for m in measured]
    rows = [_row(name, name, tellable) for name in FAULTS if any(f.fault == name for m in tellable for f in m.found)]
    every = "", "**all**"
    return table([header, *rows, _row(*every, tellable), _row("", f"with `{HOPELESS[0]}`", measured)])


def _row(fault: str, title: str, measured: Sequence[Measured]) -> list[object]:
    """Percent of ``fault`` seen, of every one without a name."""
    single, *halves = ([f for f in m.found if fault in ("", f.fault)] for m in measured)
    limits = measured[0].thresholds
    rivals = [percent(sum(f.errors[name] > limits[name] for f in single), len(single)) for name in RIVALS]
    shipped = [percent(sum(f.errors[name] > 0 for f in single), len(single)) for name in SHIPPED]
    return [title, len(single), share(single), *rivals, *shipped, *map(share, halves)]


def _alarms(single: Measured) -> str:
    right = len(single.benign)
    told = ", ".join(f"{name} alarms at {percent(single.false_alarms(name), right)} %" for name in SHIPPED)
    return f"Of {right:,} right answers in float32 error / bound alarms at {single.alarms}; {told}."


def _by_data(measured: Sequence[Measured]) -> str:
    def cells(name: str, of: Measured) -> list[object]:
        found = [f for f in of.found if f.data == name]
        return [len(found), share(found), share(found, clear=True)]

    header = ["data", *(f"{dtype}: {what}" for dtype in DTYPES for what in ("cases", "seen", "of the clear"))]
    names = [name for name in DATA if any(f.data == name for m in measured for f in m.found)]
    return table([header, *([f"`{name}`", *(c for m in measured for c in cells(name, m))] for name in names)])


def _misses(measured: Sequence[Measured]) -> str:
    edges = (-1.0, 1.0, 5.0, 10.0, np.inf)
    rows: list[list[object]] = [
        ["", "not seen", "no further off than right ones", "up to 5 times that", "up to 10", "more"]
    ]
    for dtype, of in zip(DTYPES, measured, strict=True):
        missed = [f.effect for f in of.tellable().found if not f.seen]
        counts = [sum(low < effect <= high for effect in missed) for low, high in pairwise(edges)]
        rows.append([dtype, len(missed), *counts])
    return table(rows)


def _words(words: dict[str, dict[str, dict[str, Probed]]]) -> str:
    rows: list[list[object]] = [["fault", *(f"{dtype} probes" for dtype in words)]]
    for name in FAULTS:
        counts = [Counter(w[name].status for w in of.values() if name in w and w[name].moved) for of in words.values()]
        if any(counts):
            told = [", ".join(f"{status} {n}" for status, n in sorted(c.items())) or "-" for c in counts]
            rows.append([name, *told])
    return table(rows)
