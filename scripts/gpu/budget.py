"""So many seconds for everything: who may still begin, and how long each may take."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Budget:
    """Counts from its making. ``reserve`` is kept for the end: writing the results and showing them."""

    seconds: float
    reserve: float = 5.0
    clock: Callable[[], float] = time.monotonic
    begun: float = field(init=False)

    def __post_init__(self) -> None:
        self.begun = self.clock()

    @property
    def spent(self) -> float:
        return self.clock() - self.begun

    @property
    def left(self) -> float:
        return max(self.seconds - self.reserve - self.spent, 0.0)

    def allows(self, estimate: float) -> bool:
        """Whether what is expected to take so long would end in time."""
        return self.left >= estimate

    def limit(self, most: float) -> float:
        """Seconds that one request may take."""
        return min(most, self.left)

    def until(self, share: float, since: float = 0.0) -> "Budget":
        """A part that ends when ``share`` of what there was after ``since`` seconds is spent, so that what comes after
        it has its time as well."""
        part = Budget(since + (self.seconds - since) * share, 0.0, self.clock)
        part.begun = self.begun
        return part
