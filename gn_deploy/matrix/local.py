"""Jobs in processes beside this one, one at a time in each."""

import threading
from pathlib import Path
from typing import Any

from gn_deploy.errors import GnDeployError
from gn_deploy.matrix.job import REQUESTS, STARTING, failed, run_job
from gn_deploy.matrix.plan import Job
from gn_deploy.runtimes.isolated import Limits
from gn_deploy.runtimes.worker import Worker


class LocalExecutor:
    """A process for each thread that asks, made anew when a job takes it down. They end with this process."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._mine = threading.local()
        self._lock = threading.Lock()
        self._every: list[Worker] = []
        self._stopped = False

    def __call__(self, job: Job) -> dict[str, Any]:
        """The result; a process that crashes, is killed or takes too long is one too."""
        worker = getattr(self._mine, "worker", None)
        if worker is None or not worker.alive:
            worker = self._mine.worker = self._started()
        data = Path(job.case.name) if job.case.digest else None
        arguments = (job, Path(job.model.name).absolute(), data and data.absolute(), self._limits)
        try:
            result: dict[str, Any] = worker.ask(
                "running it", "call", run_job, *arguments, time_limit=REQUESTS * self._limits.time + STARTING
            )
        except GnDeployError as error:
            return failed(job, error)
        return result

    def stop(self) -> None:
        """Ends all processes at once, whatever they are doing; what they were asked then fails."""
        with self._lock:
            self._stopped = True
            for worker in self._every:
                worker.kill()

    def close(self) -> None:
        for worker in self._every:
            worker.close()

    def _started(self) -> Worker:
        with self._lock:
            worker = Worker("the process of the job")
            self._every = [w for w in self._every if w.alive] + [worker]
            if self._stopped:
                worker.kill()
        return worker
