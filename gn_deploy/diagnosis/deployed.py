"""Runtimes as they open a model in a comparison, for opening many small ones the same way."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gn_deploy.registry import Unavailable
from gn_deploy.runtimes import RUNTIMES, asked_precision, resolve
from gn_deploy.runtimes.isolated import isolated

if TYPE_CHECKING:
    import onnx_ir as ir

    from gn_deploy.runtimes.base import Session
    from gn_deploy.runtimes.isolated import Limits


@dataclass(frozen=True, slots=True, eq=False)
class Deployed:
    """How a runtime opens a model, under the label that the report has for it."""

    label: str
    runtime: str
    """Its name in the registry."""
    open_with: Callable[..., Any]
    """``Runtime.open``: a model, and options."""
    asked: str = ""
    """A precision that was asked for; rounding to it is no error."""

    def opened(self, model: "ir.Model") -> "Session":
        """As in the comparison itself."""
        session: Session = self.open_with(model, **({"precision": self.asked} if self.asked else {}))
        return session


def deployed(labels: Sequence[str], limits: "Limits | None" = None) -> list[Deployed]:
    """Those of ``labels`` that are there; with ``limits`` in processes of their own."""
    found = []
    for label in labels:
        entry = RUNTIMES.get(resolve(label))
        if not isinstance(entry, Unavailable):
            runtime = entry if limits is None else isolated(entry, limits)
            found.append(Deployed(label, entry.name, runtime.open, asked_precision(label)))
    return found
