"""Reports: a comparison as text, JSON, JUnit XML and one HTML page."""

import os
from collections.abc import Callable
from pathlib import Path

from gn_deploy.errors import UnavailableError
from gn_deploy.parity.report import ParityReport
from gn_deploy.registry import Registry, Unavailable
from gn_deploy.reports.base import ReportFile

REPORTS: Registry[ReportFile] = Registry(
    "report",
    "gn_deploy.reports",
    {
        "json": "gn_deploy.reports.as_json:REPORT",
        "junit": "gn_deploy.reports.junit:REPORT",
        "html": "gn_deploy.reports.html:REPORT",
    },
)


def write(
    report: ParityReport, directory: str | Path, *, on_skip: Callable[[str, str], None] | None = None
) -> list[Path]:
    """Write every report file into ``directory`` (made if needed), each atomically, and return their paths.

    A report that needs a package this machine lacks is left out; ``on_skip(name, reason)`` hears of it.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for name in REPORTS.names():
        entry = REPORTS.get(name)
        try:
            if isinstance(entry, Unavailable):
                raise UnavailableError(entry.reason)
            text = entry.render(report)
        except UnavailableError as error:
            if on_skip is not None:
                on_skip(name, str(error))
            continue
        written.append(_write(directory / entry.filename, text))
    return written


def _write(path: Path, text: str) -> Path:
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path
