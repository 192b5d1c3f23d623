"""How far a comparison is, told while it runs."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """``done`` of ``total`` have been judged; None when nobody knows how many will come.

    What is counted says ``unit``: inputs judged on every runtime, or GroupNorms judged, each once a runtime and input.
    """

    doing: str
    done: int = 0
    total: int | None = None
    unit: str = "inputs"

    def __str__(self) -> str:
        if not self.done and self.total is None:
            return self.doing
        return f"{self.doing} ({self.done}{'' if self.total is None else f' of {self.total}'} {self.unit})"


Tell = Callable[[Progress], None]
