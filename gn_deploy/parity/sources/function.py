"""Inputs that the user's own code gives: a function of a file or a module, or something to iterate over."""

import importlib
import importlib.util
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from gn_deploy.errors import GnDeployError, InputError
from gn_deploy.exporters.failure import missing, one_line, place
from gn_deploy.parity.sources.given import Given

DEFAULT = "load_data"
"""As Polygraphy calls it."""
_PLACE = re.compile(r"(?P<file>.+\.py)(?::(?P<name>\w+))?|(?P<module>[A-Za-z_]\w*(?:\.\w+)*):(?P<attribute>\w+)")
_YIELDS = "it takes no arguments and yields one dict {input: array} (or tuple, or array) after the other"


def names_function(text: str) -> bool:
    """Whether ``text`` is FILE.py, FILE.py:FUNCTION or package.module:FUNCTION."""
    return _PLACE.fullmatch(text) is not None


def read_function(text: str) -> Iterator[Given]:
    """What the function yields; its folder can be imported from while it does."""
    match = _PLACE.fullmatch(text)
    assert match is not None, "asked with names_function"
    name = match["name"] or match["attribute"] or DEFAULT
    file = Path(match["file"]) if match["file"] else None
    if file is not None and not file.is_file():
        raise InputError(f"no such file: {file}", "give FILE.py:FUNCTION or package.module:FUNCTION")
    where = f"{file.name if file else match['module']}:{name}"
    with importable(file.resolve().parent if file else Path.cwd()):
        found = getattr(load_module(file or match["module"], where), name, None)
        if found is None:
            raise InputError(f"'{file or match['module']}' has no '{name}'", f"define it: {_YIELDS}")
        yield from read_items(found, where)


def read_items(source: Any, where: str) -> Iterator[Given]:
    """A function's result, or ``source`` itself, item by item: each is a case."""
    called = f"{where}()" if callable(source) else where
    count = 0
    try:
        items = source() if callable(source) else source
        if isinstance(items, Mapping):
            items = [items]
        if (not isinstance(items, Iterable) and not hasattr(items, "__getitem__")) or isinstance(items, str | bytes):
            raise InputError(f"{called} gives a {type(items).__name__}, not inputs one by one", _YIELDS)
        for item in items:
            single = not isinstance(item, Mapping | tuple | list)
            yield Given(f"{where.rpartition(':')[2]} {count}", [item] if single else item, called)
            count += 1
    except GnDeployError:
        raise
    except ImportError as error:
        raise _failure(called, count, error) from error
    except (Exception, SystemExit) as error:
        raise _failure(called, count, error) from error


def _failure(called: str, count: int, error: BaseException) -> InputError:
    at = place(error)
    return InputError(f"{called} raised {one_line(error)} at input {count}", f"at {at}" if at else _YIELDS)


def load_module(source: Path | str, where: str) -> ModuleType:
    """The module in a file or of that name; what it raises on import is told in words."""
    try:
        if isinstance(source, str):
            return importlib.import_module(source)
        spec = importlib.util.spec_from_file_location(f"inputs.{source.stem}", source.resolve())  # hides no package
        assert spec is not None and spec.loader is not None  # noqa: PT018 (it ends in .py)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    except ModuleNotFoundError as error:
        if isinstance(source, str) and error.name and source.split(".")[0] == error.name.split(".")[0]:
            raise InputError(f"no module '{error.name}'", "give FILE.py:FUNCTION or package.module:FUNCTION") from None
        raise missing((error.name or "").partition(".")[0]) from error
    except GnDeployError:
        raise
    except (Exception, SystemExit) as error:
        at = place(error)
        raise InputError(f"importing {where} raised {one_line(error)}", f"at {at}" if at else "") from error


@contextmanager
def importable(folder: Path) -> Iterator[None]:
    sys.path.append(str(folder))  # last: nothing there hides an installed package
    try:
        yield
    finally:
        sys.path.remove(str(folder))
