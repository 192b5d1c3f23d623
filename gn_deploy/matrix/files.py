"""report.json, junit.xml and report.html of a whole matrix."""

from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

from gn_deploy.errors import UnavailableError
from gn_deploy.graph.atomic import atomic
from gn_deploy.matrix import words
from gn_deploy.matrix.report import JobVerdict, MatrixReport
from gn_deploy.parity.status import Status
from gn_deploy.reports.as_json import dumps
from gn_deploy.reports.html import page_of
from gn_deploy.reports.junit import finish, legal


def write(report: MatrixReport, folder: Path, *, on_skip: Callable[[str, str], None] | None = None) -> list[Path]:
    """Writes the files and returns their paths; all appear or none. A page that needs a package this machine lacks
    is left out; ``on_skip(name, reason)`` hears of it."""
    texts = {folder / "report.json": dumps(report.to_dict()), folder / "junit.xml": junit(report)}
    try:
        texts[folder / "report.html"] = html(report)
    except UnavailableError as error:
        if on_skip is not None:
            on_skip("html", str(error))
    with atomic(*texts) as files:
        for file, text in zip(files, texts.values(), strict=True):
            file.write(text.encode("utf-8"))
    return list(texts)


def html(report: MatrixReport) -> str:
    """One offline page; UnavailableError when jinja2 is not installed."""
    return page_of("matrix.html", report=report, words=words)


def junit(report: MatrixReport) -> str:
    """A suite per model and column, a test per case: what broke is a failure, what crashed or took too long an error,
    what was not run or is not finished is skipped with the reason."""
    suites = ElementTree.Element("testsuites", name=legal(f"{report.title}: {report.verdict}"))
    for model in report.models:
        for column in report.columns:
            name = f"{model} for {column.label}"
            suite = ElementTree.SubElement(suites, "testsuite", name=legal(name))
            done = {job.case: job for job in report.of(model, column)}
            for case in report.cases:
                test = ElementTree.SubElement(suite, "testcase", classname=legal(name), name=legal(case))
                _judge(test, done.get(case))
    return finish(suites)


def _judge(test: ElementTree.Element, job: JobVerdict | None) -> None:
    if job is None:
        ElementTree.SubElement(test, "skipped", message="not finished")
    elif job.status in (Status.CRASH, Status.TIMEOUT) or (job.status is Status.NOTRUN and job.exit_code not in (0, 3)):
        ElementTree.SubElement(test, "error", type=str(job.status), message=legal(words.reason(job)))
    elif job.status is Status.NOTRUN:
        ElementTree.SubElement(test, "skipped", message=legal(words.reason(job)))
    elif job.exit_code:
        ElementTree.SubElement(test, "failure", type=str(job.status), message=legal(words.reason(job)))
