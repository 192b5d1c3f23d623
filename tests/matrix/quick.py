"""Matrices whose jobs take no time: what counts is which are run, how often, and what is left of them."""

import os
import time
from pathlib import Path
from typing import Any

from gn_deploy.matrix.job import failed
from gn_deploy.matrix.plan import Column, Job, Named, Plan
from gn_deploy.runtimes.base import RuntimeFailure, TimeLimitExceeded


def plan(models: int = 3, columns: int = 2, cases: int = 2, command: str = "") -> Plan:
    return Plan(
        tuple(Named(f"m{i}.onnx", f"{i:064x}") for i in range(models)),
        tuple(Column("onnx", f"runtime{i}", "1.0") for i in range(columns)),
        tuple(Named(name) for name in ("normal", "constant", "small", "offset")[:cases]),
        command=command,
    )


class Quick:
    """An executor that writes down what it runs; a job of the runtimes and cases in ``late`` and ``bad`` fails."""

    def __init__(self, ran: Path, seconds: float = 0.0, bad: str = "", late: str = "") -> None:
        self._ran, self._seconds, self._bad, self._late = ran, seconds, bad, late
        self.stopped = self.closed = False

    def __call__(self, job: Job) -> dict[str, Any]:
        with self._ran.open("a") as file:
            file.write(f"{job.id}\n")
        time.sleep(self._seconds)
        if self._late and self._late in str(job):
            return failed(job, TimeLimitExceeded("it took more than 1 s"))
        if self._bad and self._bad in str(job):
            return failed(job, RuntimeFailure("it fell over"))
        passed = failed(job, RuntimeFailure(""))
        return passed | {"status": "pass", "exit_code": 0}

    def stop(self) -> None:
        self.stopped = True

    def close(self) -> None:
        self.closed = True


def ran(file: Path) -> list[str]:
    return file.read_text().split() if file.exists() else []


DRIVER = """
import os, signal, sys
from pathlib import Path
from gn_deploy.matrix import folder as folders
from gn_deploy.matrix.run import run
from tests.matrix.quick import Quick, plan

where, count, at_once, seconds, deadly, nth = sys.argv[1:]
calls = 0

def dying(name):
    true = getattr(os, name)
    def call(*arguments):
        global calls
        calls += 1
        if calls == int(nth):
            os.kill(os.getpid(), signal.SIGKILL)
        return true(*arguments)
    return call

if deadly == "half":  # the file is begun, not ended
    from gn_deploy.reports.as_json import dumps
    def half(document, true=folders.dumps):
        text = true(document)
        if "attempt" not in document:
            return text
        class Half(str):
            def encode(self):
                global calls
                calls += 1
                if calls == int(nth):
                    place = Path(where, "results")
                    for file in place.glob("*.tmp"):
                        file.write_bytes(text[:100].encode())
                    os.kill(os.getpid(), signal.SIGKILL)
                return text.encode()
        return Half()
    folders.dumps = half
elif deadly == "logged":  # the result is there, the log does not know yet
    true = folders.Folder.store
    def store(self, *arguments):
        true(self, *arguments)
        global calls
        calls += 1
        if calls == int(nth):
            os.kill(os.getpid(), signal.SIGKILL)
    folders.Folder.store = store
elif deadly:
    setattr(os, deadly, dying(deadly))
report = run(plan(int(count)), Path(where), executor=Quick(Path(where, "ran"), float(seconds)), jobs=int(at_once))
sys.exit(int(report.exit_code))
"""
"""Arguments: folder, models, jobs at once, seconds a job takes, where to die, at which call."""


def environment() -> dict[str, str]:
    root = str(Path(__file__).parents[2])
    return {**os.environ, "PYTHONPATH": root}
