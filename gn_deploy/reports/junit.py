"""junit.xml: one test case per GroupNorm site and runtime and per output and runtime, for CI systems."""

import re
from collections.abc import Iterator
from xml.etree import ElementTree

from gn_deploy.parity.report import ParityReport
from gn_deploy.parity.status import Status
from gn_deploy.reports.base import ReportFile
from gn_deploy.reports.summary import Verdict, headline, judged, reason

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 (section 2.2) does not allow even when escaped; a node may be named anything."""


def render(report: ParityReport) -> str:
    """A suite per runtime. FAIL, UNSTABLE and NAN are failures, CRASH is an error, NOTRUN is skipped with the reason,
    WARN passes and says why in system-out; a site without a counterpart is skipped in a suite of its own."""
    suites = ElementTree.Element("testsuites", name=_text(f"{report.title}: {report.verdict}"))
    suites.append(ElementTree.Comment(_text(f" {headline(report)} ".replace("--", "- -"))))
    for runtime in dict.fromkeys(v.runtime for v in [*report.runtimes, *judged(report)]):
        suite = ElementTree.SubElement(suites, "testsuite", name=_text(runtime))
        for kind, name, verdict in _cases(report, runtime):
            _judge(_case(suite, f"{runtime}.{kind}", name), verdict)
    if report.unpaired:
        suite = ElementTree.SubElement(suites, "testsuite", name="unpaired")
        for why in report.unpaired:
            ElementTree.SubElement(_case(suite, "unpaired", why), "skipped", message="no counterpart in the candidate")
    for element in (*suites.iter("testsuite"), suites):
        _count(element)
    ElementTree.indent(suites)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(suites, encoding="unicode") + "\n"


def _cases(report: ParityReport, runtime: str) -> Iterator[tuple[str, str, Verdict]]:
    """(kind, name, verdict) of everything judged on a runtime; the runtime itself when nothing in it was."""
    sites = [("site", v.site, v) for v in report.sites if v.runtime == runtime]
    outputs = [("output", v.output, v) for v in report.outputs if v.runtime == runtime]
    yield from sites
    yield from outputs
    for verdict in report.runtimes:
        if verdict.runtime == runtime and not (sites or outputs):
            yield "runtime", runtime, verdict


def _case(suite: ElementTree.Element, classname: str, name: str) -> ElementTree.Element:
    return ElementTree.SubElement(suite, "testcase", classname=_text(classname), name=_text(name))


def _judge(case: ElementTree.Element, verdict: Verdict) -> None:
    message = _text(reason(verdict))
    if verdict.status is Status.CRASH:
        ElementTree.SubElement(case, "error", type="crash", message=message)
    elif verdict.status.broken:
        ElementTree.SubElement(case, "failure", type=str(verdict.status), message=message)
    elif verdict.status is Status.NOTRUN:
        ElementTree.SubElement(case, "skipped", message=message)
    elif verdict.status is Status.WARN:
        ElementTree.SubElement(case, "system-out").text = message


def _count(element: ElementTree.Element) -> None:
    for attribute, tag in (("tests", "testcase"), ("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        element.set(attribute, str(sum(1 for _ in element.iter(tag))))


def _text(value: str) -> str:
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", value)


REPORT = ReportFile("junit.xml", render)
