"""How every choice explains itself: accepted or rejected, always with the reason."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Accepted:
    """The thing asked about holds or was done; ``reason`` may say why."""

    reason: str = ""

    def __bool__(self) -> Literal[True]:
        return True


@dataclass(frozen=True, slots=True)
class Rejected:
    """The thing asked about does not hold or was not done; ``reason`` always says why."""

    reason: str

    def __bool__(self) -> Literal[False]:
        return False


Decision = Accepted | Rejected
