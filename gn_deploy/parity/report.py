"""The result of a comparison as plain data: what was judged, where, how far off it was, and whether parity held."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any, TypeVar

from gn_deploy.errors import InputError

T = TypeVar("T")

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
    """End to end only: more than right runtimes have shown, less than anything wrong has."""

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
    certified: int = 0
    """Samples whose top-1 margin in the reference exceeds twice the largest difference: their class cannot change."""


@dataclass(frozen=True, slots=True)
class ParityReport:
    """Everything a comparison found.

    ``held`` is the verdict: nothing broken, something judged, and every GroupNorm vouched for.
    """

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
        broken = any(status.broken for status in judged + [v.status for v in self.runtimes])
        return ran and not broken and not self.unjudged

    @property
    def unjudged(self) -> tuple[str, ...]:
        """GroupNorms that nothing vouches for: neither judged in themselves nor through an output of the network."""
        seen = {v.runtime for v in self.outputs if v.status is not Status.NOTRUN}
        blind = {v.runtime for v in self.runtimes if v.status is not Status.NOTRUN} - seen
        sites = [f"{v.site} on {v.runtime}" for v in self.sites if v.runtime in blind and v.status is Status.NOTRUN]
        return (*sites, *(self.unpaired if blind else ()))

    @property
    def verdict(self) -> str:
        return "held" if self.held else "broken"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for strict JSON: enums as their words, NaN as None, infinity as "inf" or "-inf", no clock."""
        plain: dict[str, Any] = _plain(asdict(self))
        for runtime in plain["runtimes"]:
            del runtime["seconds"]
        return {"schema_version": SCHEMA_VERSION, "verdict": self.verdict, "held": self.held} | plain

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "ParityReport":
        """The inverse of ``to_dict`` up to NaN for every None; raises InputError for another schema version."""
        if data.get("schema_version") != SCHEMA_VERSION:
            raise InputError(f"schema_version {data.get('schema_version')}, this release reads {SCHEMA_VERSION}")
        rows: dict[str, Any] = {
            "runtimes": tuple(_row(RuntimeVerdict, r) for r in data["runtimes"]),
            "sites": tuple(_row(SiteVerdict, r) for r in data["sites"]),
            "outputs": tuple(_row(OutputVerdict, r) for r in data["outputs"]),
            "tasks": tuple(_row(TaskVerdict, r) for r in data["tasks"]),
            "unpaired": tuple(data["unpaired"]),
            "engines": tuple(data["engines"]),
        }
        return _row(cls, dict(data) | rows)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, StrEnum):
        return str(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None if math.isnan(value) else str(float(value))
    return value


def _row(kind: type[T], data: Mapping[str, Any]) -> T:
    """One dataclass from its plain data: unknown keys are ignored, missing ones take their default."""
    values = {f.name: data[f.name] for f in fields(kind) if f.name in data}  # type: ignore[arg-type]
    if values.get("metrics"):
        values["metrics"] = _row(Metrics, values["metrics"])
    if "status" in values:
        values["status"] = Status(values["status"])
    if "cases" in values:
        values["cases"] = {k: _number(v) for k, v in values["cases"].items()}
    numbers = {f.name for f in fields(kind) if f.type is float}  # type: ignore[arg-type]
    return kind(**{k: _number(v) if k in numbers else v for k, v in values.items()})


def _number(value: float | str | None) -> float:
    return math.nan if value is None else float(value)
