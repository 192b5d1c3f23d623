"""From scores of two models on the same samples to a verdict: difference, interval, and what it means."""

import math
from dataclasses import dataclass, field

import numpy as np

from gn_deploy.errors import InputError
from gn_deploy.parity.proportion import clopper_pearson_lower
from gn_deploy.parity.report import TaskVerdict
from gn_deploy.parity.status import Status
from gn_deploy.parity.task.interval import (
    Interval,
    bootstrap,
    paired_proportions,
    settling,
    settling_proportions,
)
from gn_deploy.parity.task.metric import Metric, mean
from gn_deploy.reference import F64


@dataclass(slots=True)
class Tally:
    """What one model has scored so far, batch by batch."""

    rows: list[F64] = field(default_factory=list)
    agreed: int = 0
    certified: int = 0

    def table(self, width: int) -> F64:
        """(N, K): statistics of all samples, classes that a batch did not have filled up with zeros."""
        wide = [np.pad(r, [(0, 0)] * (r.ndim - 1) + [(0, width - r.shape[-1])]) if r.ndim > 1 else r for r in self.rows]
        return np.concatenate([r.reshape(len(r), -1) for r in wide])

    @property
    def width(self) -> int:
        return max((r.shape[-1] for r in self.rows if r.ndim > 1), default=0)


def judged(
    runtime: str, metric: Metric, name: str, reference: Tally, actual: Tally, *, allowed_drop: float | None = None
) -> TaskVerdict:
    """The verdict on ``actual``. ``name`` is what the metric is called in the report.

    Non-inferiority, decided by the 95 % interval of the paired difference: PASS when its lower end is not below
    -``allowed_drop``, FAIL when its upper end is, else WARN with the number of samples that would settle it. So both a
    PASS and a FAIL are wrong for at most one in forty data sets. NAN where only ``actual`` has no score.

    The interval is ``bootstrap``'s. Scores of only 0 and 1 are compared by ``paired_proportions`` as well and the wider
    end counts, because where few samples change resampling is too sure.
    """
    width = max(reference.width, actual.width)
    want, got = reference.table(width), actual.table(width)
    samples = len(want)
    with np.errstate(invalid="ignore"):
        before, after = float(metric.value(want.mean(0))), float(metric.value(got.mean(0)))
        difference = 0.0 if before == after else after - before
    lost, gained = (int(((b == 1) & (a == 0)).sum()) for b, a in ((want, got), (got, want)))
    binary = metric.value is mean and bool(np.isin(want, (0, 1)).all() and np.isin(got, (0, 1)).all())
    interval: tuple[float, ...] = ()
    if math.isfinite(difference):
        ends = bootstrap(want, got, metric.value)
        if binary:
            low, high = paired_proportions(lost, gained, samples)
            ends = min(low, ends[0]), max(high, ends[1])
        interval = ends if all(map(math.isfinite, ends)) else ()
    broken = np.isnan(got).any(1) & ~np.isnan(want).any(1)
    status, reason = Status.NOTRUN, ""
    if broken.any():
        status = Status.NAN
        reason = f"the metric is NaN on {int(broken.sum())} samples, first on sample {int(broken.argmax())}"
    elif allowed_drop is not None and not interval:
        status, reason = Status.NAN, "the metric is NaN or infinite, so no difference can be judged"
    elif allowed_drop is not None:
        needed = (
            settling_proportions(lost, gained, samples, allowed_drop)
            if binary
            else settling(difference, (interval[0], interval[1]), allowed_drop, samples)
        )
        status, reason = _decided((interval[0], interval[1]), allowed_drop, samples, needed, metric.share)
    if binary and (lost or gained):
        reason = "; ".join(filter(None, (reason, f"{lost} samples lost, {gained} gained")))
    told = metric.agree is not None
    return TaskVerdict(
        runtime=runtime,
        metric=name,
        reference_value=before,
        value=after,
        agreement=actual.agreed / samples if told else math.nan,
        samples=samples,
        agreement_lower=clopper_pearson_lower(actual.agreed, samples) if told else math.nan,
        certified=actual.certified,
        difference=difference,
        interval=interval,
        allowed_drop=math.nan if allowed_drop is None else allowed_drop,
        status=status,
        reason=reason,
    )


def _decided(interval: Interval, allowed: float, samples: int, needed: int, share: bool) -> tuple[Status, str]:
    low, high = interval
    if low >= -allowed:
        return Status.PASS, ""
    if high < -allowed:
        return Status.FAIL, f"a drop of at least {_size(-high, share)}, {_size(allowed, share)} is allowed"
    could = f"a drop of {_size(-low, share)} cannot be ruled out with {samples} samples"
    if not needed:
        return Status.WARN, f"{could}, and the difference is too near to what is allowed for more to settle it"
    return Status.WARN, f"{could}; about {_rounded(needed):,} like these would settle it"


def _rounded(count: int) -> int:
    """Up to two digits: more would claim to know."""
    step = int(10 ** max(len(str(count)) - 2, 0))
    return -(-count // step) * step


def _size(value: float, share: bool) -> str:
    return f"{100 * value:.3g} %" if share else f"{value:.3g}"


def parse_drop(text: str | float) -> float:
    """0.5% -> 0.005, 0.005 -> 0.005, 0.1dB -> 0.1; InputError for anything else and below zero."""
    written = str(text).strip().lower().removesuffix("db").strip()
    percent = written.endswith("%")
    try:
        value = float(written.removesuffix("%")) / (100 if percent else 1)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise InputError(f"'{text}' is not an allowed drop", "for example 0.5% or 0.005; 0.1 for PSNR, in dB")
    return value
