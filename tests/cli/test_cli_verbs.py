"""What every verb answers when all is well, on which stream, and that parity tells right spellings from wrong ones."""

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import onnx
import pytest

from gn_deploy.cli.app import run
from tests.cli.conftest import Ended, command, environment, model

Cli = Callable[..., Ended]
Saved = Callable[..., Path]

SPELLED = """<ir_version: 10, opset_import: ["": 20]>
g (float[2, 4, 4, 4] x) => (float[2, 4, 4, 4] y)
<int64[3] view = {2, 2, 32}, int64[4] back = {2, 4, 4, 4}, int64[1] last = {2}, float eps = {0.00001},
 float bessel = {1.032258}, float[1, 4, 1, 1] w = {1.5, 0.5, 2.0, 1.0}, float[1, 4, 1, 1] b = {0.5, -1.0, 0.25, 0.0}> {
  v = Reshape(x, view)
  m = ReduceMean(v, last)
  d = Sub(v, m)
  VARIANCE
  e = Add(var, eps)
  r = Sqrt(e)
  n = Div(d, r)
  z = Reshape(n, back)
  s = Mul(z, w)
  y = Add(s, b)
}"""
TWO_PASS = "q = Mul(d, d)\n  var = ReduceMean(q, last)"
UNBIASED = "q = Mul(d, d)\n  biased = ReduceMean(q, last)\n  var = Mul(biased, bessel)"
ONE_PASS = "q = Mul(v, v)\n  mq = ReduceMean(q, last)\n  mm = Mul(m, m)\n  var = Sub(mq, mm)"
PERMUTED = "int64[4] order = {0, 2, 1, 3},"


def spell(path: Path, variance: str = TWO_PASS, *, epsilon: str = "0.00001", permuted: bool = False) -> Path:
    """GroupNorm(2 groups, 4 channels) in primitives; ``permuted`` puts channels 0, 2 and 1, 3 into a group."""
    text = SPELLED.replace("VARIANCE", variance).replace("0.00001", epsilon)
    if permuted:
        text = text.replace("<int64[3] view", f"<{PERMUTED} int64[3] view")
        text = text.replace("Reshape(x, view)", "Reshape(p, view)").replace(
            "  v =", "  p = Gather<axis = 1>(x, order)\n  v ="
        )
        text = text.replace("z = Reshape(n, back)", "t = Reshape(n, back)\n  z = Gather<axis = 1>(t, order)")
    onnx.save(onnx.parser.parse_model(text), path)
    return path


