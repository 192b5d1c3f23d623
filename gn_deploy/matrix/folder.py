"""Where a matrix is kept: the plan, one result for each finished job, claims on running ones, and a log."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gn_deploy.errors import InputError
from gn_deploy.graph.atomic import atomic
from gn_deploy.matrix.plan import Plan
from gn_deploy.reports.as_json import dumps


class Folder:
    """A folder that survives anything that happens to those who write into it.

    1. ``results/ID.json`` is there, whole, when job ID is finished, and never before: it is written under another
       name, brought to the disk and renamed. Only a job that is run anew replaces it, in the same way.
    2. Whoever runs a job holds a lock (flock) on ``claims/ID``. The kernel drops it when its process ends, by kill -9
       too. The result is looked for again after locking, so that a job is never run twice.
    3. ``log.jsonl`` only grows: a line when a job is started and one when its result is there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._results, self._claims = path / "results", path / "claims"

    def make(self, plan: Plan) -> None:
        """Makes the folder if needed, and its plan the one that is worked on."""
        for folder in (self.path, self._results, self._claims):
            folder.mkdir(parents=True, exist_ok=True)
        text = dumps(plan.to_dict()).encode()
        place = self.path / "plan.json"
        if not place.is_file() or place.read_bytes() != text:
            with atomic(place) as (file,):
                file.write(text)

    def plan(self) -> Plan:
        place = self.path / "plan.json"
        try:
            return Plan.from_dict(json.loads(place.read_bytes()))
        except FileNotFoundError:
            raise InputError(f"'{self.path}' holds no plan.json", "the folder given with --out before") from None
        except (ValueError, AttributeError) as error:
            raise InputError(f"{place} is not JSON: {error}", "run the whole command again") from None

    def result(self, job: str) -> dict[str, Any] | None:
        """What became of a job; None while it is not finished."""
        try:
            text = (self._results / f"{job}.json").read_bytes()
        except FileNotFoundError:
            return None
        try:
            found: dict[str, Any] = json.loads(text)
        except ValueError as error:
            raise InputError(
                f"{self._results / job}.json is not JSON: {error}", "remove it: its job runs again"
            ) from None
        return found

    @contextmanager
    def claim(self, job: str) -> Iterator[bool]:
        """Whether the job is ours until the block ends: nobody else runs it."""
        import fcntl

        place = self._claims / job
        number = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True
        finally:
            os.close(number)

    def store(self, job: str, document: dict[str, Any]) -> None:
        """The result of a claimed job, on the disk when this returns."""
        place = self._results / f"{job}.json"
        temporary = place.with_suffix(".tmp")  # one name: what a kill left of it is written over
        with temporary.open("wb") as file:
            file.write(dumps(document).encode())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, place)
        _to_disk(self._results)
        (self._claims / job).unlink(missing_ok=True)  # who has it open already will find the result

    def log(self, event: str, job: str, **more: Any) -> None:
        """One line, in one write: lines of several processes do not mix."""
        line = json.dumps({"event": event, "job": job, "process": os.getpid(), **more}) + "\n"
        number = os.open(self.path / "log.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            os.write(number, line.encode())
        finally:
            os.close(number)


def _to_disk(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
