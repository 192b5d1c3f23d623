"""What a user is told when something cannot be done: one message, one hint, one exit code."""

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of ``gn-deploy``; scripts may rely on them."""

    OK = 0
    PARITY_BROKEN = 1
    BAD_INPUT = 2
    UNAVAILABLE = 3
    BUG = 70
    INTERRUPTED = 130


class GnDeployError(Exception):
    """A failure the user can act on.

    1. ``message`` says what was found and what was needed, on one line.
    2. ``hint`` says what to do next, on one line; empty when there is nothing to add.
    3. ``exit_code`` is the process exit code of the CLI.
    """

    exit_code: ExitCode = ExitCode.BAD_INPUT

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class InputError(GnDeployError):
    """A file, an argument or a model is not what was needed."""


class UnavailableError(GnDeployError):
    """The machine lacks what was asked for: a package, a library, a GPU."""

    exit_code = ExitCode.UNAVAILABLE


class ParityError(GnDeployError):
    """A model does not compute what it should."""

    exit_code = ExitCode.PARITY_BROKEN
