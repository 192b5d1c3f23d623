"""When enough inputs have been judged: a rule that stops, and what may be claimed when it did."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from gn_deploy.errors import InputError
from gn_deploy.parity.proportion import CONFIDENCE, clopper_pearson_upper, trials_needed
from gn_deploy.parity.report import Confidence

RATE = 0.01


@dataclass(frozen=True, slots=True)
class Until:
    """Judge fresh inputs until, with ``level`` confidence, fewer than ``rate`` of inputs like them break parity.

    The rule, and why it may be believed although it looks after every batch (peeking inflates a confidence):

    1. Success is claimed at one number of inputs only, known before the first is drawn: the least n with
       (1 - rate)^n <= 1 - level, 299 for 1 % with 95 %, and only when none of the n broke. If a share p of all inputs
       breaks, that happens with probability (1 - p)^n: at most 1 - level whenever p >= rate.
    2. Any violation is a failure, at once and for good. Stopping there can turn no failure into a success.
    3. Inputs are drawn from the families in turn, not at random from their mixture. With shares p_f the probability of
       no violation is the product of (1 - p_f)^(n / families), at most (1 - mean p_f)^n by the inequality of means.
    4. When the time is up, or the user's data, after k clean inputs, the claim is the weaker one of those k: how many
       fit into the time does not depend on whether they broke. It is then not settled.

    "Inputs like these" is part of the claim: nothing is said of inputs of another kind.
    """

    level: float = CONFIDENCE
    rate: float = RATE
    seconds: float | None = None
    """Time for all inputs together; None for as long as it takes."""

    def __post_init__(self) -> None:
        for name, value in (("level", self.level), ("rate", self.rate)):
            if not 0 < value < 1:
                raise InputError(f"a {name} of {value:g} is not between 0 and 1", f"for example {name} 0.95 or 0.01")
        if self.seconds is not None and not self.seconds > 0:
            raise InputError(f"{self.seconds:g} seconds leave no time", "more than 0, or nothing for no limit")
        if self.needed > MOST:
            raise InputError(
                f"a rate of {self.rate:g} with confidence {self.level:g} takes {self.needed} inputs",
                f"more than {MOST} are never drawn: ask for a larger rate",
            )

    @property
    def needed(self) -> int:
        return trials_needed(self.rate, self.level)


MOST = 1_000_000  # inputs; at a thousand a second, which only toys reach, a quarter of an hour


class Tally:
    """Counts inputs and violations, and says when it is over."""

    def __init__(self, until: Until, clock: Callable[[], float] = time.monotonic) -> None:
        self.until = until
        self._clock, self._start = clock, clock()
        self._inputs = self._violations = 0
        self._reason = ""

    def add(self, inputs: int, violations: int) -> None:
        self._inputs += inputs
        self._violations += violations

    def stop(self, reason: str) -> None:
        """Over for another reason than the ones counted here."""
        self._reason = reason

    @property
    def over(self) -> bool:
        return bool(self._reason or self._violations) or self._inputs >= self.until.needed or self._late

    @property
    def _late(self) -> bool:
        return self.until.seconds is not None and self._clock() - self._start >= self.until.seconds

    def confidence(self) -> Confidence:
        """What may be claimed now; asked when it is over, or when there was nothing more to judge."""
        settled = bool(self._violations) or self._inputs >= self.until.needed
        reason = self._reason
        if not settled and not reason:
            ended = "the time was up" if self._late else "there was no more data"
            reason = f"{ended} after {self._inputs} of {self.until.needed} inputs"
        below = clopper_pearson_upper(self._violations, self._inputs, self.until.level)
        return Confidence(self._inputs, self._violations, below, self.until.level, settled, reason)
