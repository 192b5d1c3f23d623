"""Every wrong thing a user hands in ends in one line, a hint and the right exit code; nothing half-written stays."""

import os
import resource
import shlex
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.cli.conftest import Ended, command, environment, model

Cli = Callable[..., Ended]
Saved = Callable[..., Path]


def refused(ended: Ended, code: int = 2, *, text_before: bool = False) -> str:
    """The message; fails unless the ending is what a user should see, after the answer itself if ``text_before``."""
    lines = ended.err.splitlines()[-2 if text_before else 0 :]
    assert "Traceback" not in ended.err
    assert ended.code == code, ended.err
    assert ended.out == ""
    assert len(lines) == 2, ended.err
    assert lines[0].startswith("error: ")
    assert lines[1].startswith("hint: ")
    assert len(lines[1]) > len("hint: ")
    return ended.err


def _external(path: Path, location: str, data: bytes | None) -> None:
    """A model whose scale lies in another file."""
    proto = model()
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "16")):
        tensor.external_data.add(key=key, value=value)
    path.write_bytes(proto.SerializeToString())
    if data is not None:
        (path.parent / location).write_bytes(data)


def _cycle(path: Path) -> None:
    nodes = [helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Relu", ["a"], ["b"])]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(nodes, "g", [value("x", 1, [2])], [value("b", 1, [2])])
    path.write_bytes(helper.make_model(graph, ir_version=10).SerializeToString())


def _bad(path: Path) -> dict[str, Callable[[], Any]]:
    """What may be wrong with a file -> how to make it so."""
    good = model().SerializeToString()

    def put(**facts: Any) -> Callable[[], Any]:
        return lambda: path.write_bytes(model(**facts).SerializeToString())

    return {
        "missing": lambda: None,
        "folder": path.mkdir,
        "empty": lambda: path.write_bytes(b""),
        "truncated": lambda: path.write_bytes(good[: len(good) // 2]),
        "picture": lambda: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(64)),
        "noise": lambda: path.write_bytes(np.random.default_rng(0).bytes(4096)),
        "opset": put(opset=999),
        "domain": put(op="Nothing", domain="com.nobody"),
        "cycle": lambda: _cycle(path),
        "no external data": lambda: _external(path, "weights.bin", None),
        "outside": lambda: _external(path, "../weights.bin", bytes(16)),
        "indivisible": put(groups=3, channels=8),
        "epsilon < 0": put(epsilon=-1e-5),
        "epsilon NaN": put(epsilon=float("nan")),
        "scale": put(scale=3),
    }


EXPECTED = {
    "missing": "does not exist",
    "folder": "is a folder",
    "empty": "is empty",
    "truncated": "bad.onnx",
    "picture": "not an ONNX file",
    "noise": "bad.onnx",
    "opset": "999",
    "domain": "com.nobody",
    "cycle": "cycle",
    "no external data": "weights.bin",
    "outside": "weights.bin",
    "indivisible": "8",
    "epsilon < 0": "epsilon",
    "epsilon NaN": "epsilon",
    "scale": "scale",
}


@pytest.mark.parametrize("wrong", EXPECTED)
def test_a_bad_file_is_refused(wrong: str, here: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    _bad(folder / "bad.onnx")[wrong]()
    before = sorted(p.name for p in folder.iterdir())
    said = refused(here("inspect", "in/bad.onnx"))
    assert EXPECTED[wrong] in said
    assert sorted(p.name for p in folder.iterdir()) == before


@pytest.mark.parametrize("verb", ["lower", "build", "parity"])
def test_every_verb_refuses_a_missing_file_alike(verb: str, here: Cli, tmp_path: Path) -> None:
    rest = {"lower": ["-t", "onnx", "-o", "o"], "build": ["-o", "o"], "parity": ["other.onnx"]}[verb]
    assert "nope.onnx" in refused(here(verb, "nope.onnx", *rest))
    assert not list(tmp_path.iterdir())


def test_no_groupnorm_is_a_fine_answer_for_inspect_and_nothing_to_lower(
    here: Cli, saved: Saved, tmp_path: Path
) -> None:
    path = saved(op="Relu")
    seen = here("inspect", path.name, "--json")
    assert seen.code == 0
    assert seen.document["sites"] == []
    assert "no GroupNorm" in refused(here("lower", path.name, "-t", "onnx", "-o", "out.onnx"))
    assert not (tmp_path / "out.onnx").exists()
    forced = here("lower", path.name, "-t", "onnx", "-o", "out.onnx", "--force", "--json")
    assert forced.code == 0
    assert forced.document["summary"] == {"sites": 0, "rewritten": 0, "kept": 0}
    assert onnx.load(tmp_path / "out.onnx").graph.node[0].op_type == "Relu"


def test_a_form_that_no_groupnorm_can_have_is_no_success(here: Cli, saved: Saved, tmp_path: Path) -> None:
    path = saved()
    asked = ("lower", path.name, "-t", "ort-cpu+contrib", "-o", "out.onnx")
    told = refused(here(*asked))
    assert "of 1 GroupNorm in 'model.onnx' none can be written for ort-cpu+contrib: contrib: com.microsoft" in told
    assert not (tmp_path / "out.onnx").exists()
    forced = here(*asked, "--force", "--json")
    assert (forced.code, forced.document["summary"]) == (0, {"sites": 1, "rewritten": 0, "kept": 1})
    assert (tmp_path / "out.onnx").exists()
    assert here("lower", path.name, "-t", "onnx+native", "-o", "same.onnx").code == 0, "it has the form already"


def test_the_input_is_never_the_output(here: Cli, saved: Saved) -> None:
    path = saved()
    before = path.read_bytes()
    refused(here("lower", path.name, "-t", "onnx+instance_norm", "-o", f"./{path.name}"))
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("out", "message"),
    [("no/such/folder/o.onnx", "no/such/folder"), (".", "folder"), ("model.onnx/o.onnx", "model.onnx")],
)
def test_an_output_that_cannot_be_written(out: str, message: str, here: Cli, saved: Saved, tmp_path: Path) -> None:
    saved()
    assert message in refused(here("lower", "model.onnx", "-t", "onnx+instance_norm", "-o", out, "--no-verify"))
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


def test_an_output_folder_that_is_read_only_or_a_file(here: Cli, saved: Saved, tmp_path: Path) -> None:
    path = saved()
    (tmp_path / "taken").write_text("")
    assert "taken" in refused(here("parity", path.name, path.name, "--report", "taken"), text_before=True)
    assert "/proc" in refused(here("lower", path.name, "-t", "onnx+instance_norm", "-o", "/proc/o.onnx", "--no-verify"))


def test_a_full_disk_leaves_nothing_behind(cli: Cli, saved: Saved, tmp_path: Path) -> None:
    """A limit on file sizes makes write() fail in the middle, as a full disk does."""
    saved(channels=1024, groups=32)

    def small_disk() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    args = ("lower", "model.onnx", "-t", "onnx+instance_norm", "-o", "o.onnx", "--no-verify")
    env = {"PYTHONDONTWRITEBYTECODE": "1"}
    assert "o.onnx" in refused(cli(*args, preexec_fn=small_disk, env=env))
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


def test_a_full_device_for_the_document(cli: Cli, saved: Saved) -> None:
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            command("inspect", saved(), "--json"), stdout=full, stderr=subprocess.PIPE, text=True, env=environment()
        )
    assert ended.returncode == 2
    assert "disk" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "Exception ignored" not in ended.stderr


def test_a_reader_that_goes_away_is_no_failure(saved: Saved) -> None:
    process = subprocess.Popen(
        command("inspect", saved(), "--json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    said = process.stderr.read().decode()
    assert process.wait() == 0, said
    assert said == ""


@pytest.mark.parametrize(
    ("line", "code"),
    [("inspect model.onnx --json >&-", 0), ("inspect model.onnx 2>&-", 0), ("inspect model.onnx 2>/dev/full", 2)],
)
def test_closed_and_full_streams_do_not_look_like_broken_parity(line: str, code: int, saved: Saved) -> None:
    folder = saved().parent
    typed = shlex.join(command()) + " " + line
    ended = subprocess.run(["sh", "-c", typed], cwd=folder, env=environment(), stderr=subprocess.PIPE, text=True)
    assert (ended.returncode, ended.stderr) == (code, "")


SLOW_RECIPE = """
import time, pathlib
def build():
    pathlib.Path("building").touch()
    time.sleep(60)
def example_inputs():
    return ()
"""


def test_ctrl_c_in_the_middle(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW_RECIPE)
    process = subprocess.Popen(
        command("export", "slow.py", "-o", "o.onnx"),
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=environment(),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "building").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert out == ""
    assert err.splitlines() == ["interrupted: nothing half-written is left behind"]
    assert not (tmp_path / "o.onnx").exists()


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def build():\n    raise ValueError('no weights here')\ndef example_inputs(): return ()", "no weights here"),
        ("x = 1 +", "SyntaxError"),
        ("import a_package_nobody_has", "a_package_nobody_has"),
        ("", "build"),
    ],
)
def test_a_recipe_that_fails(source: str, expected: str, here: Cli, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(source)
    ended = here("export", "mine.py", "-o", "o.onnx")
    assert expected in refused(ended, 3 if "nobody_has" in source else 2)
    assert not (tmp_path / "o.onnx").exists()


def test_a_runtime_that_is_not_installed_is_never_skipped_silently(here: Cli, saved: Saved) -> None:
    path = saved()
    said = refused(here("parity", path.name, path.name, "--runtime", "tensorrt"), 3)
    assert "tensorrt" in said
    assert "tensorrt" in refused(here("doctor", "--require", "tensorrt"), 3)
    assert "did you mean" in refused(here("doctor", "--require", "tensorr"), 2)


def test_our_own_bug_says_so_and_keeps_the_traceback_for_debug(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from gn_deploy.cli import app

    def broken(path: object) -> None:
        raise RuntimeError("the\nboat \x1b[31m leaks")

    monkeypatch.setattr("gn_deploy.graph.io.load", broken)
    assert app.run(["inspect", "m.onnx"]) == 70
    out, err = capfd.readouterr()
    lines = err.splitlines()
    assert out == ""
    assert len(lines) == 2
    assert "a bug in gn_deploy" in lines[0]
    assert "RuntimeError: the boat" in lines[0]
    assert "\x1b" not in err
    assert "--debug" in lines[1]
    assert app.run(["inspect", "m.onnx", "--debug"]) == 70
    assert "Traceback" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (MemoryError(), "memory"),
        (OSError(28, "No space left on device", "o.onnx"), "o.onnx"),
        (OSError(30, "Read-only file system"), "Read-only"),
    ],
)
def test_what_the_machine_refuses_is_no_bug(
    raised: Exception, expected: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from gn_deploy.cli import app

    def broken(path: object) -> None:
        raise raised

    monkeypatch.setattr("gn_deploy.graph.io.load", broken)
    assert app.run(["inspect", "m.onnx"]) == 2
    err = capfd.readouterr().err
    assert expected in err
    assert len(err.splitlines()) == 2
