"""Jobs on a Ray cluster, a small one that is started here."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from gn_deploy.errors import InputError, UnavailableError
from gn_deploy.matrix import on_ray
from gn_deploy.matrix.on_ray import RayExecutor
from gn_deploy.matrix.plan import make_plan
from gn_deploy.matrix.run import run
from gn_deploy.parity.status import Status
from gn_deploy.runtimes.isolated import Limits
from tests.cli.conftest import Ended, model
from tests.matrix.quick import environment


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model and inputs for it, in which the test stands."""
    import numpy as np

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
    Path("a.onnx").write_bytes(model().SerializeToString())
    Path("data").mkdir()
    np.savez("data/mine.npz", x=np.ones((3, 4, 4, 4), np.float32))
    return tmp_path


@pytest.fixture
def ours() -> Iterator[Callable[[], list[str]]]:
    """Names of the processes that were started since, and are still there; none may be left at the end."""
    if find_spec("ray") is None:
        pytest.skip("ray is not installed")
    before = {process.pid for process in psutil.process_iter()}

    def started() -> list[str]:
        mine = psutil.Process().children(recursive=True)
        return [p.name() for p in mine if p.pid not in before and p.status() != psutil.STATUS_ZOMBIE]

    yield started
    if "ray" in sys.modules:
        sys.modules["ray"].shutdown()
    for _ in range(100):
        if not any("ray" in name or "gcs" in name for name in started()):
            break
        time.sleep(0.1)
    assert not [name for name in started() if "ray" in name or "gcs" in name]


def listening(process: psutil.Process) -> list[Any]:
    with suppress(psutil.Error):
        return [c for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN]
    return []


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def hang(*_: object) -> None:
    time.sleep(60)


def test_jobs_and_what_becomes_of_them(typed: Path, ours: Callable[[], list[str]], monkeypatch: Any) -> None:
    asked = make_plan(["a.onnx"], ["onnx+native"], runtimes=["ort"], families=["normal"], data=["data"])
    executor = RayExecutor(Limits(), jobs=2)
    import ray  # not before: the executor says to it where to listen

    folder = Path(executor._folder.name)  # type: ignore[union-attr]
    assert executor.at_once == 2
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    assert {node["NodeManagerAddress"] for node in ray.nodes()} == {"127.0.0.1"}
    assert any("raylet" in name for name in ours())
    heard = [
        c.laddr.ip.removeprefix("::ffff:") for p in psutil.Process().children(recursive=True) for c in listening(p)
    ]
    assert set(heard) == {"127.0.0.1"}
    outcome: dict[str, dict[str, Any]] = {}

    class Both:
        """The executor, which lives on; after the matrix jobs die and hang on purpose."""

        def __call__(self, job: Any) -> dict[str, Any]:
            return executor(job)

        def stop(self) -> None:
            pass

        def close(self) -> None:
            monkeypatch.setattr(on_ray, "STARTING", 0)
            monkeypatch.setattr(on_ray, "REQUESTS", 0.01)
            for what in (hang, die):
                executor._task = ray.remote(num_cpus=1, max_retries=0)(what)
                outcome[what.__name__] = executor(asked.jobs[0])
                monkeypatch.setattr(on_ray, "REQUESTS", 1)
            executor.close()

    report = run(asked, Path("m"), executor=Both(), jobs=2)
    assert [(job.target, job.case, job.status) for job in report.jobs] == [
        ("onnx+native", "normal", Status.UNSTABLE),
        ("onnx+native", "data", Status.UNSTABLE),
    ]
    assert report.jobs[0].report is not None
    assert report.jobs[0].report.runtimes[0].process == "own"
    assert outcome["hang"]["status"] == "timeout"
    assert outcome["die"]["status"] == "crash"
    assert "was lost" in outcome["die"]["reason"]
    assert not folder.exists()


def test_without_ray_or_without_an_answer(typed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "ray", None)
        with pytest.raises(UnavailableError, match="ray is not installed"):
            RayExecutor(Limits())

    def refuse(**_: object) -> None:
        raise ConnectionError("Ray Client failed to connect to head:10001")

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=refuse, shutdown=lambda: None))
    with pytest.raises(InputError, match="no Ray cluster at ray://head:10001: Ray Client failed"):
        RayExecutor(Limits(), address="ray://head:10001")


@pytest.mark.slow
def test_a_cluster_gives_the_results_that_this_machine_gives(
    typed: Path, cli: Callable[..., Ended], ours: Callable[[], list[str]]
) -> None:
    asked = ("matrix", "a.onnx", "-t", "ort-cpu", "-t", "openvino", "--cases", "normal,constant", "--json", "--out")
    here, there = cli(*asked, "here"), cli(*asked, "there", "--executor", "ray", "--jobs", "2")
    assert here.code == there.code == 0, there.err
    assert here.document["jobs"] == there.document["jobs"]
    stored = [sorted(file.read_bytes() for file in Path(f, "results").iterdir()) for f in ("here", "there")]
    assert stored[0] == stored[1]
    assert len(json.loads(stored[0][0])["report"]["sites"]) == 1
