"""Jobs on a Ray cluster: models travel through its object store, results come back, nothing else is shared."""

import os
import tempfile
import threading
from pathlib import Path
from typing import Any

from gn_deploy.errors import InputError, UnavailableError
from gn_deploy.matrix.job import REQUESTS, STARTING, failed, run_job
from gn_deploy.matrix.plan import Job
from gn_deploy.runtimes.base import RuntimeFailure, TimeLimitExceeded, one_line
from gn_deploy.runtimes.isolated import Limits

LONGEST = 40  # characters: Ray appends about 60 for its sockets, whose paths may have 107 (Linux, unix(7))
Contents = dict[str, bytes]
"""Path within a folder -> what is in the file."""


class RayExecutor:
    """Each job is a task of one CPU that is never retried: a crash is a verdict.

    Without an address a cluster is started on this machine, heard on the loopback interface only, without dashboard
    and without usage statistics, in a temporary folder, and ended by ``close``.
    """

    def __init__(self, limits: Limits, *, address: str | None = None, jobs: int | None = None) -> None:
        """``jobs`` is how many run at once: the CPUs of the cluster to be started, or at most so many of one that is
        there. Raises UnavailableError without ray, InputError for a cluster that does not answer."""
        if address is None:
            os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
            os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # Ray's way of saying: loopback, here as elsewhere
        try:
            import ray
        except ImportError:
            raise UnavailableError("ray is not installed", "pip install 'gn-deploy[ray]'") from None
        self._ray, self._limits = ray, limits
        self._lock = threading.Lock()
        self._sent: dict[str, Any] = {}
        self._running: set[Any] = set()
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        if address is None:
            self._folder = tempfile.TemporaryDirectory(prefix="gn-", ignore_cleanup_errors=True)
            options |= {"num_cpus": jobs or os.cpu_count(), "include_dashboard": False}
            if len(self._folder.name) <= LONGEST:
                options["_temp_dir"] = self._folder.name
        try:
            ray.init(address=address or "local", **options)
        except (ConnectionError, ValueError, RuntimeError, OSError) as error:
            self.close()
            told = one_line(error, 160)
            raise InputError(
                f"no Ray cluster at {address or 'this machine'}: {told}", "for example --address ray://head:10001"
            ) from None
        if address is None and (heard := {node["NodeManagerAddress"] for node in ray.nodes()}) - {"127.0.0.1", "::1"}:
            self.close()
            raise InputError(
                f"Ray would listen at {', '.join(sorted(heard))}, open to the network, because it was imported before",
                "start a cluster yourself and give its address, or import ray later",
            )
        cpus = int(ray.cluster_resources().get("CPU", 0))
        if cpus < 1:
            raise InputError("the Ray cluster has no CPU to run a job on", "add nodes to it")
        self.at_once = min(cpus, jobs or cpus)
        self._task = ray.remote(num_cpus=1, max_retries=0, max_calls=0)(_task)

    def __call__(self, job: Job) -> dict[str, Any]:
        from ray import exceptions

        data = self._shipped(job.case.name, job.case.digest) if job.case.digest else None
        model = self._shipped(job.model.name, job.model.digest)
        base = None if self._folder is None else self._folder.name
        reference = self._task.remote(job, model, data, self._limits, base)
        limit = REQUESTS * self._limits.time + STARTING
        with self._lock:
            self._running.add(reference)
        try:
            result: dict[str, Any] = self._ray.get(reference, timeout=limit)
        except exceptions.GetTimeoutError:
            self._ray.cancel(reference, force=True)
            return failed(job, TimeLimitExceeded(f"the job took more than {limit:g} s"))
        except exceptions.OutOfMemoryError:
            return failed(job, RuntimeFailure("the job was killed by Ray, whose memory monitor saw too little left"))
        except exceptions.RayError as error:
            return failed(job, RuntimeFailure(f"the job was lost: {one_line(error, 160)}"))
        finally:
            with self._lock:
                self._running.discard(reference)
        return result

    def stop(self) -> None:
        with self._lock:
            for reference in self._running:
                self._ray.cancel(reference, force=True)

    def close(self) -> None:
        self._ray.shutdown()
        if self._folder is not None:
            self._folder.cleanup()

    def _shipped(self, name: str, digest: str) -> Any:
        """A file or folder in the object store, put there once."""
        with self._lock:
            if digest not in self._sent:
                self._sent[digest] = self._ray.put((digest, _contents(Path(name))))
            return self._sent[digest]


def _contents(path: Path) -> Contents:
    """A model with its data files, or a file or folder of data."""
    if path.is_dir():
        return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}
    if path.suffix != ".onnx":
        return {path.name: path.read_bytes()}
    from gn_deploy.graph.io import load, save

    with tempfile.TemporaryDirectory(prefix="gn-deploy-") as folder:  # links and caches become plain files
        save(load(path), Path(folder, path.name))
        return {p.name: p.read_bytes() for p in sorted(Path(folder).iterdir())}


def _task(
    job: Job, model: tuple[str, Contents], data: tuple[str, Contents] | None, limits: Limits, base: str | None
) -> dict[str, Any]:
    """What runs over there; ``base`` is the folder for its files."""
    file = _unpacked(*model, job.model.name, base)
    return run_job(job, file, None if data is None else _unpacked(*data, job.case.name, base), limits)


_FOLDERS: dict[str, tempfile.TemporaryDirectory[str]] = {}
"""Of this process, by digest: a model is written once however many jobs of it come here."""


def _unpacked(digest: str, contents: Contents, name: str, base: str | None) -> Path:
    """The file itself, or the folder."""
    if digest not in _FOLDERS:
        made = tempfile.TemporaryDirectory(prefix="gn-deploy-", dir=base)
        for inside, content in contents.items():
            place = Path(made.name, inside)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        _FOLDERS[digest] = made
    folder = Path(_FOLDERS[digest].name)
    return folder / Path(name).name if Path(name).name in contents else folder
