"""Recipes: a Python file that builds a model and says what its inputs look like."""

import difflib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from gn_deploy.errors import GnDeployError, InputError
from gn_deploy.exporters.examples import named_inputs, output_names
from gn_deploy.exporters.failure import missing, need, one_line, place

if TYPE_CHECKING:
    from torch import Tensor, nn

T = TypeVar("T")
TestData = tuple[dict[str, NDArray[Any]], NDArray[Any]]
"""Arrays by input name, and the labels; the first axis of each counts the samples."""

FOLDERS = (Path("models"), Path(__file__).parents[2] / "models")
"""Where a bare name is looked for: from the working directory, then in the checkout this package runs from."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """A model to deploy, as a file tells it.

    1. ``build() -> nn.Module`` makes ``module``, weights included, without network access.
    2. ``example_inputs() -> tuple | dict`` of tensors makes ``inputs``; keys are ``forward``'s parameters, in order.
    3. ``dynamic_shapes() -> dict``, or ``DYNAMIC = {input: {axis: name}}``, fixes which sizes are free; optional.
    4. ``test_data() -> (dict of arrays, labels)`` lets a task metric be computed; optional.
    5. The first line of the docstring is ``title``.
    """

    name: str
    path: Path
    title: str
    module: "nn.Module"
    inputs: "dict[str, Tensor]"
    dynamic: bool | Mapping[str, Mapping[int, Any]] = True
    test_data: Callable[[], TestData] | None = None


def load_recipe(path_or_name: str | Path) -> Recipe:
    """The recipe in a file, or for a bare name in ``models/NAME.py`` of one of ``FOLDERS``.

    Raises InputError when the file is missing or does not do what a recipe does, naming file, line and exception;
    UnavailableError when it imports a package that is not installed.
    """
    need("torch")
    from torch import nn

    path = _find(path_or_name)
    with _imported(path) as source:
        build = _function(source, path, "build", "build() -> nn.Module")
        example_inputs = _function(source, path, "example_inputs", "example_inputs() -> tuple of tensors")
        module = _call(path, "build()", build)
        if not isinstance(module, nn.Module):
            raise InputError(
                f"{path}: build() returned a {type(module).__name__}, not an nn.Module", "end it with: return model"
            )
        examples = _call(path, "example_inputs()", example_inputs)
        try:
            inputs = named_inputs(module, examples)
        except InputError as error:
            raise InputError(f"{path}: {error.message}", error.hint) from error
        dynamic = getattr(source, "DYNAMIC", True)
        if callable(declared := getattr(source, "dynamic_shapes", None)):
            dynamic = _call(path, "dynamic_shapes()", declared)
        if not isinstance(dynamic, bool | Mapping):
            raise InputError(
                f"{path}: dynamic sizes are a {type(dynamic).__name__}, not {{input: {{axis: name}}}}",
                'for example DYNAMIC = {"input": {0: "batch"}}',
            )
    title = next(iter((source.__doc__ or "").strip().splitlines()), path.stem)
    data = _test_data(path) if callable(getattr(source, "test_data", None)) else None
    return Recipe(path.stem, path, title, module, inputs, dynamic, data)


def recipe_subject(recipe: Recipe) -> "tuple[nn.Module, tuple[str, ...], tuple[str, ...]]":
    """The module, its input names in ``forward``'s order and its output names: those of the exported model."""
    return recipe.module, tuple(recipe.inputs), output_names(recipe.module, recipe.inputs)


def _find(path_or_name: str | Path) -> Path:
    path = Path(path_or_name)
    if path.suffix == "" and path.parent == Path() and not path.is_file():
        places = [folder / f"{path}.py" for folder in FOLDERS]
        path = next((place for place in places if place.is_file()), places[0])
    if Path(path_or_name).is_dir():
        raise InputError(f"'{path_or_name}' is a folder, not a recipe", "give one Python file")
    if not path.is_file():
        known = {p.stem for folder in {path.parent, *FOLDERS} for p in folder.glob("*.py")}
        near = [] if path.exists() else difflib.get_close_matches(path.stem, sorted(known), n=1)
        hint = f"did you mean '{path.with_name(near[0] + '.py')}'?" if near else "give the path of a Python file"
        raise InputError(f"no recipe '{path}'", hint)
    if path.suffix != ".py":
        raise InputError(f"'{path}' is not a Python file", "a recipe is a .py file with build() and example_inputs()")
    return path


def _function(source: ModuleType, path: Path, name: str, needed: str) -> Callable[[], Any]:
    function = getattr(source, name, None)
    if not callable(function):
        raise InputError(f"{path} has no {name}()", f"a recipe defines {needed}")
    found: Callable[[], Any] = function
    return found


def _call(path: Path, what: str, function: Callable[[], T]) -> T:
    """``function()``, with whatever it raises as one line."""
    try:
        with redirect_stdout(sys.stderr):  # stdout is for --json documents
            return function()
    except GnDeployError:
        raise
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        if not package or package == path.stem:
            raise _failure(path, what, error) from error
        raise missing(package) from error
    except (Exception, SystemExit) as error:
        raise _failure(path, what, error) from error


def _failure(path: Path, what: str, error: BaseException) -> InputError:
    where = place(error)
    hint = f"at {where}" if where else f"run 'python {path}' to see where"
    return InputError(f"{path}: {what} raised {one_line(error)}", hint)


def _test_data(path: Path) -> Callable[[], TestData]:
    def load() -> TestData:
        with _imported(path) as source:
            data = _call(path, "test_data()", source.test_data)
        try:
            arrays, labels = data
            arrays, labels = {str(name): np.asarray(array) for name, array in arrays.items()}, np.asarray(labels)
        except (TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"{path}: test_data() does not return ({{input: array}}, labels)",
                "for example return {'input': images}, labels: NumPy arrays, one row per sample",
            ) from error
        for name, array in arrays.items():
            if len(array) != len(labels):
                raise InputError(
                    f"{path}: test_data() has {len(array)} of '{name}' for {len(labels)} labels",
                    "the first axis of every array counts the samples",
                )
        return arrays, labels

    return load


@contextmanager
def _imported(path: Path) -> Iterator[ModuleType]:
    """The file run as a module that can import its neighbours; sys.path and sys.modules are put back."""
    folder = str(path.resolve().parent)
    name = f"recipe.{path.stem}"  # cannot hide an installed package of that name
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    assert spec is not None and spec.loader is not None  # noqa: PT018 (path ends in .py)
    load = spec.loader.exec_module
    source = importlib.util.module_from_spec(spec)
    before = set(sys.modules)
    sys.modules[name] = source
    sys.path.append(folder)  # last: a neighbour cannot hide an installed package either
    try:
        _call(path, "importing it", lambda: load(source))
        yield source
    finally:
        sys.path.remove(folder)
        for new in set(sys.modules) - before:
            if new == name or _is_neighbour(new, Path(folder)):
                del sys.modules[new]


def _is_neighbour(module: str, folder: Path) -> bool:
    """Whether ``module`` is folder/NAME.py or inside folder/NAME/; not a package in, say, folder/.venv."""
    top = module.partition(".")[0]
    file = getattr(sys.modules.get(top), "__file__", None) or ""
    return Path(file) in (folder / f"{top}.py", folder / top / "__init__.py")
