"""The sweep of choices and the fit to it: on host memory, on answers made up, and on times of known constants."""

import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gn_deploy.plugin.problem import DEVICES, Problem
from scripts import gpu_sweep
from scripts.gpu import child, fit, results, sweep, sweep_results
from scripts.gpu.budget import Budget
from scripts.gpu.cases import CASES, Case
from scripts.gpu.choices import key, name
from scripts.gpu.model import Constants, current, parts
from scripts.gpu.supervise import Lost
from tests.plugins.compiled import ROOT
from tests.scripts.host_machine import TINY, HostMachine
from tests.scripts.naive import naive

H200 = DEVICES["H200"]
TRUE = Constants(22, 15, 250, 120, 2600, 5000, 900, 2500, 24, 4, 1800)
LAYERS = CASES[:6] + CASES[9:10] + CASES[23:26]


def layers_of(c: Constants) -> list[fit.Layer]:
    """As if a GPU were what the model says it is."""
    found = []
    for case in LAYERS:
        p = Problem(**case.problem())
        listed = [key(choice) for choice in sweep.ranked(p, H200, 90)]
        times = {k: parts(p, H200, k).nanoseconds(c) / 1e3 for k in listed}
        found.append(fit.Layer(case.key, p, times, 1.0))
    return found


@pytest.fixture(scope="module")
def exact() -> list[fit.Layer]:
    return layers_of(TRUE)


def written(path: Path, layers: list[fit.Layer]) -> dict[str, Any]:
    begun = sweep_results.begun(LAYERS, date="2026-11-28", command="", budget_s=1.0)
    begun |= {"device": {"name": "NVIDIA H200"}, "gn_device": {f.name: getattr(H200, f.name) for f in fields(H200)}}
    for layer in layers:
        begun["layers"][layer.key] |= {"rows": [[*k, us, 3] for k, us in layer.times.items()], "copy_us": 1.0}
    sweep_results.write(path, begun)
    return begun


def test_known_constants_are_found(exact: list[fit.Layer]) -> None:
    found = fit.fitted(exact, H200)
    for f in fields(Constants):
        if f.name not in ("crowd", "alone_ns"):  # a rule, and what these layers may not tell
            assert getattr(found, f.name) == pytest.approx(getattr(TRUE, f.name), rel=0.01, abs=2), f.name


def test_known_constants_are_found_in_noise_with_outliers(exact: list[fit.Layer]) -> None:
    rng, noisy = np.random.default_rng(0), []
    for layer in exact[:9]:
        times = {k: us * (1 + 0.02 * rng.standard_normal()) for k, us in layer.times.items()}
        for k in list(times)[5::20]:
            times[k] *= 1.4  # somebody else used the GPU
        noisy.append(replace(layer, times=times))
    found = fit.fitted(noisy, H200)
    for n in ("cached_rate", "memory_rate", "team_ns", "launch_ns", "start_ns"):
        assert getattr(found, n) == pytest.approx(getattr(TRUE, n), rel=0.25), n


def test_what_no_time_tells_of_stays(exact: list[fit.Layer]) -> None:
    some = [replace(layer, times={k: us for k, us in layer.times.items() if k[0] != "split"}) for layer in exact]
    nchw = [layer for layer in some if layer.problem.layout == "nchw"]
    found = fit.fitted(nchw, H200)
    assert (found.launch_ns, found.row_bytes) == (current().launch_ns, current().row_bytes)
    assert found.memory_rate == pytest.approx(TRUE.memory_rate, rel=0.02)


def test_losses_are_those_of_what_is_selected(exact: list[fit.Layer]) -> None:
    now = {o.layer.key: o for o in fit.outcomes(exact, H200, TRUE)}
    for o in now.values():
        assert o.us == pytest.approx(o.expected_us)
        assert 0 <= o.loss < 0.2  # twice a tenth, by which the simpler kernel is preferred
    wrong = replace(TRUE, cluster_ns=20000, team_ns=1e5, launch_ns=0)
    assert fit.mean_loss(fit.outcomes(exact, H200, wrong)) > fit.mean_loss(list(now.values())) + 0.05
    found = fit.searched(exact[:5], H200, [wrong], tries=1)
    lost = [fit.mean_loss(fit.outcomes(exact[:5], H200, c)) for c in (found, wrong)]
    assert lost[0] < lost[1]
    untimed = fit.Layer("", exact[0].problem, {("split", 5, 512, 1, 1, 1, 0): 1.0})
    assert fit.outcomes([untimed], H200, TRUE)[0].loss == fit.UNTIMED


