"""Inputs that the user's own code gives: a function of a file or a module, or something to iterate over."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from gn_deploy.errors import GnDeployError, InputError
from gn_deploy.exporters.failure import one_line, place
from gn_deploy.parity.sources.code import code, importable, load
from gn_deploy.parity.sources.given import Given

DEFAULT = "load_data"
"""As Polygraphy calls it."""
_YIELDS = "it takes no arguments and yields one dict {input: array} (or tuple, or array) after the other"


def names_function(text: str) -> bool:
    """Whether ``text`` is FILE.py, FILE.py:FUNCTION or package.module:FUNCTION."""
    return code(text) is not None


def read_function(text: str) -> Iterator[Given]:
    """What the function yields; its folder can be imported from while it does."""
    at = code(text)
    assert at is not None, "asked with names_function"
    name = at.name or DEFAULT
    with importable(at.folder):
        yield from read_items(load(at, name, _YIELDS), at.where(name))


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
