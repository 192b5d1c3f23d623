"""Small files that say what is in them, and the field's words."""

import ast
import re
import statistics
from pathlib import Path

import pytest

from tests.architecture.source import FILES, short, tree

LONGEST = 400  # lines; what can be read in one sitting (DESIGN, house style 7)
FORBIDDEN = {"core", "common", "utils", "util", "helper", "helpers", "manager", "context", "artifact"}


def lines(file: Path) -> int:
    return len(file.read_text().splitlines())


def test_the_median_file_is_short() -> None:
    sizes = [lines(file) for file in FILES if lines(file) > 1]
    assert statistics.median(sizes) <= 120, sorted(sizes)


@pytest.mark.parametrize("file", FILES, ids=short)
def test_no_file_is_long(file: Path) -> None:
    assert lines(file) <= LONGEST


@pytest.mark.parametrize("file", FILES, ids=short)
def test_a_file_begins_with_one_sentence(file: Path) -> None:
    docstring = ast.get_docstring(tree(file))
    assert docstring, "no docstring"
    first = docstring.split("\n\n")[0]
    assert first.endswith((".", "?")), first
    assert not re.search(r"[a-z)]\. [A-Z]", first), f"more than one sentence: {first}"
    assert "\n" not in first, "more than one line"


@pytest.mark.parametrize("file", FILES, ids=short)
def test_no_empty_words_as_names(file: Path) -> None:
    words = set(file.stem.split("_"))
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.ClassDef):
            words |= {word.lower() for word in re.findall(r"[A-Z]?[a-z]+", node.name)}
    assert not words & FORBIDDEN


@pytest.mark.parametrize("file", FILES, ids=short)
def test_nothing_of_this_machine_is_written_down(file: Path) -> None:
    assert not re.search(r"/(work|root|home/\w+|Users)/", file.read_text())
