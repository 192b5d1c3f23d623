"""One job done, here or wherever it was sent: everything that may go wrong is part of its result."""

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gn_deploy.errors import ExitCode, GnDeployError, InputError, UnavailableError
from gn_deploy.matrix.plan import Job
from gn_deploy.parity.status import Status
from gn_deploy.runtimes.base import RuntimeFailure, TimeLimitExceeded

if TYPE_CHECKING:
    import onnx_ir as ir

    from gn_deploy.parity.report import ParityReport
    from gn_deploy.runtimes.isolated import Limits

RESULT_VERSION = 1
"""Of results/ID.json; raised when a field changes its meaning or goes away."""
REQUESTS = 8  # a job opens and runs the network, its probes and its taps, and evaluates the oracle
"""Time limits of a request that a whole job may take."""
STARTING = 60.0
"""Seconds more, for processes to start and packages to be imported on a machine that is busy."""


def run_job(job: Job, model: Path, data: Path | None, limits: "Limits") -> dict[str, Any]:
    """The result of a job: plain data, the same for the same contents. ``model`` and ``data`` are where its files are
    now. Never raises but for Ctrl-C."""
    try:
        report, rewritten = _judged(job, model, data, limits)
    except MemoryError:
        return failed(job, RuntimeFailure("the job ran out of memory"))
    except GnDeployError as error:
        return failed(job, error)
    except Exception as error:
        return failed(job, error)
    runtime = report.runtimes[0]
    return _result(job, runtime.status, report.exit_code, runtime.reason, rewritten, report.to_dict())


def failed(job: Job, error: Exception) -> dict[str, Any]:
    """The result of a job without a verdict: it did not run, with the reason, or it took the runtime down."""
    if isinstance(error, TimeLimitExceeded):
        return _result(job, Status.TIMEOUT, ExitCode.PARITY_BROKEN, error.message)
    if isinstance(error, RuntimeFailure):
        return _result(job, Status.CRASH, ExitCode.PARITY_BROKEN, error.message)
    if isinstance(error, GnDeployError):
        told = f"{error.message}; {error.hint}" if error.hint else error.message
        return _result(job, Status.NOTRUN, error.exit_code, told)
    return _result(
        job, Status.NOTRUN, ExitCode.BUG, f"a bug in gn_deploy, not in the model: {type(error).__name__}: {error}"
    )


def _result(
    job: Job,
    status: Status,
    exit_code: int,
    reason: str,
    rewritten: tuple[int, int] | None = None,
    report: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    return {
        "schema_version": RESULT_VERSION,
        "job": job.contents,
        "status": str(status),
        "exit_code": int(exit_code),
        "reason": reason,
        "rewritten": None if rewritten is None else list(rewritten),
        "attempt": 1,
        "report": None if report is None else dict(report),
    }


def _judged(job: Job, path: Path, data: Path | None, limits: "Limits") -> "tuple[ParityReport, tuple[int, int]]":
    from gn_deploy.parity.cases import input_specs, model_cases
    from gn_deploy.parity.harness import compare
    from gn_deploy.parity.sources.data import Data

    _same_versions(job)
    reference, candidate, rewritten = _lowered(str(path), job.model.digest, job.column.target)
    specs = input_specs(reference)
    own = None if data is None else Data(data, specs)
    cases = model_cases(specs, [job.case.name], _known(job, specs)) if own is None else own
    names = (job.model.digest[:12], job.column.target)  # a result does not depend on what files are called
    report = compare(
        reference, candidate, runtimes=(job.column.runtime,), cases=cases, names=names, title="matrix", limits=limits
    )
    if own is not None:
        report = replace(report, notes=(*report.notes, *own.notes))
    return report, rewritten


def _known(job: Job, specs: Any) -> dict[str, int]:
    """The sizes that this model has names for: a matrix holds models of all kinds."""
    from gn_deploy.parity.cases import named
    from gn_deploy.parity.sizes import free_dims

    return {name: size for name, size in job.dims.items() if name in free_dims(named(specs))}


def _same_versions(job: Job) -> None:
    """A cluster's machines have packages of their own; a result may only stand under what was really run."""
    from gn_deploy import __version__
    from gn_deploy.runtimes import RUNTIMES

    runtime = RUNTIMES.require(job.column.runtime)
    probe = runtime.probe()
    here = {"gn_deploy": __version__, job.column.runtime: probe.version or ""}
    planned = {"gn_deploy": job.contents["gn_deploy"], job.column.runtime: job.column.version}
    for name, version in here.items():
        if version != planned[name]:
            raise InputError(
                f"this machine has {name} {version or 'not'}, the plan was made with {planned[name] or 'none'}",
                "install the same version everywhere, or plan where the jobs run",
            )
    if not probe.run:
        raise UnavailableError(probe.run.reason)


@lru_cache(maxsize=1)  # jobs come ordered by model and target
def _lowered(path: str, digest: str, target: str) -> "tuple[ir.Model, ir.Model, tuple[int, int]]":
    """The model, the same lowered, and how many of its GroupNorms were rewritten, of how many."""
    from gn_deploy import api
    from gn_deploy.graph.io import load
    from gn_deploy.graph.normalize import normalize
    from gn_deploy.passes.quantize import unquantized

    lowered = api.lower(path, target)
    rewritten = sum(bool(d.decision) and d.wrote is not None for d in lowered.decisions)
    return normalize(load(path)), unquantized(normalize(lowered.model)), (rewritten, len(lowered.decisions))


def again(result: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """The result of a job that was run anew after ``before``."""
    return {**result, "attempt": int(before["attempt"]) + 1}
