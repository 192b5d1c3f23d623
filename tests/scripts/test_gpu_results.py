"""What the GPU benchmark writes: results that say what is wrong with them, and tables made of them."""

import json
from pathlib import Path

import pytest

from scripts import gpu_bench, pages
from scripts.gpu import results
from scripts.gpu.table import markdown
from tests.plugins.compiled import ROOT
from tests.scripts.host_machine import TINY

RESULTS = ROOT / "plugins" / "results"
TIMED = [path for path in sorted(RESULTS.glob("*.json")) if not path.stem.endswith("-sweep")]


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "CASES", TINY)


def test_results_say_what_is_wrong_with_them(tmp_path: Path) -> None:
    found = results.begun(TINY, date="2026-11-28", command="x", budget_s=1.0)
    assert results.problems(found) == []
    row = found["cases"][TINY[0].key]
    row |= {"us": float("inf"), "selected": "block", "variants": {"block": {"error_over_bound": float("nan")}}}
    path = tmp_path / "r.json"
    results.write(path, found)
    text = path.read_text()
    assert "Infinity" not in text
    assert "NaN" not in text
    assert results.read(path)["cases"][TINY[0].key]["us"] is None
    wrong = json.loads(text)
    del wrong["date"]
    wrong["spent_s"] = "long"
    wrong["more"] = 1
    wrong["checks"]["ran"] = True
    path.write_text(json.dumps(wrong))
    with pytest.raises(ValueError, match="date is missing; more is unknown; spent_s is 'long'"):
        results.read(path)
    assert "checks.ran is True" in str(results.problems(wrong))
    moved = json.loads(text)
    moved["cases"]["other"] = moved["cases"].pop(TINY[0].key)
    assert results.problems(moved) == [f"cases.other is {TINY[0].key}"]


def test_faults_and_missed_targets() -> None:
    found = results.begun(TINY, date="", command="", budget_s=1.0)
    assert (results.faults(found), results.missed(found)) == ([], [])
    key = TINY[0].key
    found["checks"]["faults"].append({"check": "c", "variant": "team", "faults": ["a", "b"]})
    found["cases"][key] |= {"variants": {"warp": {"fault": "off"}}, "fault": "lost"}
    found["cases"][key]["verdict"]["copy"] = "missed"
    found["sanitizer"] = {"tools": {"memcheck": {"status": "clean"}, "racecheck": {"status": "errors", "errors": 3}}}
    assert results.faults(found) == ["team: c: a; b", f"{key}: lost", f"warp: {key}: off", "racecheck: 3 errors"]
    assert results.missed(found) == [f"{key}: copy"]


def test_the_table_shows_every_time_and_what_would_have_been_better() -> None:
    found = results.begun(TINY, date="2026-11-28", command="", budget_s=1.0, finished=True)
    device = {"name": "NVIDIA H200", "compute_capability": "9.0", "multiprocessors": 132, "driver": "580"}
    found |= {"device": device, "versions": {"torch": "2.13"}, "launch_us": 1.25}
    variants = {"block": {"us": 4.0}, "team": {"us": 3.2}}
    row = found["cases"][TINY[0].key]
    row |= {"us": 4.0, "selected": "block", "best": "team", "variants": variants, "copy_us": 3.0}
    row |= {"eager_us": 10.0, "eager_beside_us": 4.0, "compile_us": 6.0, "compile_beside_us": 5.0}
    row["verdict"] = {"copy": "held", "eager": "held", "compile": "missed"}
    row["drift"] = 0.9
    head, _, titles, rule, line, _, last = markdown(found).splitlines()
    assert head.startswith(
        "NVIDIA H200 (compute capability 9.0, 132 multiprocessors), driver 580, torch 2.13, 2026-11-28"
    )
    assert [cell.strip() for cell in titles.split("|")][1:4] == ["layer", "x", "type"]
    assert set(rule) == {"|", "-"}
    assert len(titles) == len(rule) == len(line)
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells == [
        *("SD1.5", "1x32x8x8", "fp16", "silu", "block", "4.0", "2", "0.75 (0.65)", "2.50", "1.20"),
        *("team 1.25x", "missed: compile"),
    ]
    assert "compute-sanitizer did not run: no time. 1 of 3 shapes timed. 2 of 3 targets held" in last
    assert "1 of them on a GPU that changed its speed by more than 5 %" in last
    assert "an empty kernel takes 1.2 µs" in last


def test_the_table_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_bench.main(["--show", str(tmp_path / "missing.json")]) == 2
    assert "cannot show" in capsys.readouterr().err
    (tmp_path / "other.json").write_text("{}")
    assert gpu_bench.main(["--show", str(tmp_path / "other.json")]) == 2
    assert "cases is missing" in capsys.readouterr().err


def test_the_table_in_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = results.begun(TINY, date="2026-11-28", command="", budget_s=1.0)
    device = {"name": "NVIDIA H200", "compute_capability": "9.0", "multiprocessors": 132, "driver": "580"}
    file, page = tmp_path / "r.json", tmp_path / "README.md"
    results.write(file, found | {"device": device, "versions": {"torch": "2.13"}})
    page.write_text("# a\n<!-- results/r.json -->\nold\n<!-- end of results/r.json -->\nb\n")
    assert gpu_bench.main(["--show", str(file), "--into", str(page)]) == 0
    lines = page.read_text().splitlines()
    assert lines[:2] == ["# a", "<!-- results/r.json -->"]
    assert lines[-2:] == ["<!-- end of results/r.json -->", "b"]
    assert "old" not in lines
    assert "\n".join(lines[2:-2]) == markdown(results.read(file))
    page.write_text("nothing")
    assert gpu_bench.main(["--show", str(file), "--into", str(page)]) == 2
    assert "has no lines <!-- results/r.json -->" in capsys.readouterr().err


@pytest.mark.parametrize("file", [None, *TIMED], ids=lambda file: file and file.name)
def test_what_was_measured_is_quoted_as_it_is(file: Path | None) -> None:
    """The tables in plugins/README.md are those of the files in plugins/results, and of nothing else."""
    page = (RESULTS.parent / "README.md").read_text()
    if file is None:
        quoted = {name.removeprefix("results/") for name in pages.blocks(page) if name.startswith("results/")}
        assert quoted <= {path.name for path in TIMED}
        return
    assert file.name == results.file_name(results.read(file)["device"]["name"], results.read(file)["date"])
    if f"results/{file.name}" in pages.blocks(page):
        assert pages.block(page, f"results/{file.name}") == markdown(results.read(file))


def test_names() -> None:
    assert results.file_name("NVIDIA H200", "2026-11-28") == "nvidia-h200-2026-11-28.json"
    assert results.file_name("NVIDIA GeForce RTX 4090 ", "d") == "nvidia-geforce-rtx-4090-d.json"
    assert results.named(["nhwc"]) == (TINY[1],)
    assert results.named(["sd1", "resnet"]) == (TINY[0], TINY[2])
    assert results.named([]) == TINY
