"""Ordered names of things that live one to a file, open to third parties through an entry-point group."""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from gn_deploy.errors import InputError, UnavailableError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Unavailable:
    """An entry that exists but cannot be loaded here, and why."""

    name: str
    reason: str


class Registry(Generic[T]):
    """Ordered ``name -> object``, each imported on first use.

    1. Built-in entries come first, in the order given; entry points follow, sorted by name.
    2. A built-in name is never replaced by an entry point.
    3. An entry that fails to import becomes ``Unavailable(reason)``; it never breaks the others.
    """

    def __init__(self, kind: str, group: str, builtin: Mapping[str, str]) -> None:
        """``kind`` is the word used in messages; ``builtin`` maps a name to ``module:attribute``."""
        self._kind = kind
        self._group = group
        self._builtin = dict(builtin)
        self._paths: dict[str, str] | None = None
        self._loaded: dict[str, T | Unavailable] = {}

    def names(self) -> tuple[str, ...]:
        if self._paths is None:
            found = {e.name: e.value for e in entry_points(group=self._group)}
            self._paths = self._builtin | {n: found[n] for n in sorted(found) if n not in self._builtin}
        return tuple(self._paths)

    def get(self, name: str) -> T | Unavailable:
        """The entry, or why it cannot be loaded. Raises InputError for a name nobody registered."""
        if name not in self.names():
            near = difflib.get_close_matches(name, self.names(), n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(self.names())}"
            raise InputError(f"unknown {self._kind} '{name}'", hint)
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def require(self, name: str) -> T:
        """The entry; raises UnavailableError when it cannot be loaded here."""
        entry = self.get(name)
        if isinstance(entry, Unavailable):
            raise UnavailableError(f"{self._kind} '{name}' is not available: {entry.reason}")
        return entry

    def __iter__(self) -> Iterator[T | Unavailable]:
        return (self.get(name) for name in self.names())

    def _load(self, name: str) -> T | Unavailable:
        assert self._paths is not None
        module, _, attribute = self._paths[name].partition(":")
        try:
            loaded: T = getattr(import_module(module), attribute)
        except Exception as error:  # a third party's module may raise anything; rule 3
            return Unavailable(name, f"{type(error).__name__}: {error}")
        return loaded
