"""The result of a comparison as plain data: what was judged, where, how far off it was, and whether parity held."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

SCHEMA_VERSION = 1
"""Of ``ParityReport.to_dict`` and so of report.json; raised when a field changes its meaning or goes away."""


class Status(StrEnum):
    """What was found out about one site or output on one runtime."""

    PASS = "pass"
    UNSTABLE = "unstable"
    """Outside the bound, inside the one of one-pass variance (E[x^2] - E[x]^2): right formula, unsafe arithmetic."""
    FAIL = "fail"
    NAN = "nan"
    """NaN or Inf where the reference has a number, or the other way round."""
    CRASH = "crash"
    NOTRUN = "notrun"
    """The runtime is not available here; never counted as a pass."""
    WARN = "warn"
    """End to end only: suspicious, but every site held."""

    @property
    def broken(self) -> bool:
        return self in (Status.UNSTABLE, Status.FAIL, Status.NAN, Status.CRASH)


@dataclass(frozen=True, slots=True)
class Metrics:
    """How far ``actual`` is from the float64 reference; every field is a plain float, NaN when undefined."""

    error_over_bound: float
    """max |actual - reference| / bound: at most 1 is a pass."""
    max_abs: float
    rel_l2: float
    cosine: float
    max_ulp: float
    """In units in the last place of the output dtype."""
    slope: float = float("nan")
    """Worst per-group least-squares slope of actual against reference; 1 when right."""
    offset: float = float("nan")
    """Worst per-group offset of that fit; 0 when right."""


@dataclass(frozen=True, slots=True)
class SiteVerdict:
    """One GroupNorm site on one runtime, judged on its own input and output over all cases; the worst one is told."""

    site: str
    runtime: str
    status: Status
    case: str = ""
    """Name of the worst case."""
    metrics: Metrics | None = None
    reason: str = ""
    form: str = ""
    num_groups: int = 0
    num_channels: int = 0
    epsilon: float = 0.0
    dtype: str = ""
    module: str = ""
    """Path of the module in the source model ("down.1.norm2"), when the file says."""
    source: str = ""
    """Source line ("unet.py:88"), when the file says."""
    cases: dict[str, float] = field(default_factory=dict)
    """error_over_bound of every case, for the plots of the report."""


@dataclass(frozen=True, slots=True)
class OutputVerdict:
    """One model output on one runtime, end to end."""

    output: str
    runtime: str
    status: Status
    case: str = ""
    metrics: Metrics | None = None
    noise_ratio: float = float("nan")
    """Error over what rounding the inputs and parameters by one ulp does to the reference; about 1 when right."""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class RuntimeVerdict:
    """One runtime: what it was, and the worst of its sites and outputs."""

    runtime: str
    status: Status
    version: str = ""
    precision: str = ""
    reason: str = ""
    seconds: float = 0.0
    """Never written to files that may be diffed."""


@dataclass(frozen=True, slots=True)
class TaskVerdict:
    """A task metric over labelled data, one runtime against the reference."""

    runtime: str
    metric: str
    reference_value: float
    value: float
    agreement: float
    """Share of samples with the same top-1 class as the reference."""
    samples: int
    agreement_lower: float = float("nan")
    """Clopper-Pearson 95 % lower bound of the agreement."""


@dataclass(frozen=True, slots=True)
class ParityReport:
    """Everything a comparison found. ``held`` is the verdict: nothing broken, and something was judged."""

    reference: str
    candidate: str
    runtimes: tuple[RuntimeVerdict, ...]
    sites: tuple[SiteVerdict, ...]
    outputs: tuple[OutputVerdict, ...] = ()
    tasks: tuple[TaskVerdict, ...] = ()
    unpaired: tuple[str, ...] = ()
    """Sites of the reference with no counterpart in the candidate, each with the reason."""
    environment: dict[str, str] = field(default_factory=dict)
    """Package -> version."""
    command: str = ""
    """What to type to see this again."""
    title: str = "parity"
    engines: tuple[dict[str, Any], ...] = ()
    """Engines built on the way: runtime, version, size in bytes, kernels."""

    @property
    def held(self) -> bool:
        judged = [v.status for v in self.sites] + [v.status for v in self.outputs]
        ran = any(status is not Status.NOTRUN for status in judged)
        return ran and not any(status.broken for status in judged + [v.status for v in self.runtimes])

    @property
    def verdict(self) -> str:
        return "held" if self.held else "broken"
