"""A recipe is an ordinary Python file, and whatever is wrong with it is said in one line."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gn_deploy.errors import ExitCode, GnDeployError, InputError, UnavailableError
from gn_deploy.exporters.recipe import load_recipe, recipe_subject

GOOD = '''"""A norm alone.

More about it.
"""
import torch
from torch import nn


def build():
    print("noise")
    return nn.GroupNorm(2, 4)


def example_inputs():
    return (torch.ones(1, 4, 6),)
'''

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str, name: str = "mine.py") -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    return write


def test_a_file_by_path(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = load_recipe(write(GOOD))
    assert (recipe.name, recipe.title, recipe.dynamic, recipe.test_data) == ("mine", "A norm alone.", True, None)
    assert list(recipe.inputs) == ["input"]
    assert recipe_subject(recipe) == (recipe.module, ("input",), ("output",))
    assert capsys.readouterr().out == ""  # stdout is for --json documents


def test_a_bare_name_is_found_in_models_of_the_working_directory(
    write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write(GOOD, "models/mine.py")
    monkeypatch.chdir(tmp_path)
    assert load_recipe("mine").path == Path("models/mine.py")


def test_a_bare_name_is_found_in_the_checkout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_recipe("digits_resnet").name == "digits_resnet"


@pytest.mark.parametrize(
    "declared", ["DYNAMIC = {'input': {0: 'n'}}", "def dynamic_shapes(): return {'input': {0: 'n'}}"]
)
def test_dynamic_sizes_are_read(write: Write, declared: str) -> None:
    assert load_recipe(write(GOOD + declared)).dynamic == {"input": {0: "n"}}


def test_test_data_is_loaded_when_asked(write: Write) -> None:
    recipe = load_recipe(write(GOOD + "def test_data(): return {'input': [[1.0], [2.0]]}, [0, 1]"))
    assert recipe.test_data is not None
    arrays, labels = recipe.test_data()
    np.testing.assert_array_equal(arrays["input"], [[1.0], [2.0]])
    np.testing.assert_array_equal(labels, [0, 1])


@pytest.mark.parametrize("value", ["3", "({'input': [1]}, [0, 1])", "({'input': [1]},)"])
def test_wrong_test_data(write: Write, value: str) -> None:
    recipe = load_recipe(write(GOOD + f"def test_data(): return {value}"))
    assert recipe.test_data is not None
    with pytest.raises(InputError, match=r"test_data\(\)"):
        recipe.test_data()


def test_neighbours_can_be_imported_and_nothing_is_left_behind(write: Write) -> None:
    write("CHANNELS = 4", "gn_neighbour.py")
    path = write(GOOD + "import gn_neighbour\nassert gn_neighbour.CHANNELS == 4")
    path_before, modules_before = list(sys.path), set(sys.modules)
    load_recipe(path)
    assert sys.path == path_before
    assert set(sys.modules) == modules_before


def test_a_name_like_an_installed_package_hides_nothing(write: Write) -> None:
    import json

    assert load_recipe(write(GOOD, "json.py")).name == "json"
    assert sys.modules["json"] is json


FAULTS = [
    ("def build(): pass", "has no example_inputs()", "a recipe defines"),
    ("def example_inputs(): pass", "has no build()", "a recipe defines"),
    ("1 / 0", "importing it raised ZeroDivisionError: division by zero", "mine.py line 1"),
    ("def build(:", "importing it raised SyntaxError", "mine.py line 1"),
    ("raise SystemExit(1)", "importing it raised SystemExit: 1", "mine.py line 1"),
    (GOOD + "def build():\n    raise ValueError('no\\nweights')", "build() raised ValueError: no", "mine.py line 17"),
    (GOOD + "def build(): return 3", "build() returned a int, not an nn.Module", ""),
    (GOOD + "def example_inputs(): return [1]", "'input' is a int, not a tensor", "wrapper"),
    (GOOD + "def example_inputs(): return {'inptu': torch.ones(1)}", "no positional parameter 'inptu'", "'input'?"),
    (GOOD + "def example_inputs(): return None", "a NoneType, not a tuple or dict of tensors", ""),
    (GOOD + "DYNAMIC = 3", "dynamic sizes are a int", ""),
]


@pytest.mark.parametrize(("text", "message", "hint"), FAULTS)
def test_a_faulty_file_is_told_in_one_line(write: Write, text: str, message: str, hint: str) -> None:
    with pytest.raises(InputError) as caught:
        load_recipe(write(text))
    assert "mine.py" in caught.value.message
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == ExitCode.BAD_INPUT


def test_missing_files(tmp_path: Path, write: Write) -> None:
    write(GOOD)
    (tmp_path / "model.onnx").touch()
    for path, message, hint in (
        (tmp_path / "mien.py", "no recipe", "mine.py'?"),
        (tmp_path, "is a folder", "one Python file"),
        (tmp_path / "model.onnx", "is not a Python file", "build()"),
        ("no_such_recipe", "no recipe 'models/no_such_recipe.py'", ""),
    ):
        with pytest.raises(InputError) as caught:
            load_recipe(path)
        assert message in caught.value.message
        assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("package", "hint"),
    [("diffusers", "'gn-deploy[models]'"), ("no_such_package.inner", "pip install no_such_package")],
)
def test_a_missing_package_is_exit_3(write: Write, monkeypatch: pytest.MonkeyPatch, package: str, hint: str) -> None:
    monkeypatch.setitem(sys.modules, package.partition(".")[0], None)  # as if it were not installed
    with pytest.raises(UnavailableError) as caught:
        load_recipe(write(f"import {package}"))
    assert hint in caught.value.hint
    assert caught.value.exit_code == ExitCode.UNAVAILABLE


def test_without_torch(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gn_deploy.exporters.failure.find_spec", lambda name: None)
    with pytest.raises(GnDeployError) as caught:
        load_recipe(write(GOOD))
    assert caught.value.exit_code == ExitCode.UNAVAILABLE
    assert "gn-deploy[torch]" in caught.value.hint
    assert "torch==2.13.0" in caught.value.hint