def test_the_fit_as_it_is_printed(
    tmp_path: Path, exact: list[fit.Layer], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit, "searched", lambda layers, d, begin: begin[0])  # has a test of its own
    path = tmp_path / "nvidia-h200-2026-11-28-sweep.json"
    written(path, exact)
    assert gpu_sweep.main(["--fit", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"NVIDIA H200, 2026-11-28: {sum(len(e.times) for e in exact)} choices for {len(exact)} layers"
    table = {cells[0]: cells[1:] for line in lines[2:] if len(cells := re.split(" {2,}", line)) > 1}
    assert table["layer"][:3] == ["selected", "us", "expected"]
    assert {case.key for case in LAYERS} <= table.keys()
    assert table["kMemoryRate"][:2] == ["12", "15"]
    assert table["constant"] == ["now", "least squares", "search"]
    assert "%" in table["mean loss"][0]
    assert len(path.read_text().splitlines()) > sum(len(e.times) for e in exact)  # a line for each


def test_what_is_no_sweep(tmp_path: Path, exact: list[fit.Layer], capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.json"
    for text, said in (("{}", "no sweep in format 1"), ("[", "cannot read"), ("[]", "no sweep")):
        path.write_text(text)
        assert gpu_sweep.main(["--fit", str(path)]) == 2
        assert said in capsys.readouterr().err
    assert gpu_sweep.main(["--fit", str(tmp_path / "missing.json")]) == 2
    written(path, [])
    assert gpu_sweep.main(["--fit", str(path)]) == 2
    assert "holds no times" in capsys.readouterr().err
    written(path, exact[:1])
    path.write_text(re.sub('"cluster [0-9]+ ', '"cluster ', path.read_text(), count=1))
    assert gpu_sweep.main(["--fit", str(path)]) == 2
    assert "no such time" in capsys.readouterr().err


def test_a_layer_is_swept_and_faults_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    machine, said = HostMachine(naive()), []
    row = sweep.sweep(machine, TINY[1], seconds=5.0, most=8, say=said.append, without={"x": "crashed"})
    assert row["faults"] == {"x": "crashed"}
    assert row["not_reached"] == 0
    assert len(row["rows"]) == row["listed"]
    assert {k[0] for k in row["rows"]} == {"block", "cluster", "team", "split"}
    assert [us for *_, us, _ in row["rows"]] == sorted(us for *_, us, _ in row["rows"])
    assert row["selected"] in [line[:-2] for line in row["rows"]]
    assert row["copy_us"] > 0
    assert {said.split(" ")[0] for said in row["verified"]} == {"block", "cluster", "team", "split"}
    assert max(row["verified"].values()) <= 1
    assert {name(tuple(line[:-2])) for line in row["rows"]} <= set(said)
    for fault, told in (
        ("epsilon", "times the bound off"),
        ("refuse", "not recorded: .*resources"),
        ("counters", "zero"),
    ):
        monkeypatch.setenv("GN_FAULT", f"{fault}:team")
        row = sweep.sweep(machine, TINY[1], seconds=5.0, most=4, only=["team", "split"])
        assert row["faults"], fault
        assert all(re.search(told, why) for why in row["faults"].values())
        assert not {name(tuple(line[:-2])) for line in row["rows"]} & row["faults"].keys()
        assert all(k.startswith("team ") for k in row["faults"])


def test_a_sweep_ends_in_time() -> None:
    now = iter(range(1000))
    row = sweep.sweep(HostMachine(naive()), TINY[2], seconds=1.0, clock=lambda: float(next(now)))
    assert row["not_reached"] == row["listed"] - sweep.BATCH
    assert row["selected"] in [line[:-2] for line in row["rows"]]  # which is the first of all


class Answers:
    """In the place of the GPU's process: some choices end it, every answer takes so many seconds."""

    def __init__(self, seconds: float, losing: tuple[str, ...] = (), late: bool = False) -> None:
        self.now, self.seconds, self.losing, self.late, self.asked = 0.0, seconds, losing, late, []

    def ask(self, doing: str, function: Any, case: Case, options: dict[str, Any], limit: float) -> dict[str, Any]:
        assert function is child.sweep
        self.asked.append((case.key, options))
        self.now += min(self.seconds, limit)
        for step in self.losing:
            if step not in options["without"] and step.split(" ")[0] in (*options["only"], "start"):
                raise Lost(step, "took too long" if self.late else "crashed (SIGSEGV)", late=self.late)
        rows = [["block", 5, 64, 1, 8, 64, 0, 2.0, 3]]
        return {"rows": rows, "seconds": self.seconds, "not_reached": 1, "listed": 2, "faults": options["without"]}


def swept(answers: Answers, seconds: float) -> dict[str, Any]:
    found = sweep_results.begun(TINY, date="", command="", budget_s=seconds)
    options = {"only": ("block", "team"), "most": 9}
    budget = Budget(seconds, clock=lambda: answers.now)
    gpu_sweep.sweep_all(answers, budget, found, TINY, options, 50.0, lambda: None)
    return found


def test_every_layer_has_its_part_of_the_time() -> None:
    answers = Answers(5.0)
    found = swept(answers, 95.0)
    assert [options["seconds"] for _, options in answers.asked] == [30.0, 42.5, 50.0]
    assert found["unfinished"] == [f"{case.key}: 1 of 2 choices not reached" for case in TINY]
    assert swept(Answers(20.0), 25.0)["unfinished"][1:] == ["1 of 3 layers in the time given"]


def test_a_choice_that_takes_the_process_down_is_left_out() -> None:
    answers = Answers(1.0, ("team 2x64 a",))
    found = swept(answers, 500.0)
    assert len(answers.asked) == 6  # each layer twice; after that no team would be asked again
    assert sweep_results.faults(found) == [f"{case.key}: team 2x64 a: crashed (SIGSEGV)" for case in TINY]
    assert all(row["rows"] for row in found["layers"].values())
    found = swept(Answers(1.0, ("start",)), 500.0)
    assert sweep_results.faults(found) == [f"{case.key}: start: crashed (SIGSEGV)" for case in TINY]
    many = Answers(1.0, tuple(f"team 2x64 {i}" for i in range(9)))
    swept(many, 500.0)
    assert [options["only"] for _, options in many.asked][3:] == [("block",)] * 3  # given up after three
    late = swept(Answers(100.0, ("team 2x64 a",), late=True), 25.0)
    assert sweep_results.faults(late) == []  # what the budget cuts short is nobody's fault
    assert late["unfinished"][0].endswith("the budget ended in the middle of it")


def test_what_is_missing_or_wrong_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert gpu_sweep.main([]) == 3
    assert re.match("gpu_sweep: torch .* is built without CUDA", capsys.readouterr().err)
    given = ["--library", str(naive()), "--machine", "tests.scripts.host_machine:HostMachine"]
    assert gpu_sweep.main([*given, "--only", "nothing like it"]) == 2
    assert gpu_sweep.main([*given, "--variants", "warps"]) == 2
    assert "'warps' is no variant" in capsys.readouterr().err


def test_commands_that_are_written_down_can_be_typed() -> None:
    texts = [(ROOT / "plugins" / "results" / "README.md").read_text(), gpu_sweep.__doc__ or ""]
    lines = [line for text in texts for line in re.findall("python scripts/gpu_sweep.py.*", text)]
    assert len(lines) >= 6
    for line in lines:
        assert gpu_sweep.parser().parse_args(re.split(" {2,}", line)[0].split()[2:])


@pytest.mark.slow  # a process with torch in it
def test_everything_on_host_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(results, "CASES", TINY)
    out = tmp_path / "host-sweep.json"
    given = ["--library", str(naive()), "--machine", "tests.scripts.host_machine:HostMachine", "--most", "12"]
    assert gpu_sweep.main([*given, "--out", str(out), "--date", "2026-11-28"]) == 0
    found = sweep_results.read(out)
    assert found["finished"]
    assert [len(row["rows"]) for row in found["layers"].values()] == [12, 12, 12]
    assert "choices in" in capsys.readouterr().err
    assert gpu_sweep.main(["--fit", str(out)]) == 0
    assert capsys.readouterr().out.startswith("Host, 2026-11-28: 36 choices for 3 layers")
