"""A process for the GPU that may hang or crash: what was being done is then a result, and a new one goes on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from gn_deploy.runtimes.base import RuntimeFailure, TimeLimitExceeded
from gn_deploy.runtimes.worker import Worker

START = 120.0  # seconds for torch and CUDA to start in a process of their own, on a slow disk


class Lost(Exception):  # noqa: N818 -- a result, not a mistake
    """There is no answer; ``step`` was begun last, and ``late`` says that only time had run out."""

    def __init__(self, step: str, message: str, *, late: bool = False) -> None:
        super().__init__(message)
        self.step, self.message, self.late = step, message, late


class Supervised:
    """Calls functions of ``scripts.gpu.child`` over there, one process after another."""

    def __init__(self, place: str, library: Path, folder: Path) -> None:
        self._place, self._library = place, str(library)
        self._step = folder / "step"
        self._worker: Worker | None = None
        self.started = 0
        """Processes so far."""

    def ask(self, doing: str, function: Callable[..., Any], *arguments: Any, limit: float) -> Any:
        """The answer, within ``limit`` seconds and whatever it takes to start. Raises Lost without one, other
        GnDeployErrors as they were raised over there."""
        from scripts.gpu import child

        given = self._place, self._library, str(self._step)
        try:
            if self._worker is None or not self._worker.alive:
                self._worker = Worker("the GPU's process")
                self.started += 1
                self._worker.ask("starting", "call", child.facts, *given, time_limit=START)
            return self._worker.ask(doing, "call", function, *given, *arguments, time_limit=limit)
        except RuntimeFailure as error:
            self.close()  # also where it still answers: what failed may have taken the device's state with it
            step = self._step.read_text() if self._step.exists() else "start"
            raise Lost(step, str(error), late=isinstance(error, TimeLimitExceeded)) from None

    def close(self) -> None:
        if self._worker is not None:
            self._worker.close()
            self._worker = None
