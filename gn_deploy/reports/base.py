"""What a report file is: a name and a pure function from a comparison to text."""

from collections.abc import Callable
from dataclasses import dataclass

from gn_deploy.parity.report import ParityReport


@dataclass(frozen=True, slots=True)
class ReportFile:
    """One way of writing a ParityReport to a file.

    1. ``render`` is a pure function: no clock, no host, no path of this machine, the same text for the same report.
    2. ``render`` raises UnavailableError(reason) when it needs a package that is not installed.
    """

    filename: str
    render: Callable[[ParityReport], str]