@pytest.mark.parametrize(
    ("variance", "facts", "code"),
    [
        (TWO_PASS, {}, 0),
        (TWO_PASS, {"epsilon": "0.001"}, 1),
        (TWO_PASS, {"permuted": True}, 1),
        (UNBIASED, {}, 1),
        (ONE_PASS, {}, 1),
    ],
    ids=["right", "epsilon", "permuted groups", "unbiased variance", "one-pass variance"],
)
def test_parity_tells_right_from_wrong(
    variance: str, facts: dict[str, object], code: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    a, b = spell(tmp_path / "a.onnx"), spell(tmp_path / "b.onnx", variance, **facts)  # type: ignore[arg-type]
    assert run(["parity", str(a), str(b), "--json"]) == code
    out, err = capfd.readouterr()
    document = json.loads(out)
    assert document["verdict"] == ("broken" if code else "held")
    assert document["sites"] or code
    assert err == ""


@pytest.mark.parametrize("form", ["native", "instance_norm", "layer_norm", "primitives"])
def test_every_form_that_lower_writes_keeps_parity(
    form: str, saved: Saved, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    a, b = saved(groups=4, channels=8), tmp_path / "b.onnx"
    assert run(["lower", str(a), "-t", f"onnx+{form}", "-o", str(b), "--json"]) == 0
    lowered = json.loads(capfd.readouterr().out)
    assert lowered["summary"] == {"sites": 1, "rewritten": int(form != "native"), "kept": int(form == "native")}
    assert run(["parity", str(a), str(b), "--runtime", "onnxruntime", "--json"]) == (1 if form == "native" else 0)
    # ONNX Runtime has no CPU kernel for the op itself and computes its variance in one pass
    [site] = json.loads(capfd.readouterr().out)["sites"]
    assert site["form"] == form


def test_inspect_says_what_is_there(cli: Cli, saved: Saved) -> None:
    path = saved(groups=4, channels=8, epsilon=1e-3, name="down.norm")
    ended = cli("inspect", path.name, "--target", "ort-cpu", "--json")
    assert (ended.code, ended.err) == (0, "")
    [site] = ended.document["sites"]
    assert site.items() >= {
        "name": "down.norm", "form": "native", "num_groups": 4, "num_channels": 8, "dtype": "float32", "rank": 4,
        "activation": "none", "module": "", "source": "",
    }.items()  # fmt: skip
    assert site["epsilon"] == pytest.approx(1e-3)
    assert site["decision"].keys() == {"accepted", "form", "reason"}
    assert site["decision"]["accepted"] is True
    assert ended.document.keys() >= {"model", "opset", "sites", "near_misses"}
    assert ended.document["opset"] == 21


def test_text_goes_to_stderr_and_nothing_to_stdout(cli: Cli, saved: Saved) -> None:
    path = saved(name="down.norm")
    ended = cli("inspect", path.name)
    assert (ended.code, ended.out) == (0, "")
    assert "1 GroupNorm, opset 21" in ended.err
    assert "down.norm" in ended.err
    assert "\x1b" not in ended.err  # not a terminal: no colours, no progress


def test_a_narrow_terminal_shows_fewer_columns_whole(here: Cli, saved: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(name="encoder.down.0.norm")
    assert "float32" in here("inspect", path.name).err
    monkeypatch.setenv("COLUMNS", "80")
    shown = here("inspect", path.name, "-t", "tensorrt").err
    assert max(map(len, shown.splitlines())) <= 80
    assert re.search(r"^encoder\.down\.0\.norm +native +2×4 +already written as native", shown, re.MULTILINE)
    assert "dtype, epsilon, source: in a wider terminal, or with --json" in shown


@pytest.mark.parametrize("columns", ["many", "0", "-5", "1e3"])
def test_a_width_that_is_none_is_passed_over(
    columns: str, here: Cli, saved: Saved, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    ended = here("inspect", saved().name)
    assert ended.code == 0
    assert "float32" in ended.err


def test_colours_on_a_terminal_unless_no_color(saved: Saved) -> None:
    """A pseudo-terminal as stderr, as a person has it."""

    def shown(**env: str) -> str:
        ours, theirs = os.openpty()
        ended = subprocess.run(command("inspect", saved()), stderr=theirs, stdout=theirs, env=environment(**env))
        os.close(theirs)
        said = b""
        try:
            while more := os.read(ours, 4096):
                said += more
        except OSError:  # Linux tells the end of a pseudo-terminal so
            pass
        os.close(ours)
        assert ended.returncode == 0
        return said.decode()

    colour = re.compile(r"\x1b\[[0-9;]*3[0-9]m")
    assert colour.search(shown())
    assert not colour.search(shown(NO_COLOR="1"))


def test_lower_says_what_it_did_and_leaves_the_input_alone(cli: Cli, saved: Saved, tmp_path: Path) -> None:
    path = saved(groups=1)
    before = path.read_bytes()
    ended = cli("lower", path.name, "--target", "tensorrt-rtx", "--out", "out.onnx", "--json")
    assert (ended.code, ended.err) == (0, "")
    document = ended.document
    assert document["target"] == "tensorrt-rtx"
    assert document["out"] == "out.onnx"
    assert document["written"] is True
    assert document["opset"] == {"before": 21, "after": 21}
    assert document["sites"][0]["decision"]["form"] == "layer_norm"  # num_groups = 1 is compiled wrongly as the op
    assert document["summary"] == {"sites": 1, "rewritten": 1, "kept": 0}
    assert "LayerNormalization" in {n.op_type for n in onnx.load(tmp_path / "out.onnx").graph.node}
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.onnx", "out.onnx"]


def test_parity_writes_its_reports_and_says_how_to_do_it_again(cli: Cli, saved: Saved, tmp_path: Path) -> None:
    path = saved()
    ended = cli("parity", path.name, path.name, "--dim", "batch=3", "--report", "proof")
    assert (ended.code, ended.out) == (0, "")
    assert ended.err.startswith("✓ Parity held. 1 GroupNorm on 1 runtime")
    document = json.loads((tmp_path / "proof" / "report.json").read_text())
    assert document["verdict"] == "held"
    assert document["command"] == "gn-deploy parity model.onnx model.onnx --dim batch=3 --report proof"
    assert ElementTree.parse(tmp_path / "proof" / "junit.xml").getroot().get("failures") == "0"
    assert str(tmp_path) not in (tmp_path / "proof" / "report.html").read_text()


def test_doctor_lists_every_runtime(cli: Cli) -> None:
    from gn_deploy.runtimes import RUNTIMES

    ended = cli("doctor", "--json", "--require", "onnx-reference")
    assert (ended.code, ended.err) == (0, "")
    rows = {row["name"]: row for row in ended.document["runtimes"]}
    assert tuple(rows) == RUNTIMES.names()
    assert rows["onnx-reference"]["version"] == onnx.__version__
    for row in rows.values():
        assert row["run"]["accepted"] or row["run"]["reason"]
        assert row["build"]["accepted"] or row["build"]["reason"]


RECIPE = '''"""A convolution and a GroupNorm, for a test; it prints where it must not."""
import numpy as np
import torch
from torch import nn

def build():
    print("recipes print")
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.GroupNorm(2, 8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4)).eval()

def example_inputs():
    return (torch.randn(2, 1, 8, 8),)

def test_data():
    images = np.random.default_rng(0).normal(size=(16, 1, 8, 8)).astype(np.float32)
    with torch.no_grad():
        return {"input": images}, build()(torch.from_numpy(images)).argmax(1).numpy()
'''


def test_demo_and_export_of_a_recipe_of_your_own(tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "mine.py").write_text(RECIPE)
    ended = cli("demo", "--recipe", "mine.py", "--out", "made", "--json")
    assert ended.code == 0, ended.err
    document = ended.document  # although the recipe prints
    report = document["report"]
    assert report["verdict"] == "held"
    assert [r["runtime"] for r in report["runtimes"]] == ["torch", "onnx-reference", "onnxruntime", "openvino"]
    assert {"mine.onnx", "mine.ort-cpu.onnx", "mine.openvino.onnx", "mine.tensorrt-rtx.onnx"} <= set(document["files"])
    assert {"report.html", "report.json", "junit.xml"} <= set(document["files"])
    assert {t["value"] for t in report["tasks"]} == {1.0}  # the labels are the module's own answers
    assert {t["samples"] for t in report["tasks"]} == {16}
    assert ("mine.engine" in document["files"]) == bool(report["engines"])
    assert json.loads((tmp_path / "made" / "report.json").read_text()) == report
    again = cli("parity", "made/mine.onnx", "made/mine.ort-cpu.onnx", "-r", "onnxruntime", "--json")
    assert again.code == 0
    assert again.document["sites"][0]["module"] == "1"


def test_a_broken_model_is_never_called_held_by_its_shape(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Other channels: nothing to compare with, so bad input, not parity."""
    for name, channels in (("a.onnx", 4), ("b.onnx", 8)):
        (tmp_path / name).write_bytes(model(channels=channels).SerializeToString())
    assert run(["parity", str(tmp_path / "a.onnx"), str(tmp_path / "b.onnx")]) == 2
    assert "input 'x'" in capfd.readouterr().err


def test_the_next_command_runs_in_a_fresh_clone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from gn_deploy.cli.demo import _program

    monkeypatch.setenv("PATH", str(tmp_path))
    told = subprocess.run([*_program(), "--version"], capture_output=True, text=True, env=environment(), check=True)
    assert told.stdout.startswith("gn-deploy ")
    (tmp_path / "gn-deploy").write_text("#!/bin/sh")
    (tmp_path / "gn-deploy").chmod(0o755)
    assert _program() == ["gn-deploy"]
