"""Reports: a comparison as text, JSON, JUnit XML and one HTML page."""

from collections.abc import Callable
from pathlib import Path

from gn_deploy.errors import UnavailableError
from gn_deploy.graph.atomic import atomic
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
    """Write every report file into ``directory`` (made if needed) and return their paths; all of them appear or none.

    A report that needs a package this machine lacks is left out; ``on_skip(name, reason)`` hears of it.
    """
    directory = Path(directory)
    texts: dict[Path, str] = {}
    for name in REPORTS.names():
        entry = REPORTS.get(name)
        try:
            if isinstance(entry, Unavailable):
                raise UnavailableError(entry.reason)
            texts[directory / entry.filename] = entry.render(report)
        except UnavailableError as error:
            if on_skip is not None:
                on_skip(name, str(error))
    directory.mkdir(parents=True, exist_ok=True)
    with atomic(*texts) as files:
        for file, text in zip(files, texts.values(), strict=True):
            file.write(text.encode("utf-8"))
    return list(texts)
