"""The result of a comparison as plain data: what was judged, where, how far off it was, and whether parity held."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gn_deploy.errors import ExitCode, InputError
from gn_deploy.parity.plain import from_plain, to_plain
from gn_deploy.parity.status import Status
from gn_deploy.runtimes.base import Kernel

SCHEMA_VERSION = 2
"""Of ``ParityReport.to_dict`` and so of report.json; raised when a field changes its meaning or goes away."""
READABLE = (1, 2)
"""Versions that ``from_dict`` reads; 1 has fewer fields."""


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
class WorstGroup:
    """The group with the largest error over bound of a site's worst case, for drawing; at most 256 evenly picked
    elements, in order."""

    sample: int
    group: int
    index: tuple[int, ...]
    """Positions of the picked elements within the group, counted over channels and then space."""
    x: tuple[float, ...]
    expected: tuple[float, ...]
    actual: tuple[float, ...]
    bound: tuple[float, ...]
    """|actual - expected| up to which an element passes; infinity where nothing can be said."""


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
    looks_like: str = ""
    """What the error looks like, in words ("epsilon 1e-06 instead of 1e-05"), when a signature fits."""
    histogram: tuple[int, ...] = ()
    """Elements of the worst case by error over bound: bin i holds those above HISTOGRAM_EDGES[i - 1] and at most
    HISTOGRAM_EDGES[i], so the first one holds the zeros, the last one NaN and infinity; 34 counts, () when nothing was
    measured."""
    group: WorstGroup | None = None
    """Kept for the worst broken sites of a runtime and for its worst held one."""
    precision: str = ""
    """The lower precision that a LOWPREC verdict is about."""


HISTOGRAM_EDGES = tuple(10.0 ** (e / 4) for e in range(-16, 17))
"""Of error over bound: quarter decades from 1e-4 to 1e4, with an open bin at either end; 1, the bound, is an edge."""


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
    """What it says it computes in."""
    reason: str = ""
    taps: str = ""
    """Whether tapping values inside the network changed its outputs: "9 of 9 GroupNorms tapped without changing a bit
    of the outputs"."""
    seconds: float = 0.0
    """Never written to files that may be diffed."""
    process: str = ""
    """"own" when it ran in a process of its own, "shared" when it ran in ours; "" when no network was run."""


@dataclass(frozen=True, slots=True)
class TaskVerdict:
    """A task metric over labelled data, one runtime against the reference."""

    runtime: str
    metric: str
    reference_value: float
    value: float
    agreement: float
    """Share of samples with the same top-1 class as the reference; NaN for metrics that have no classes."""
    samples: int
    agreement_lower: float = float("nan")
    """Clopper-Pearson 95 % lower bound of the agreement."""
    certified: int = 0
    """Samples whose top-1 margin in the reference exceeds twice the largest difference: their class cannot change."""
    difference: float = float("nan")
    """value - reference_value, as a paired mean over samples."""
    interval: tuple[float, ...] = ()
    """Lower and upper end of the 95 % interval of the difference, samples being paired; () when it has none."""
    allowed_drop: float = float("nan")
    """What was allowed; NaN when nothing was asked."""
    status: Status = Status.NOTRUN
    """PASS, WARN (not settled) or FAIL against ``allowed_drop``; NOTRUN when nothing was asked; NAN, TIMEOUT, CRASH."""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Vote:
    """Three or more runtimes on one site or output: who agrees with whom, and who is right by the float64 oracle."""

    place: str
    """Name of the site or output."""
    case: str
    camps: tuple[tuple[str, ...], ...]
    """Runtimes that agree with each other within the sum of their bounds, the largest camp first."""
    right: tuple[str, ...]
    """Runtimes inside the bound of the oracle."""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first value at which a runtime leaves what it should compute, found by ``locate``."""

    runtime: str
    against: str
    """"oracle", or the runtime it was compared with."""
    value: str
    """Name of the first wrong value; "" when none was found."""
    node: str = ""
    op_type: str = ""
    module: str = ""
    source: str = ""
    case: str = ""
    metrics: Metrics | None = None
    noise_ratio: float = float("nan")
    """Error over the rounding noise of the reference at this value."""
    looks_like: str = ""
    """What the error looks like, in words: slope and offset, or a fault with a name."""
    files: tuple[str, ...] = ()
    """The smallest model that shows it, its inputs and the script to run it, when they were written out."""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Blame:
    """Which setting of a runtime is at fault for a divergence, found by switching settings one by one."""

    runtime: str
    culprit: str
    """Name of the optimizer rule, level or hint ("Pad_Fusion"); "" when none makes a difference."""
    kind: str = ""
    """"optimizer rule", "optimization level", "precision hint", "execution option"."""
    with_it: float = float("nan")
    """Noise ratio with the setting as it was."""
    without_it: float = float("nan")
    """Noise ratio with only that switched off."""
    tried: tuple[str, ...] = ()
    remedy: str = ""
    """What to write in the code that opens the model, to do without it."""
    files: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Confidence:
    """How sure ``until_confident`` is, over independently drawn inputs."""

    inputs: int
    violations: int
    rate_below: float
    """With ``level`` confidence fewer than this share of inputs like these break parity (Clopper-Pearson, 1934)."""
    level: float = 0.95
    settled: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Noticed:
    """One fault seeded into the user's own model: whether the chosen data and runtimes would have caught it."""

    fault: str
    seeded: int
    """GroupNorms it was seeded into, one at a time."""
    effective: int
    """Of those, where it changes what is computed at all on the chosen data."""
    noticed: int
    named: int
    """Of those noticed, where the verdict named the right GroupNorm."""
    missed: tuple[str, ...] = ()
    """Sites where an effective fault went unnoticed."""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class BuiltEngine:
    """An engine built ahead of time, with the compiler's own list of its kernels."""

    runtime: str
    version: str
    size: int
    """In bytes."""
    kernels: tuple[Kernel, ...] = ()


