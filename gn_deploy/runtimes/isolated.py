"""Any registered runtime, its sessions in processes of their own, with limits of time and memory."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gn_deploy.errors import InputError
from gn_deploy.runtimes import RUNTIMES
from gn_deploy.runtimes.base import Array, BuildResult, Probe, Runtime, RuntimeFailure, Session
from gn_deploy.runtimes.worker import TIME_LIMIT, WORKERS, Worker


@dataclass(frozen=True, slots=True)
class Limits:
    """What a runtime in a process of its own may take; InputError for numbers that are no limits."""

    time: float = TIME_LIMIT
    """Seconds for one request: to open a model, or to run it once."""
    memory: int | None = None
    """Bytes the process may write to, its libraries included; None for as much as there is."""

    def __post_init__(self) -> None:
        if not 0 < self.time < float("inf"):
            raise InputError(f"a time limit of {self.time:g} s", "a number of seconds above 0, for example 600")
        if self.memory is not None and self.memory < 1:
            raise InputError(f"a memory limit of {self.memory} bytes", "for example 8GiB")


class ChildSession:
    """A Session whose model lives in a worker. ``run`` may raise RuntimeFailure for a crash; it never crashes us.

    A worker serves one session at a time, so that a crash takes no other with it, and the next one afterwards.
    """

    def __init__(
        self,
        runtime: str,
        model: Any,
        *,
        precision: str | None = None,
        time_limit: float = TIME_LIMIT,
        memory_limit: int | None = None,
        **options: Any,
    ) -> None:
        """``model`` is an ``ir.Model``, a path, or a function to be called over there; ``options`` go to ``open``."""
        self.runtime = runtime
        self._time_limit = time_limit
        self._worker: Worker | None = WORKERS.borrow(runtime, memory_limit)
        try:
            self.precision: str = self._open(model, precision=precision, **options)
        except BaseException:
            self.close()
            raise

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        answer: dict[str, Array] = self.ask("running the model", "run", dict(feeds))
        return answer

    def ask(self, doing: str, method: str, *arguments: Any, **options: Any) -> Any:
        """Calls any method of the session over there; ``doing`` is for messages."""
        if self._worker is None:
            raise RuntimeFailure(f"the {self.runtime} session is closed")
        return self._worker.ask(doing, method, *arguments, time_limit=self._time_limit, **options)

    def close(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            _done_with(worker)

    def _open(self, model: Any, **options: Any) -> str:
        from gn_deploy.runtimes.handover import as_file

        doing = "opening the model"
        if callable(model):
            return str(self.ask(doing, "open", model, **options))
        with as_file(model) as path:
            return str(self.ask(doing, "open", Path(path).absolute(), **options))


class ListeningChild(ChildSession):
    """The same for a session whose GroupNorm modules can be listened to."""

    def run_tapped(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        answer: dict[str, Array] = self.ask("running the model", "run_tapped", dict(feeds))
        return answer


class Isolated:
    """A Runtime that opens models in processes of their own. What cannot go there is opened here instead: a module
    that is an object and no recipe, and models for a runtime that a worker would not find by name."""

    def __init__(self, runtime: Runtime, limits: Limits) -> None:
        self.name = runtime.name
        self.runtime = runtime
        self.limits = limits

    def probe(self) -> Probe:
        return self.runtime.probe()

    def open(self, model: Any, *, precision: str | None = None, **options: Any) -> Session:
        """``options`` are those of the runtime itself."""
        name = self.name
        if name not in RUNTIMES.names() or RUNTIMES.get(name) is not self.runtime:
            return self.runtime.open(model, precision=precision, **options)
        limits: dict[str, Any] = {"time_limit": self.limits.time, "memory_limit": self.limits.memory}
        if not hasattr(model, "input_names"):
            return ChildSession(name, model, precision=precision, **limits, **options)
        if model.load is None:
            return self.runtime.open(model, precision=precision, **options)
        return ListeningChild(name, model.load, precision=precision, **limits, **options)

    def build(self, model: Path, out: Path, **options: Any) -> BuildResult:
        return self.runtime.build(model, out, **options)


def isolated(runtime: Runtime, limits: Limits | None = None) -> Runtime:
    """``runtime``, its sessions in processes of their own."""
    inner = runtime.runtime if isinstance(runtime, Isolated) else runtime
    return Isolated(inner, limits or Limits())


def build_in_child(name: str, model: Path, out: Path, time_limit: float, options: Mapping[str, Any]) -> BuildResult:
    """``build_here`` of a runtime in a process of its own, which its compiler may abort."""
    worker = Worker(name)
    try:
        result: BuildResult = worker.ask(
            "building the engine", "build", Path(model), Path(out), time_limit=time_limit, **options
        )
    finally:
        worker.close()
    return result


def _done_with(worker: Worker) -> None:
    """Back to the others when it still answers."""
    if worker.alive:
        try:
            worker.ask("closing the model", "close", time_limit=10)  # frees memory; what takes longer hangs
        except Exception:
            worker.close()
    WORKERS.give_back(worker)
