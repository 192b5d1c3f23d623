"""Scripts write what stands then the markers of their own block, and touch nothing else of a page."""

from pathlib import Path

import pytest

from gn_deploy.errors import InputError
from scripts import pages

PAGE = "before\n<!-- one -->\nold\n\n2\n<!-- end of one -->\nthen\n<!-- one more -->\n<!-- end of one more -->\nafter"


def test_blocks_are_found_read_and_replaced() -> None:
    assert pages.blocks(PAGE) == ["one", "one more"]
    assert pages.block(PAGE, "one") == "old\n\n2"
    assert pages.block(PAGE, "one more") == ""
    changed = pages.replaced(pages.replaced(PAGE, "one", "new"), "one more", "3\n4")
    assert changed == PAGE.replace("old\n\n2", "new").replace("one more -->\n<", "one more -->\n3\n4\n<")
    assert pages.block(changed, "one more") == "3\n4"


def test_a_page_is_updated_unless_it_is_only_checked(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    assert not pages.update(page, "one", "new", check=True)
    assert page.read_text() == PAGE
    assert not pages.update(page, "one", "new")
    assert page.read_text() == pages.replaced(PAGE, "one", "new")
    assert pages.update(page, "one", "new")
    assert pages.update(page, "one", "new", check=True)
    assert [file.name for file in tmp_path.iterdir()] == ["page.md"]


@pytest.mark.parametrize("text", ["", "<!-- one -->\n", "<!-- end of one -->\n<!-- one -->\n"])
def test_a_page_without_the_block_is_left_alone(tmp_path: Path, text: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(InputError, match="no lines <!-- one --> and <!-- end of one -->"):
        pages.update(page, "one", "new")
    assert page.read_text() == text
    with pytest.raises(InputError, match="cannot read"):
        pages.update(tmp_path / "missing.md", "one", "new")


def test_tables() -> None:
    assert pages.table([["a", "b"], [1, "x"]]) == "| a | b |\n|---|---|\n| 1 | x |"