@dataclass(frozen=True, slots=True)
class ParityReport:
    """Everything a comparison found.

    ``held`` is the verdict: nothing broken, something judged, every GroupNorm vouched for, and the confidence that was
    asked for reached.
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
    engines: tuple[BuiltEngine, ...] = ()
    """Engines built on the way."""
    votes: tuple[Vote, ...] = ()
    located: tuple[Divergence, ...] = ()
    blamed: tuple[Blame, ...] = ()
    confidence: Confidence | None = None
    noticed: tuple[Noticed, ...] = ()
    notes: tuple[str, ...] = ()
    """What a reader should know of how it was judged: an array taken under another name, a size that was not run."""
    accepted: tuple[Status, ...] = ()
    """Verdicts that the user takes for held, such as lowprec or unstable."""

    @property
    def held(self) -> bool:
        judged = [v.status for v in self.sites] + [v.status for v in self.outputs]
        ran = any(status is not Status.NOTRUN for status in judged)
        return ran and not self.broken and not self.unjudged and not self.unsettled

    @property
    def exit_code(self) -> ExitCode:
        """The rule of ``Status``: broken is 1, a runtime that did not run 3, and nothing judged at all is never 0. A
        seeded fault that changes what is computed and is not noticed is 1 as well: the comparison is deaf to it."""
        if not self.broken and any(v.status is Status.NOTRUN for v in self.runtimes):
            return ExitCode.UNAVAILABLE
        deaf = any(n.noticed < n.effective for n in self.noticed)
        return ExitCode.OK if self.held and not deaf else ExitCode.PARITY_BROKEN

    @property
    def unsettled(self) -> bool:
        """Whether a confidence was asked for and not reached, because time or data ended first."""
        return self.confidence is not None and not self.confidence.settled

    @property
    def broken(self) -> bool:
        """Whether something was found wrong that the user does not accept; neither broken nor held is not proved."""
        rows: tuple[tuple[RuntimeVerdict | SiteVerdict | OutputVerdict | TaskVerdict, ...], ...]
        rows = (self.runtimes, self.sites, self.outputs, self.tasks)
        return any(v.status.broken and v.status not in self.accepted for group in rows for v in group)

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
        plain: dict[str, Any] = to_plain(self)
        for runtime in plain["runtimes"]:
            del runtime["seconds"]
        return {"schema_version": SCHEMA_VERSION, "verdict": self.verdict, "held": self.held} | plain

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "ParityReport":
        """The inverse of ``to_dict`` up to NaN for every None; raises InputError for anything else."""
        version = data.get("schema_version")
        if version not in READABLE:
            raise InputError(f"schema_version {version}, this release reads {' and '.join(map(str, READABLE))}")
        try:
            return from_plain(cls, data)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            hint = "needed: report.json as gn-deploy wrote it"
            raise InputError(f"not a report of schema {version}: {type(error).__name__} {error}", hint) from None
