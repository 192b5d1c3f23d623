"""A matrix killed with kill -9 again and again until it is done: nothing lost, nothing done twice (2 minutes)."""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.cli.conftest import model

ROOT = Path(__file__).parents[2]
MODELS = {
    "groups2.onnx": {},
    "groups4.onnx": {"groups": 4},
    "wide.onnx": {"channels": 8},
    "eps.onnx": {"epsilon": 1e-3},
}
TARGETS = ("onnx", "ort-cpu", "openvino")
CASES = "normal,constant"
JOBS = len(MODELS) * len(TARGETS) * 2
IN_A_WRITE = """
import os, signal, sys
true, calls = os.{call}, 0
def call(*arguments):
    global calls
    calls += "results" in str(arguments[0]) or isinstance(arguments[0], int)
    if calls > {nth}:
        os.kill(os.getpid(), signal.SIGKILL)
    return true(*arguments)
os.{call} = call
from gn_deploy.cli.app import main
main()
"""
"""The command line, which kills itself in the middle of writing a result."""


@dataclass(frozen=True, slots=True)
class Kill:
    """One run and how it ends."""

    what: str
    end: Callable[["Matrix"], None]


class Matrix:
    """A matrix in a folder of its own, run and killed from outside."""

    def __init__(self, place: Path, rng: random.Random) -> None:
        self.place, self.rng = place, rng
        for name, facts in MODELS.items():
            (place / name).write_bytes(model(**facts).SerializeToString())  # type: ignore[arg-type]

    def typed(self, out: str = "m") -> list[str]:
        targets = [word for target in TARGETS for word in ("--target", target)]
        return ["matrix", *MODELS, *targets, "--cases", CASES, "--out", out, "--jobs", "2"]

    def start(self, *typed: str, program: tuple[str, ...] = ("-m", "gn_deploy")) -> "subprocess.Popen[bytes]":
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return subprocess.Popen([sys.executable, *program, *typed], cwd=self.place, env=environment, **quiet)

    def events(self, kind: str) -> Counter[str]:
        log = self.place / "m" / "log.jsonl"
        lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        return Counter(line["job"] for line in lines if line["event"] == kind)

    def results(self, out: str = "m") -> dict[str, bytes]:
        return {file.name: file.read_bytes() for file in sorted((self.place / out / "results").glob("*.json"))}

    def processes(self) -> set[int]:
        found = set()
        for process in psutil.process_iter():
            try:
                if process.cwd() == str(self.place):
                    found.add(process.pid)
            except psutil.Error:
                continue
        return found

    def left(self) -> int:
        """Processes that are there although nobody started them for what is still running; some seconds are given."""
        for _ in range(100):
            if not self.processes():
                return 0
            time.sleep(0.05)
        return len(self.processes())

    def interrupted(self, also_children: bool) -> None:
        """Run until a job has been started, a random moment more, and kill -9."""
        before = sum(self.events("started").values())
        process = self.start("matrix", "--resume", "m", "--jobs", "2") if before else self.start(*self.typed())
        while sum(self.events("started").values()) == before and process.poll() is None:
            time.sleep(0.02)
        time.sleep(self.rng.random())
        every = self.processes() if also_children else {process.pid}
        for pid in [process.pid, *every]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        process.wait()

    def in_a_write(self, call: str) -> None:
        program = ("-c", IN_A_WRITE.format(call=call, nth=self.rng.randint(1, 2)))
        self.start("matrix", "--resume", "m", "--jobs", "2", program=program).wait()


KILLS = [
    Kill("of the process, at a random moment", lambda m: m.interrupted(False)),
    Kill("of all its processes, at a random moment", lambda m: m.interrupted(True)),
    Kill("before a result is on the disk", lambda m: m.in_a_write("fsync")),
    Kill("before a result is renamed", lambda m: m.in_a_write("replace")),
    Kill("before a line of the log", lambda m: m.in_a_write("write")),
] * 2


def section() -> str:
    """The table; raises AssertionError where something was lost, done twice, changed or left behind."""
    with tempfile.TemporaryDirectory() as folder:
        matrix = Matrix(Path(folder).resolve(), random.Random(0))
        kept: dict[str, bytes] = {}
        rows: dict[str, list[int]] = {}
        for kill in KILLS:
            before = len(matrix.results())
            kill.end(matrix)
            orphans = matrix.left()
            lost = sum(matrix.results().get(name) != content for name, content in kept.items())
            kept = matrix.results()
            assert before < JOBS, "killed after everything was done: nothing was shown"
            row = rows.setdefault(kill.what, [0, 0, 0])
            rows[kill.what] = [row[0] + 1, row[1] + lost, row[2] + orphans]
        code = matrix.start("matrix", "--resume", "m", "--jobs", "2").wait()
        matrix.start(*matrix.typed("whole")).wait()
        whole, finished = matrix.results("whole"), matrix.results()
        same = sum(whole.get(name) == content for name, content in finished.items())
        started, done = matrix.events("started"), matrix.events("finished")
        logged_twice = sum(count > 1 for count in done.values())
        again = sum(started.values()) - JOBS
        assert (code, len(finished), same, logged_twice) == (0, JOBS, JOBS, 0)
        assert again <= 2 * len(KILLS), "more was repeated than was running, two at a time, when it was killed"
        assert all(lost == orphans == 0 for _, lost, orphans in rows.values())
        lines = [f"| {what} | {' | '.join(map(str, row))} |" for what, row in rows.items()]
        table = ["| kill -9 | times | results lost or changed | processes left |", "|---|---|---|---|", *lines]
        told = (
            f"{len(MODELS)} models × {len(TARGETS)} targets × 2 cases, two jobs at a time, {len(KILLS)} times killed\n"
            f"and resumed: of {JOBS} jobs {len(finished)} finished, {logged_twice} twice; {same} of {JOBS} results are "
            "byte for byte\nthose of a run that was left alone. No more was started again than was running at a kill."
        )
        return "\n".join([told, "", *table])
