"""The user's own code, by FILE.py:NAME or package.module:NAME."""

import importlib
import importlib.util
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from gn_deploy.errors import GnDeployError, InputError
from gn_deploy.exporters.failure import missing, one_line, place

_PLACE = re.compile(r"(?P<file>.+\.py)(?::(?P<name>\w+))?|(?P<module>[A-Za-z_]\w*(?:\.\w+)*):(?P<attribute>\w+)")
_HINT = "give FILE.py:FUNCTION or package.module:FUNCTION"


@dataclass(frozen=True, slots=True)
class Code:
    """Where something of the user's is defined: in a file, or in a module that can be imported."""

    source: Path | str
    name: str
    """"" when only a file was named."""

    @property
    def folder(self) -> Path:
        """What stands there can be imported by it."""
        return self.source.resolve().parent if isinstance(self.source, Path) else Path.cwd()

    def where(self, name: str) -> str:
        """The place of ``name`` in words."""
        return f"{self.source.name if isinstance(self.source, Path) else self.source}:{name}"


def code(text: str) -> Code | None:
    """The place that ``text`` names; None when it is none."""
    match = _PLACE.fullmatch(text)
    if match is None:
        return None
    return Code(Path(match["file"]) if match["file"] else match["module"], match["name"] or match["attribute"] or "")


def load(at: Code, name: str, needed: str) -> Any:
    """What is called ``name`` there, while ``importable``; InputError, with what is ``needed``, where nothing is."""
    if isinstance(at.source, Path) and not at.source.is_file():
        raise InputError(f"no such file: {at.source}", _HINT)
    found = getattr(_module(at.source, at.where(name)), name, None)
    if found is None:
        raise InputError(f"'{at.source}' has no '{name}'", f"define it: {needed}")
    return found


def _module(source: Path | str, where: str) -> ModuleType:
    """The module in a file or of that name; what it raises on import is told in words."""
    try:
        if isinstance(source, str):
            return importlib.import_module(source)
        spec = importlib.util.spec_from_file_location(f"given.{source.stem}", source.resolve())  # hides no package
        assert spec is not None and spec.loader is not None  # noqa: PT018 (it ends in .py)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    except ModuleNotFoundError as error:
        if isinstance(source, str) and error.name and source.split(".")[0] == error.name.split(".")[0]:
            raise InputError(f"no module '{error.name}'", _HINT) from None
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
