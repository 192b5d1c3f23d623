"""The GPU benchmark from the command line, whole, on a machine made of host memory and a library in plain words."""

import hashlib
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import create_autospec

import pytest

from gn_deploy.errors import InputError
from gn_deploy.plugin import about
from gn_deploy.plugin import build as builder
from gn_deploy.plugin.binding import Library
from scripts import gpu_bench
from scripts.gpu import child, phases, results
from scripts.gpu.budget import Budget
from scripts.gpu.cases import Case
from scripts.gpu.sample import PLAIN, Check
from scripts.gpu.supervise import Lost
from tests.plugins.compiled import ROOT
from tests.scripts.host_machine import TINY
from tests.scripts.naive import naive

RESULTS = ROOT / "plugins" / "results"
HOST = "tests.scripts.host_machine:HostMachine"
EMULATED = "tests.scripts.host_machine:EmulatedMachine"


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "CASES", TINY)


def bench(out: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    given = [
        "--library",
        str(naive()),
        "--machine",
        HOST,
        "--date",
        "2026-11-28",
        "--out",
        str(out),
        "--seconds",
        "0.01",
        *arguments,
    ]
    code = gpu_bench.main(given)
    return code, results.read(out)


def test_everything_in_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = bench(tmp_path / "host.json", "--checks", "4")
    printed = capsys.readouterr()
    assert code == 0, printed.err
    assert found["finished"]
    assert found["date"] == "2026-11-28"
    assert found["library"]["build_s"] is None
    assert found["launch_us"] > 0
    checks = found["checks"]
    assert (checks["ran"], checks["faults"]) == (18, [])  # 4 on 5 variants; the warp variant takes no NHWC
    assert checks["variants"]["warp"] == checks["variants"]["warp"] | {"ran": 2, "not_suited": 2, "faulty": 0}
    assert 0 < checks["variants"]["split"]["worst"] <= 1
    assert checks["variants"]["split"]["where"] in {"2x32x16x16/8 float16 nchw silu", "2x32x16x16/8 float16 nhwc silu"}
    assert found["sanitizer"] == {"reason": "compute-sanitizer is neither on PATH nor in a CUDA toolkit"}
    assert list(found["cases"]) == [case.key for case in TINY]
    for case, row in zip(TINY, found["cases"].values(), strict=True):
        assert row["selected"] == "block"
        timed = {v for v, told in row["variants"].items() if "us" in told}
        assert timed == set(row["variants"]) - ({"warp"} if case.layout == "nhwc" else set())
        assert all(row["variants"][v]["error_over_bound"] <= 1 for v in timed)
        assert row["us"] == row["variants"]["block"]["us"] == row["eager_beside_us"]
        assert row["variants"][row["best"]]["us"] == min(row["variants"][v]["us"] for v in timed)
        assert row["copy_us"] == min(row["own_copy_us"], row["torch_copy_us"])
        for name in ("eager_us", "compile_us", "compile_beside_us", "hot_us", "hot_copy_us"):
            assert row[name] > 0, name
        assert row["ring"]["launches"] % row["ring"]["buffers"] == 0
        assert row["rounds"] >= 7
        assert row["clock_mhz"] == [1000, 1000]
        assert "not measured" not in row["verdict"].values()
    lines = printed.out.splitlines()
    assert lines[0].startswith("Host (compute capability 9.0, 4 multiprocessors), driver none, torch any, 2026-11-28;")
    assert len([line for line in lines if line.startswith("| ")]) == 1 + len(TINY)
    assert "18 checks against float64, 0 with faults" in lines[-1]
    assert "3 of 3 shapes timed" in lines[-1]
    assert [line for line in printed.err.splitlines() if line.startswith("wrote ")]


@pytest.mark.slow  # half a minute: an emulated launch takes milliseconds
def test_everything_with_the_kernels_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.plugins.emulated import library

    small = Case("SD1.5", (1, 32, 8, 8), groups=8), *TINY[1:]
    monkeypatch.setattr(results, "CASES", small)
    given = ["--library", str(library()), "--machine", EMULATED, "--seconds", "0.01", "--checks", "6"]
    assert gpu_bench.main([*given, "--out", str(tmp_path / "kernels.json")]) == 0
    found = results.read(tmp_path / "kernels.json")
    assert found["finished"]
    assert found["checks"]["ran"] > 20
    for row in found["cases"].values():
        assert row["us"] > 0
        assert row["compile_us"] > 0
        ran = [told["error_over_bound"] for told in row["variants"].values() if "us" in told]
        assert len(ran) >= 2
        assert max(ran) <= 1


def test_a_crash_is_a_result_and_the_rest_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GN_FAULT", "crash:team")
    code, found = bench(tmp_path / "crash.json", "--checks", "3", "--phases", "checks")
    assert code == 1
    ends = [(f["variant"], f["faults"]) for f in found["checks"]["faults"]]
    assert [variant for variant, _ in ends] == ["team", "team"]  # twice, then it is not asked again
    assert all("crashed (SIGABRT) while checking 2x32x16x16/8" in fault for _, (fault,) in ends)
    assert found["checks"]["variants"]["split"] == found["checks"]["variants"]["split"] | {"ran": 3, "faulty": 0}


@pytest.mark.slow  # it waits for a time limit
def test_a_hang_is_a_result_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GN_FAULT", "hang:cluster")
    monkeypatch.setattr(phases, "CHECK_LIMIT", 2.0)  # seconds; a check takes tens of milliseconds
    code, found = bench(tmp_path / "hang.json", "--checks", "1", "--phases", "checks")
    assert code == 1
    (fault,) = found["checks"]["faults"]
    assert fault["variant"] == "cluster"
    assert "took more than 2 s while checking 2x32x16x16/8" in fault["faults"][0]
    assert found["checks"]["ran"] == 5
    assert "FAULT cluster: 2x32x16x16/8" in capsys.readouterr().err


def test_what_torch_cannot_run_is_told_and_the_rest_is_timed() -> None:
    from tests.scripts.host_machine import HostMachine

    class Without(HostMachine):
        def compiled(self, function: object) -> Any:
            def fails(*given: object) -> None:
                raise RuntimeError("no compiler\nand a long story")

            return fails

    row = child.measure.measure(Without(naive()), TINY[0], seconds=0.01, compiled=True)
    assert row["compile_fault"] == "not recorded: no compiler"
    assert "compile_us" not in row
    assert row["us"] > 0


def test_wrong_numbers_are_not_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, where the machine is."""
    from tests.scripts.host_machine import HostMachine

    monkeypatch.setenv("GN_FAULT", "epsilon:split")
    row = child.measure.measure(HostMachine(naive()), TINY[0], seconds=0.01)
    assert re.search("times the bound off", row["variants"]["split"]["fault"])
    assert "us" not in row["variants"]["split"]
    monkeypatch.setenv("GN_FAULT", "counters:split")
    row = child.measure.measure(HostMachine(naive()), TINY[0], seconds=0.01, only=["split"])
    assert row["variants"]["split"]["fault"] == "counters are not left zero"
    assert set(row["variants"]) == {"split", "block"}  # what is selected is always timed
    monkeypatch.setenv("GN_FAULT", "random:block")
    row = child.measure.measure(HostMachine(naive()), TINY[0], seconds=0.01, compiled=True)
    assert row["variants"]["block"]["fault"] == "other bits when run again"
    assert row["compile_us"] > 0
    assert "compile_beside_us" not in row


class Answers:
    """In the place of the GPU's process: every answer takes so many seconds of a clock that is not the day's."""

    def __init__(self, seconds: float, losing: str = "") -> None:
        self.now, self.seconds, self.losing, self.asked = 0.0, seconds, losing, []

    def ask(self, doing: str, function: Any, *arguments: Any, limit: float) -> Any:
        assert limit > 0
        self.asked.append(doing)
        if function is child.time and self.losing and self.losing not in arguments[1]["without"]:
            raise Lost(self.losing, "crashed (SIGSEGV)")
        self.now += min(self.seconds, limit)
        if self.seconds > limit:
            raise Lost("split", f"took more than {limit:g} s", late=True)
        if function is child.check:
            return {v: {"ran": True, "faults": [], "ratio": 0.5} for v in arguments[1]}
        return {"us": 2.0, "copy_us": 1.0, "selected": "block", "variants": {"block": {"us": 2.0}}, "best": "block"}

    def close(self) -> None:
        pass


def started(answers: Answers, budget: float, *asked: str) -> phases.Run:
    found = results.begun(TINY, date="2026-11-28", command="", budget_s=budget)
    return phases.Run(answers, Budget(budget, clock=lambda: answers.now), found, lambda: None, lambda text: None, asked)


def test_the_budget_leaves_every_phase_its_part() -> None:
    answers = Answers(2.0)
    run = started(answers, 40.0, *gpu_bench.PHASES)
    phases.check_all(run, [Check((1, c, 4), 1) for c in range(1, 31)])
    assert len(answers.asked) == 7  # 35 % of 40 s are 14
    assert run.results["unfinished"] == ["checks: 7 of 30 in the time given"]
    phases.time_all(run, TINY)
    assert len(answers.asked) == 10
    assert all(row["us"] == 2.0 for row in run.results["cases"].values())
    assert answers.now < 40


def test_the_last_phase_may_take_what_is_left() -> None:
    answers = Answers(1.0)
    phases.check_all(started(answers, 40.0, "checks"), [Check((1, c, 4), 1) for c in range(1, 41)])
    assert len(answers.asked) == 35  # but for the seconds that are kept for the end


def test_a_slow_case_does_not_take_the_next_ones_time() -> None:
    answers = Answers(9.0)
    run = started(answers, 30.0, "times")
    phases.time_all(run, TINY)
    assert (len(answers.asked), answers.now) == (1, 9.0)  # the next one may take twice as long as this one
    assert run.results["unfinished"] == ["times: 1 of 3 in the time given"]
    for row in run.results["cases"].values():
        row |= {"us": 1.0, "selected": "block"}
    phases.compile_all(run, TINY)
    assert (len(answers.asked), answers.now) == (2, 18.0)
    assert run.results["unfinished"][1:] == ["torch.compile: 1 of 3 in the time given"]


def test_a_process_that_never_answers_ends() -> None:
    answers = Answers(1000.0)
    run = started(answers, 200.0, "checks", "times")
    phases.check_all(run, [PLAIN], ["split", "block"])
    assert run.results["checks"]["variants"]["split"]["faulty"] == 1
    assert run.lost["split"] == ["took more than 30 s"]
    phases.time_all(run, TINY)
    assert len(answers.asked) < 12
    assert answers.now <= 201  # a second beyond at most, so that no limit is nothing


def test_what_the_budget_cuts_short_is_nobodys_fault() -> None:
    answers = Answers(25.0)
    run = started(answers, 25.0, "checks", "times")
    phases.check_all(run, [PLAIN])  # may take 9 of the 25 seconds
    phases.time_all(run, TINY)
    assert results.faults(run.results) == []
    assert run.lost == {}
    assert run.results["unfinished"] == ["checks: 0 of 1 in the time given", "times: 0 of 3 in the time given"]


@pytest.mark.parametrize("step", ["team", "eager"])
def test_what_takes_the_process_down_while_timing_is_left_out(step: str) -> None:
    answers = Answers(1.0, losing=step)
    run = started(answers, 200.0, "times")
    phases.time_all(run, TINY)
    assert all(row["us"] == 2.0 for row in run.results["cases"].values())
    # a variant is asked again for the next case, and given up when it did so twice; torch is asked each time
    assert len(answers.asked) == {"team": 3 + 2, "eager": 3 + 3}[step]
    assert list(run.distrusted()) == (["team"] if step == "team" else [])


def test_what_no_variant_did_is_told_of_the_case() -> None:
    answers = Answers(1.0, losing="start")
    run = started(answers, 200.0, "times")
    phases.time_all(run, TINY[:1])
    assert run.results["cases"][TINY[0].key]["fault"] == "start: crashed (SIGSEGV)"
    assert results.faults(run.results) == [f"{TINY[0].key}: start: crashed (SIGSEGV)"]


def test_what_is_missing_is_told_with_exit_code_3(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_bench.main([]) == 3
    printed = capsys.readouterr()
    assert printed.out == ""
    assert re.match("gpu_bench: torch .* is built without CUDA", printed.err)
    assert "a machine with an NVIDIA GPU" in printed.err


def test_help_needs_no_torch() -> None:
    script = str(ROOT / "scripts" / "gpu_bench.py")
    done = subprocess.run(
        [sys.executable, "-X", "importtime", script, "-h"], capture_output=True, text=True, check=True
    )
    assert "--budget SECONDS" in done.stdout
    assert "torch" not in done.stderr


def test_arguments_that_are_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "x.json")
    given = ["--library", str(naive()), "--machine", HOST, "--out", out]
    assert gpu_bench.main([*given, "--only", "nothing like it"]) == 2
    assert "no case is named like nothing like it" in capsys.readouterr().err
    assert gpu_bench.main([*given, "--variants", "warps"]) == 2
    assert "'warps' is no variant" in capsys.readouterr().err
    assert gpu_bench.main(["--library", "missing.so", "--machine", HOST, "--out", out]) == 2
    assert "no such library: missing.so" in capsys.readouterr().err
    wrong = tmp_path / "wrong.so"
    wrong.write_text("text")
    assert gpu_bench.main(["--library", str(wrong), "--machine", HOST, "--out", out]) == 3
    assert "cannot load" in capsys.readouterr().err


def test_commands_that_are_written_down_can_be_typed() -> None:
    texts = [(RESULTS / "README.md").read_text(), gpu_bench.__doc__ or ""]
    lines = [line for text in texts for line in re.findall("python scripts/gpu_bench.py.*", text)]
    assert len(lines) >= 7
    for line in lines:  # what a command does stands two spaces behind it
        assert gpu_bench.parser().parse_args(re.split(" {2,}", line)[0].split()[2:])


def test_the_library_is_built_for_this_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def compile_nothing(output: Path, **options: Any) -> SimpleNamespace:
        output.write_bytes(b"library")
        options["tell"](3, 4, "a.cu")
        return SimpleNamespace(path=output)

    build = create_autospec(builder.build, side_effect=compile_nothing)  # which knows what build takes
    monkeypatch.setattr(builder, "build", build)
    monkeypatch.setattr(builder, "architecture", {"native": 90}.get)
    told, path = gpu_bench.library_of(None, tmp_path)
    assert build.call_args.kwargs["architectures"] == [90]
    assert path.parent == tmp_path
    assert told["sha256"] == hashlib.sha256(b"library").hexdigest()
    assert told["build_s"] >= 0
    assert "3 of 4 a.cu" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("architectures", "ptx", "here", "runs"),
    [
        ((80, 90), (), 90, True),
        ((80,), (), 86, True),  # of the same generation, and not newer
        ((86,), (), 80, False),
        ((80,), (), 90, False),
        ((80,), (80,), 120, True),  # PTX is for all that come later
        ((), (120,), 90, False),
    ],
)
def test_a_library_for_another_gpu_is_refused(
    architectures: tuple[int, ...], ptx: tuple[int, ...], here: int, runs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = about.About(Path("x.so"), 1, "0", "unknown", "nvcc 13.0", "own", (), architectures, ptx, (), ())
    monkeypatch.setattr(about, "about", lambda path: found)
    monkeypatch.setattr(builder, "architecture", {"native": here}.get)
    if runs:
        told = gpu_bench.what_it_says(Path("x.so"))
        assert told == {"sources": "unknown", "outdated": False, "compiler": "nvcc 13.0", "built_for": found.built_for}
    else:
        with pytest.raises(InputError, match=rf"'x.so' is built for .*, this GPU is sm_{here} \(--arch {here}\)"):
            gpu_bench.what_it_says(Path("x.so"))


def test_the_library_is_the_one_of_this_process_too() -> None:
    assert Library(naive()).query_device().multiprocessors == 4
