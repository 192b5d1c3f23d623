"""The verdicts: what each word means, how grave it is, and the exit code it makes."""

from collections.abc import Iterable
from enum import StrEnum

from gn_deploy.errors import ExitCode, InputError


class Status(StrEnum):
    """What was found out about one site, output or runtime; the order is from harmless to grave.

    A comparison ends with 1 when anything in it is broken, else with 3 when a runtime that was asked for did not run,
    else with 0.
    """

    NOTRUN = "notrun"
    """Not judged here, with the reason; never counted as a pass. Exit code 3 for a runtime that was asked for."""
    PASS = "pass"
    """Inside the bound of the dtype that was promised. Exit code 0."""
    WARN = "warn"
    """End to end only: more than right runtimes have shown, less than anything wrong has. Exit code 0."""
    LOWPREC = "lowprec"
    """The right function, computed or stored in a lower dtype than promised. Exit code 1."""
    UNSTABLE = "unstable"
    """Outside the bound, inside the one of one-pass variance (E[x^2] - E[x]^2): right formula, unsafe arithmetic.
    Exit code 1."""
    NAN = "nan"
    """NaN or Inf where the reference has a number, or the other way round. Exit code 1."""
    FAIL = "fail"
    """A different function. Exit code 1."""
    TIMEOUT = "timeout"
    """The runtime took longer than it was given. Exit code 1."""
    CRASH = "crash"
    """The runtime refused, failed or died on a valid model. Exit code 1."""

    @property
    def severity(self) -> int:
        """The larger, the graver."""
        return tuple(Status).index(self)

    @property
    def broken(self) -> bool:
        return self not in (Status.NOTRUN, Status.PASS, Status.WARN)

    @property
    def exit_code(self) -> ExitCode:
        if self.broken:
            return ExitCode.PARITY_BROKEN
        return ExitCode.UNAVAILABLE if self is Status.NOTRUN else ExitCode.OK


ACCEPTABLE = (Status.WARN, Status.LOWPREC, Status.UNSTABLE)
"""What a user may take for held: the right function, in other arithmetic than was asked for."""


def acceptable(words: Iterable[str]) -> tuple[Status, ...]:
    """Each word once, as a verdict; InputError for one that is none, or that no user may accept."""
    found: dict[Status, None] = {}
    for word in words:
        if word not in ACCEPTABLE:
            known = word in tuple(Status)
            why = f"'{word}' is never accepted" if known else f"'{word}' is no verdict"
            raise InputError(why, f"one of {', '.join(ACCEPTABLE)}")
        found[Status(word)] = None
    return tuple(found)


def worst(statuses: Iterable[Status]) -> Status:
    """The gravest; NOTRUN when there is none."""
    return max(statuses, key=lambda status: status.severity, default=Status.NOTRUN)
