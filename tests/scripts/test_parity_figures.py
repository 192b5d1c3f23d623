"""tests/parity/README.md has a block for every section of scripts/figures, and is written by the one script."""

import importlib
from pathlib import Path
from types import ModuleType

import pytest

from scripts import pages, parity_figures

ROOT = Path(__file__).parents[2]
FILES = sorted(path.stem for path in (ROOT / "scripts" / "figures").glob("[!_]*.py"))


def test_every_section_has_its_block_and_its_measurement() -> None:
    text = parity_figures.README.read_text()
    names = pages.blocks(text)
    with_section = [name for name in FILES if hasattr(importlib.import_module(f"scripts.figures.{name}"), "section")]
    assert sorted(names) == with_section
    for name in names:
        assert pages.block(text, name), f"run scripts/parity_figures.py --only {name}"


@pytest.fixture
def readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "README.md"
    path.write_text(
        "before\n<!-- one -->\nold\n<!-- end of one -->\nbetween\n<!-- two -->\n2\n<!-- end of two -->\nafter\n"
    )
    monkeypatch.setattr(parity_figures, "README", path)
    monkeypatch.setattr(parity_figures, "ROOT", tmp_path)
    monkeypatch.setattr(parity_figures, "import_module", played)
    return path


def played(name: str) -> ModuleType:
    module = ModuleType(name)
    module.section = lambda: {"one": "1", "two": "2"}[name.rpartition(".")[2]]  # type: ignore[attr-defined]
    return module


def test_only_the_blocks_are_written(readme: Path) -> None:
    assert parity_figures.main([]) == 0
    assert readme.read_text() == (
        "before\n<!-- one -->\n1\n<!-- end of one -->\nbetween\n<!-- two -->\n2\n<!-- end of two -->\nafter\n"
    )


def test_only_what_was_asked_for(readme: Path) -> None:
    old = readme.read_text()
    assert parity_figures.main(["--only", "two"]) == 0
    assert readme.read_text() == old
    with pytest.raises(SystemExit):
        parity_figures.main(["--only", "three"])


def test_check_writes_nothing(readme: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = readme.read_text()
    assert parity_figures.main(["--check"]) == 1
    assert "one" in capsys.readouterr().err
    assert parity_figures.main(["--check", "--only", "two"]) == 0
    assert readme.read_text() == old


def test_a_marker_without_its_end(readme: Path, capsys: pytest.CaptureFixture[str]) -> None:
    readme.write_text("<!-- one -->\n")
    assert parity_figures.main([]) == 2
    assert "end of one" in capsys.readouterr().err
