"""The result of a matrix as plain data: every job's verdict, models by columns, and the gravest exit code.

report.json of a matrix (``schema_version`` 1)::

    kind            str     "matrix", which a comparison's report.json has not
    schema_version  int     raised when a field changes its meaning or goes away
    verdict         str     "held" | "broken" | "open", when something could not be judged or is not finished
    held            bool    whether the verdict is held
    exit_code       int     of gn-deploy: the gravest of all jobs, in the order 0, 3, 2, 1, 70
    models, cases   [str]   as they were typed
    columns         [{target, runtime, version}]
    jobs            [{job, model, target, runtime, version, case, status, exit_code, reason, attempt, rewritten, report,
                      error_over_bound}]   job: name of the file in results/; attempt: 1, or more after --retry;
                    rewritten: [] or [GroupNorms rewritten, GroupNorms]; report: null or a comparison's document
    left            [str]   jobs without a result, in words
    environment     {package: version}
    command, title  str
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from gn_deploy.errors import ExitCode, InputError
from gn_deploy.matrix.plan import Column, Job, Plan
from gn_deploy.parity.plain import from_plain, to_plain
from gn_deploy.parity.report import ParityReport
from gn_deploy.parity.status import Status

if TYPE_CHECKING:
    from gn_deploy.matrix.folder import Folder

SCHEMA_VERSION = 1
"""Of ``MatrixReport.to_dict``; raised when a field changes its meaning or goes away."""
GRAVITY = (
    ExitCode.OK,
    ExitCode.UNAVAILABLE,
    ExitCode.BAD_INPUT,
    ExitCode.PARITY_BROKEN,
    ExitCode.BUG,
)
"""Exit codes from harmless to grave: a broken verdict outweighs what could not be judged."""


@dataclass(frozen=True, slots=True)
class JobVerdict:
    """What became of one job."""

    job: str
    """Its id, which names its file in results/."""
    model: str
    target: str
    runtime: str
    version: str
    case: str
    status: Status
    exit_code: int = 0
    reason: str = ""
    attempt: int = 1
    rewritten: tuple[int, ...] = ()
    """GroupNorms that lowering rewrote, and how many there are."""
    report: ParityReport | None = None

    @property
    def error(self) -> float:
        """The largest error over bound of any GroupNorm, NaN when nothing was measured."""
        measured = [v.metrics.error_over_bound for v in (self.report.sites if self.report else ()) if v.metrics]
        return max(measured, default=float("nan"))


@dataclass(frozen=True, slots=True)
class Cell:
    """A model in a column: the gravest of its cases."""

    status: Status
    error: float
    """The largest error over bound; NaN when nothing was measured."""
    case: str
    reason: str
    cases: int
    left: int
    """Cases without a result."""


@dataclass(frozen=True, slots=True)
class MatrixReport:
    """Everything a matrix found so far."""

    models: tuple[str, ...]
    columns: tuple[Column, ...]
    cases: tuple[str, ...]
    jobs: tuple[JobVerdict, ...]
    left: tuple[str, ...] = ()
    """Jobs without a result, in words."""
    environment: dict[str, str] = field(default_factory=dict)
    command: str = ""
    title: str = "matrix"

    @property
    def exit_code(self) -> ExitCode:
        """The gravest of all jobs; not 0 while some have no result."""
        codes = [ExitCode(job.exit_code) for job in self.jobs] + [ExitCode.UNAVAILABLE] * bool(self.left)
        return max(codes, key=GRAVITY.index, default=ExitCode.UNAVAILABLE)

    @property
    def held(self) -> bool:
        return self.exit_code is ExitCode.OK

    @property
    def verdict(self) -> str:
        broken = self.exit_code in (ExitCode.PARITY_BROKEN, ExitCode.BUG)
        return "held" if self.held else "broken" if broken else "open"

    @property
    def counts(self) -> dict[Status, int]:
        """How many jobs ended in each status, from grave to harmless."""
        found = Counter(job.status for job in self.jobs)
        return {status: found[status] for status in reversed(Status) if found[status]}

    def of(self, model: str, column: Column) -> list[JobVerdict]:
        where = (model, column.target, column.runtime)
        return [job for job in self.jobs if (job.model, job.target, job.runtime) == where]

    def cell(self, model: str, column: Column) -> Cell:
        done = self.of(model, column)
        chief = max(done, key=_gravity, default=None)
        error = max((job.error for job in done if not math.isnan(job.error)), default=math.nan)
        left = len(self.cases) - len(done)
        if chief is None:
            return Cell(Status.NOTRUN, error, "", "", 0, left)
        return Cell(chief.status, error, chief.case, chief.reason, len(done), left)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for strict JSON, as ``ParityReport.to_dict``; ``kind`` tells it from a comparison's."""
        plain: dict[str, Any] = to_plain(self)
        for told, job in zip(plain["jobs"], self.jobs, strict=True):
            told["error_over_bound"] = to_plain(job.error)
            told["report"] = None if job.report is None else job.report.to_dict()
        head = {"kind": "matrix", "schema_version": SCHEMA_VERSION, "verdict": self.verdict, "held": self.held}
        return head | {"exit_code": int(self.exit_code)} | plain

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "MatrixReport":
        """The inverse up to NaN for every None; raises InputError for anything else."""
        if data.get("kind") != "matrix" or data.get("schema_version") != SCHEMA_VERSION:
            raise InputError(
                f"not a matrix of schema {SCHEMA_VERSION}", "needed: report.json as gn-deploy matrix wrote it"
            )
        try:
            return from_plain(cls, data)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"not a matrix report: {type(error).__name__} {error}") from None


def _gravity(job: JobVerdict) -> tuple[int, int, float]:
    """By exit code, so that what could not be judged never hides behind a pass; then by status and error."""
    return (
        GRAVITY.index(ExitCode(job.exit_code)),
        job.status.severity,
        0.0 if math.isnan(job.error) else job.error,
    )


def collected(plan: Plan, place: "Folder") -> MatrixReport:
    """The report of what is finished."""
    jobs, left = [], []
    environment: dict[str, str] = {}
    for job in plan.jobs:
        found = place.result(job.id)
        if found is None:
            left.append(str(job))
            continue
        verdict = _verdict(job, found)
        jobs.append(verdict)
        environment |= verdict.report.environment if verdict.report else {}
    return MatrixReport(
        models=tuple(model.name for model in plan.models),
        columns=plan.columns,
        cases=tuple(case.name for case in plan.cases),
        jobs=tuple(jobs),
        left=tuple(left),
        environment=dict(sorted(environment.items())),
        command=plan.command,
    )


def _verdict(job: Job, found: Mapping[str, Any]) -> JobVerdict:
    report = None if found["report"] is None else ParityReport.from_dict(found["report"])
    if report is not None:
        lowered = f"{job.model.name}, lowered for {job.column.target}"
        report = replace(report, reference=job.model.name, candidate=lowered)
    return JobVerdict(
        job=job.id,
        model=job.model.name,
        target=job.column.target,
        runtime=job.column.runtime,
        version=job.column.version,
        case=job.case.name,
        status=Status(found["status"]),
        exit_code=found["exit_code"],
        reason=found["reason"],
        attempt=found["attempt"],
        rewritten=tuple(found["rewritten"] or ()),
        report=report,
    )
