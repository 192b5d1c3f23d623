"""Runtimes as they open a model in a comparison, for opening many small ones the same way."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from gn_deploy.diagnosis.search import Open
from gn_deploy.registry import Unavailable
from gn_deploy.runtimes import RUNTIMES, resolve
from gn_deploy.runtimes.isolated import isolated

if TYPE_CHECKING:
    from gn_deploy.runtimes.isolated import Limits


@dataclass(frozen=True, slots=True, eq=False)
class Deployed:
    """How a runtime opens a model, under the label that the report has for it."""

    label: str
    opened: Open
    asked: str = ""
    """A lower precision that was asked for; what it does is no error."""


def deployed(labels: Sequence[str], limits: "Limits | None" = None) -> list[Deployed]:
    """Those of ``labels`` that are there; with ``limits`` in processes of their own."""
    found = []
    for label in labels:
        entry = RUNTIMES.get(resolve(label))
        if not isinstance(entry, Unavailable):
            runtime = entry if limits is None else isolated(entry, limits)
            found.append(Deployed(label, partial(runtime.open)))
    return found
