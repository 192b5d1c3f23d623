"""Every job is run once, whatever happens to those who run them."""

import json
import signal
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from gn_deploy.errors import ExitCode, InputError
from gn_deploy.matrix.folder import Folder
from gn_deploy.matrix.report import collected
from gn_deploy.matrix.run import resume, run
from gn_deploy.parity.progress import Progress
from gn_deploy.parity.status import Status
from tests.matrix.quick import DRIVER, Quick, environment, plan, ran


def results(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted((folder / "results").iterdir())}


def events(folder: Path, kind: str) -> Counter[str]:
    lines = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return Counter(line["job"] for line in lines if line["event"] == kind)


def test_finished_jobs_are_not_run_again(tmp_path: Path) -> None:
    told: list[Progress] = []
    executor = Quick(tmp_path / "ran")
    report = run(plan(), tmp_path / "m", executor=executor, jobs=3, progress=told.append)
    assert report.held
    assert len(report.jobs) == 12
    assert executor.closed
    assert sorted(ran(tmp_path / "ran")) == sorted(job.id for job in plan().jobs)
    assert (told[0].done, told[-1].done, told[-1].total) == (0, 12, 12)
    assert all(before.done <= after.done + 1 for before, after in pairwise(told))
    before = results(tmp_path / "m")
    again = run(plan(), tmp_path / "m", executor=executor)
    assert again == report
    assert len(ran(tmp_path / "ran")) == 12
    larger = run(plan(models=4), tmp_path / "m", executor=executor)
    assert len(larger.jobs) == 16
    assert len(ran(tmp_path / "ran")) == 16, "only what was not known yet"
    assert before.items() <= results(tmp_path / "m").items()
    assert not list((tmp_path / "m" / "claims").iterdir())


def test_failures_are_results_and_are_retried_when_asked_for(tmp_path: Path) -> None:
    folder, log = tmp_path / "m", tmp_path / "ran"
    report = run(plan(), folder, executor=Quick(log, bad="runtime1", late="runtime0  small"))
    assert report.exit_code is ExitCode.PARITY_BROKEN
    assert report.counts == {Status.CRASH: 6, Status.PASS: 6}
    assert {job.reason for job in report.jobs if job.status is Status.CRASH} == {"it fell over"}
    run(plan(), folder, executor=Quick(log), retry=("timeout",))
    assert len(ran(log)) == 12
    report = run(plan(), folder, executor=Quick(log, bad="normal"), retry=("crash", "timeout"))
    assert len(ran(log)) == 18
    assert report.counts == {Status.CRASH: 3, Status.PASS: 9}
    assert Counter(job.attempt for job in report.jobs) == {1: 6, 2: 6}
    assert run(plan(), folder, executor=Quick(log), retry=("crash",)).held
    for options, told in (
        ({"retry": ("crushed",)}, "no verdict is called 'crushed'"),
        ({"jobs": 0}, "0 jobs at once"),
        ({"executor": "slurm"}, "unknown executor 'slurm'"),
        ({"address": "ray://there:1"}, "is that of a Ray cluster"),
    ):
        with pytest.raises(InputError, match=told):
            run(plan(), folder, **options)  # type: ignore[arg-type]


def test_what_is_claimed_elsewhere_is_waited_for(tmp_path: Path) -> None:
    asked, place = plan(1, 1, 2), Folder(tmp_path / "m")
    place.make(asked)
    first = asked.jobs[0]
    done = threading.Event()

    def finish() -> None:
        done.wait(5)
        place.store(first.id, Quick(tmp_path / "other")(first))
        claim.__exit__(None, None, None)

    claim = place.claim(first.id)
    assert claim.__enter__()
    with place.claim(first.id) as ours:
        assert not ours
    other = threading.Thread(target=finish)
    other.start()
    report = run(asked, place.path, executor=Quick(tmp_path / "ran"), jobs=2, progress=lambda p: p.done and done.set())
    other.join()
    assert report.held
    assert ran(tmp_path / "ran") == [asked.jobs[1].id]


def test_same_contents_are_one_job(tmp_path: Path) -> None:
    one = plan(1, 1, 1)
    twice = replace(one, models=(one.models[0], replace(one.models[0], name="copy.onnx")))
    report = run(twice, tmp_path / "m", executor=Quick(tmp_path / "ran"))
    assert len(ran(tmp_path / "ran")) == 1
    assert [job.model for job in report.jobs] == ["m0.onnx", "copy.onnx"]


def test_an_error_of_ours_ends_the_run_and_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Folder, job: str, document: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Folder, "store", full)
    executor = Quick(tmp_path / "ran")
    with pytest.raises(OSError, match="No space left"):
        run(plan(), tmp_path / "m", executor=executor, jobs=2)
    assert executor.stopped
    assert executor.closed


def test_resume_takes_the_plan_from_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gn_deploy.matrix.run.changed", lambda plan: [])
    place = Folder(tmp_path / "m")
    place.make(plan(command="gn-deploy matrix ..."))
    assert len(collected(place.plan(), place).left) == 12
    report = resume(place.path, executor=Quick(tmp_path / "ran"))
    assert report.held
    assert report.command == "gn-deploy matrix ..."
    with pytest.raises(InputError, match=r"holds no plan\.json"):
        resume(tmp_path)
    (place.path / "plan.json").write_text("{")
    with pytest.raises(InputError, match="is not JSON"):
        resume(place.path)
    (place.path / "plan.json").write_text('{"schema_version": 1}')
    with pytest.raises(InputError, match="not a plan"):
        resume(place.path)


def driven(folder: Path, models: int, at_once: int, seconds: float, deadly: str = "", nth: int = 0) -> list[str]:
    return [sys.executable, "-c", DRIVER, str(folder), *map(str, (models, at_once, seconds, deadly, nth))]


def test_two_processes_share_the_work(tmp_path: Path) -> None:
    command = driven(tmp_path, 8, 2, 0.02)
    both = [subprocess.Popen(command, env=environment()) for _ in range(2)]
    assert [process.wait(60) for process in both] == [0, 0]
    assert sorted(ran(tmp_path / "ran")) == sorted(job.id for job in plan(8).jobs)
    assert set(events(tmp_path, "finished").values()) == {1}


@pytest.mark.parametrize(
    ("deadly", "nth"),
    [("half", 3), ("fsync", 6), ("replace", 4), ("logged", 2), ("write", 5)],
    ids=["half a file", "before fsync", "before rename", "before the log line", "in the log"],
)
def test_kill_9_in_the_middle_of_a_write_loses_nothing(tmp_path: Path, deadly: str, nth: int) -> None:
    whole = run(plan(), tmp_path / "whole", executor=Quick(tmp_path / "ran"))
    folder = tmp_path / "m"
    folder.mkdir()
    killed = subprocess.run(driven(folder, 3, 1, 0, deadly, nth), env=environment(), check=False)
    assert killed.returncode == -signal.SIGKILL
    finished = set(results(folder))
    assert finished < set(results(tmp_path / "whole")) | {n for n in finished if n.endswith(".tmp")}
    before = len(ran(folder / "ran"))
    assert run(plan(), folder, executor=Quick(folder / "ran")) == whole
    assert results(folder) == results(tmp_path / "whole")
    count = Counter(ran(folder / "ran"))
    assert sum(count.values()) <= 12 + 1, "at most what was in flight ran twice"
    assert before >= 1
    assert set(events(folder, "finished").values()) == {1}
    for name in finished:
        if name.endswith(".json"):
            assert count[name.removesuffix(".json")] == 1
