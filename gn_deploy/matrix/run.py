"""The run: every job that is not finished yet is claimed, executed and written down; others may do the same beside."""

import queue
import threading
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any, Protocol

from gn_deploy.errors import InputError
from gn_deploy.matrix.folder import Folder
from gn_deploy.matrix.job import again
from gn_deploy.matrix.local import LocalExecutor
from gn_deploy.matrix.on_ray import RayExecutor
from gn_deploy.matrix.plan import Job, Plan, changed
from gn_deploy.matrix.report import MatrixReport, collected
from gn_deploy.parity.progress import Progress, Tell
from gn_deploy.parity.status import Status
from gn_deploy.runtimes.isolated import Limits

LOOK_AGAIN = 0.2  # seconds between looks at jobs that another process has claimed


class Executor(Protocol):
    """Runs a job somewhere and gives its result; called from several threads at once.

    ``stop`` makes running calls return soon, with whatever result; ``close`` comes when no call is running.
    """

    def __call__(self, job: Job) -> dict[str, Any]: ...

    def stop(self) -> None: ...

    def close(self) -> None: ...


def run(
    plan: Plan,
    folder: Path,
    *,
    limits: Limits | None = None,
    executor: str | Executor = "local",
    address: str | None = None,
    jobs: int | None = None,
    retry: Collection[str] = (),
    progress: Tell | None = None,
) -> MatrixReport:
    """Runs what is left of ``plan`` in ``folder`` and returns the whole.

    1. A job whose result is there is not run again, whoever ran it, unless its status is in ``retry``.
    2. After kill -9 the same call goes on; of what had been running at that moment nothing is left, and it runs again.
    3. Several processes may work on one folder at once; none runs what another has claimed, and each returns when
       everything is done.
    4. ``jobs`` run at once (local: 1, ray: as many as the cluster has CPUs), each with its runtime in a process of
       its own that keeps to ``limits``. A crash, a time-out or an error is a result. ``executor`` is local, ray, or an
       ``Executor`` of your own.

    Raises InputError for unknown words, and what the operating system says when results cannot be written.
    """
    unknown = sorted(set(retry) - set(Status))
    if unknown:
        raise InputError(f"no verdict is called '{unknown[0]}'", f"one of {', '.join(Status)}")
    if jobs is not None and jobs < 1:
        raise InputError(f"{jobs} jobs at once", "1 or more")
    if isinstance(executor, str) and executor not in ("local", "ray"):
        raise InputError(f"unknown executor '{executor}'", "local or ray")
    if address is not None and executor != "ray":
        raise InputError("an address is that of a Ray cluster", "add --executor ray")
    place, limits = Folder(folder), limits or Limits()
    place.make(plan)
    work = _Work(plan, place, retry, progress or (lambda _: None))
    if work.left():
        if executor == "ray":
            on_ray = RayExecutor(limits, address=address, jobs=jobs)
            work.done_by(on_ray, on_ray.at_once)
        elif executor == "local":
            work.done_by(LocalExecutor(limits), jobs or 1)
        else:
            assert not isinstance(executor, str)
            work.done_by(executor, jobs or 1)
    return collected(plan, place)


def resume(folder: Path, **options: Any) -> MatrixReport:
    """Goes on with the plan that is in ``folder``; InputError when a file of it has changed since."""
    plan = Folder(folder).plan()
    if gone := changed(plan):
        raise InputError(
            f"'{gone[0]}' is not what it was when the matrix was planned, or not here",
            "resume where it was started; or run the whole command again, which keeps what still holds",
        )
    return run(plan, folder, **options)


class _Work:
    """The jobs of one call, and the threads that see to them."""

    def __init__(self, plan: Plan, place: Folder, retry: Collection[str], tell: Tell) -> None:
        self._place, self._tell = place, tell
        self._jobs = {job.id: job for job in plan.jobs}  # what has the same contents is one job
        self._before: dict[str, dict[str, Any]] = {}
        """Results that are to be replaced, as they were when this call began."""
        self._queue: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._open: set[str] = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._error: BaseException | None = None
        for job in self._jobs:
            found = place.result(job)
            if found is not None and found["status"] in retry:
                self._before[job] = found
            if found is None or job in self._before:
                self._open.add(job)
                self._queue.put(job)

    def left(self) -> int:
        return len(self._open)

    def done_by(self, executor: Executor, at_once: int) -> None:
        """Returns when every job is finished. What a thread raises is raised here, and so is Ctrl-C, after all running
        jobs were stopped; their results are not kept."""
        threads = [
            threading.Thread(target=self._serve, args=(executor,), daemon=True)
            for _ in range(min(at_once, self.left()))
        ]
        self._say("")
        try:
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads):
                time.sleep(0.05)  # and not join, which Ctrl-C cannot interrupt everywhere
        finally:
            self._stop.set()
            executor.stop()
            for thread in threads:
                thread.join()
            executor.close()
        if self._error is not None:
            raise self._error

    def _serve(self, executor: Executor) -> None:
        try:
            while not self._stop.is_set():
                try:
                    job = self._queue.get_nowait()
                except queue.Empty:
                    if not self.left():
                        return
                    time.sleep(LOOK_AGAIN)  # the last ones are being run by other threads or processes
                    continue
                if not self._attend(self._jobs[job], executor):
                    self._queue.put(job)
                    time.sleep(LOOK_AGAIN / max(1, self._queue.qsize()))
        except BaseException as error:
            self._error = error
            self._stop.set()

    def _attend(self, job: Job, executor: Executor) -> bool:
        """Whether the job is finished now, by us or by another process."""
        if self._finished(job.id):
            self._close(job)
            return True
        with self._place.claim(job.id) as ours:
            if not ours:
                return False
            if not self._finished(job.id):  # it may have been while we asked
                self._say(str(job))
                self._place.log("started", job.id)
                result = executor(job)
                if self._stop.is_set():
                    return False
                if job.id in self._before:
                    result = again(result, self._before[job.id])
                self._place.store(job.id, result)
                self._place.log("finished", job.id, status=result["status"])
        self._close(job)
        return True

    def _finished(self, job: str) -> bool:
        found = self._place.result(job)
        return found is not None and found != self._before.get(job)

    def _close(self, job: Job) -> None:
        with self._lock:
            self._open.discard(job.id)
        self._say(str(job))

    def _say(self, doing: str) -> None:
        total = len(self._jobs)
        self._tell(Progress(doing, total - self.left(), total, "jobs"))
