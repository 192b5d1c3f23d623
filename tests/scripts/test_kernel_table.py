"""scripts/kernel_table.py explains itself, refuses what it does not know, and writes only its block."""

from pathlib import Path

import pytest

from gn_deploy.errors import UnavailableError
from gn_deploy.plugin.build import ARCHITECTURES
from scripts import kernel_table

PAGE = "a\n<!-- compiled kernels -->\nold\n<!-- end of compiled kernels -->\nb\n"


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "README.md"
    path.write_text(PAGE)
    monkeypatch.setattr(kernel_table, "README", path)
    monkeypatch.setattr(kernel_table, "ROOT", tmp_path)
    monkeypatch.setattr(kernel_table, "table", lambda architectures: f"for {list(architectures)}")
    return path


def test_the_architectures_asked_for_in_order(page: Path) -> None:
    assert kernel_table.main(["90", "80", "90"]) == 0
    assert page.read_text() == PAGE.replace("old", "for [80, 90]")
    assert kernel_table.main(["--check", "80", "90"]) == 0
    assert kernel_table.main([]) == 0
    assert page.read_text() == PAGE.replace("old", f"for {list(ARCHITECTURES)}")


def test_check_writes_nothing(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert kernel_table.main(["--check", "90"]) == 1
    assert capsys.readouterr().err == "kernel_table: not what README.md says\n"
    assert page.read_text() == PAGE


@pytest.mark.parametrize(
    ("given", "said"), [("91", "91 is none of the architectures 75, 80, 86"), ("sm_90", "invalid int value: 'sm_90'")]
)
def test_an_architecture_that_is_not_one(page: Path, capsys: pytest.CaptureFixture[str], given: str, said: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        kernel_table.main(["90", given])
    last = capsys.readouterr().err.splitlines()[-1]
    assert "error: " in last
    assert said in last
    assert page.read_text() == PAGE


def test_help_says_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        kernel_table.main(["-h"])
    told = capsys.readouterr().out
    assert "plugins/README.md" in told
    assert "75, 80, 86, 89, 90, 100, 120" in " ".join(told.split())


def test_without_the_compiler(page: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def missing(architectures: object) -> str:
        raise UnavailableError("no CUDA run-time compiler", "pip install nvidia-cuda-nvrtc")

    monkeypatch.setattr(kernel_table, "table", missing)
    assert kernel_table.main(["90"]) == 3
    assert "pip install nvidia-cuda-nvrtc" in capsys.readouterr().err
