"""matrix as a user types it, stopped in every way there is, and taken up again."""

import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.cli.conftest import Ended, command, environment

Cli = Callable[..., Ended]
Saved = Callable[..., Path]


def of(folder: Path) -> set[int]:
    """Processes that were started in ``folder``, and theirs."""
    found = set()
    for process in psutil.process_iter(["cwd", "pid"]):
        if process.info["cwd"] == str(folder) and process.pid != os.getpid():
            found.add(process.pid)
    return found


def results(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted((folder / "results").glob("*.json"))}


def test_a_matrix_and_its_reports(here: Cli, saved: Saved, tmp_path: Path) -> None:
    saved("a.onnx")
    saved("b.onnx", groups=4)
    typed = ("matrix", "a.onnx", "b.onnx", "-t", "onnx", "-t", "onnx+native", "-r", "onnxruntime", "--cases", "normal")
    ended = here(*typed, "--out", "m")
    assert ended.code == 1, ended.err
    assert "✗ Parity broken. 2 models × 2 targets × 1 case: 2 unstable, 2 pass." in ended.err
    assert "a.onnx, b.onnx for onnx+native on onnxruntime, normal" in ended.err
    assert ended.out == ""
    again = here(*typed, "--out", "m", "--json")
    assert again.code == 1
    document = again.document
    assert (document["kind"], document["schema_version"], document["verdict"]) == ("matrix", 1, "broken")
    assert json.loads((tmp_path / "m" / "report.json").read_text())["jobs"] == document["jobs"]
    page = (tmp_path / "m" / "report.html").read_text()
    assert page.count('class="badge pass"') == 2 + 2  # in the table of models, and in that of all jobs
    assert "norm (unstable)" in page
    assert "<script" not in page
    assert (tmp_path / "m" / "junit.xml").read_text().count("<failure ") == 2
    resumed = here("matrix", "--resume", "m", "--json")
    assert resumed.document["jobs"] == document["jobs"]
    lines = (tmp_path / "m" / "log.jsonl").read_text().splitlines()
    assert len(lines) == 2 * 4, "each job once, in three runs"


@pytest.mark.parametrize(
    ("args", "code", "told"),
    [
        (("m.onnx", "-t", "onnx"), 2, "no folder was given"),
        (("m.onnx", "-t", "onnx", "-o", "m", "--cases", "normall"), 2, "did you mean 'normal'?"),
        (("m.onnx", "-t", "onnx", "-o", "m", "--retry", "crushed"), 2, "no verdict is called 'crushed'"),
        (("m.onnx", "-t", "onnx", "-o", "m", "--jobs", "0"), 2, "0 jobs at once"),
        (("m.onnx", "-t", "onnx", "-o", "m.onnx"), 2, "is a file"),
        (("m.onnx", "-t", "onnx", "-o", "m", "--dim", "batch=x"), 2, "--dim batch=x is not NAME=SIZE"),
        (("m.onnx", "-t", "onnx", "-o", "m", "--dim", "foo=3"), 2, "no model has an input with a dim named 'foo'"),
        (("m.onnx", "-t", "onnx", "-o", "m", "--dim", "foo=3"), 2, "dynamic dims: batch"),
        (("--resume", "m", "-t", "onnx"), 2, "--resume goes on with what was asked for then"),
        (("--resume", "m"), 2, "holds no plan.json"),
        (("-t", "onnx", "-o", "m"), 2, "no model was given"),
    ],
)
def test_mistakes(here: Cli, saved: Saved, args: tuple[str, ...], code: int, told: str) -> None:
    saved("m.onnx")
    ended = here("matrix", *args)
    assert ended.code == code
    assert told in ended.err
    assert "Traceback" not in ended.err
    assert not Path("m").exists() or not list(Path("m").glob("results/*"))


def test_ray_that_is_not_installed_is_unavailable(here: Cli, saved: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
    saved("m.onnx")
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    ended = here("matrix", "m.onnx", "-t", "onnx", "-o", "m", "--executor", "ray")
    assert ended.code == 3
    assert "pip install 'gn-deploy[ray]'" in ended.err


def start(folder: Path, *args: str) -> "subprocess.Popen[bytes]":
    typed = command("matrix", *args)
    return subprocess.Popen(typed, cwd=folder, env=environment(), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)


def count(folder: Path, event: str) -> Counter[str]:
    log = folder / "log.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return Counter(line["job"] for line in lines if line["event"] == event)


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> bool:
    until = time.monotonic() + seconds
    while not (held := condition()) and time.monotonic() < until:
        time.sleep(0.05)
    return held


@pytest.mark.slow
def test_ctrl_c_then_kill_9_then_resume(cli: Cli, saved: Saved, tmp_path: Path) -> None:
    """Interrupted politely, then killed in the middle of a job, then finished: every job is there, once."""
    for i in range(3):
        saved(f"m{i}.onnx", epsilon=10.0 ** -(i + 3))
    typed = ("m0.onnx", "m1.onnx", "m2.onnx", "-t", "onnx", "--cases", "normal", "--out", "m")
    folder = tmp_path / "m"
    first = start(tmp_path, *typed)
    assert wait_for(lambda: len(count(folder, "finished")) >= 1)
    first.send_signal(signal.SIGINT)
    assert first.wait(30) == 130
    assert first.stderr is not None
    assert b"interrupted" in first.stderr.read()
    assert wait_for(lambda: not of(tmp_path), 10), "a process is left"
    after_ctrl_c = results(folder)
    begun = sum(count(folder, "started").values())
    second = start(tmp_path, "--resume", "m")
    assert wait_for(lambda: sum(count(folder, "started").values()) > begun)
    time.sleep(random.Random(0).random() / 2)
    second.kill()
    second.wait()
    assert wait_for(lambda: not of(tmp_path), 10), "a process is left"
    assert after_ctrl_c.items() <= results(folder).items()
    last = cli("matrix", "--resume", "m", "--json")
    assert last.code == 0, last.err
    assert len(last.document["jobs"]) == 3
    assert sorted(count(folder, "finished").values()) == [1] * 3
    whole = cli("matrix", *(arg if arg != "m" else "whole" for arg in typed), "--json")
    assert results(tmp_path / "whole") == results(folder), "byte for byte"
    assert whole.document["jobs"] == last.document["jobs"]
