"""How far a comparison is, told while it runs."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """``done`` of ``total`` inputs have been judged on every runtime; None when nobody knows how many will come."""

    doing: str
    done: int = 0
    total: int | None = None

    def __str__(self) -> str:
        if not self.done and self.total is None:
            return self.doing
        return f"{self.doing} ({self.done}{'' if self.total is None else f' of {self.total}'} inputs)"


Tell = Callable[[Progress], None]
