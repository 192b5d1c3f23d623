"""junit.xml: one test case per GroupNorm site, output and task metric of every runtime, for CI systems.

The shape is that of Jenkins' xunit-plugin (junit-10.xsd), which other readers take as well.
"""

import re
from collections.abc import Iterator
from xml.etree import ElementTree

from gn_deploy.parity.report import ParityReport, SiteVerdict
from gn_deploy.parity.status import Status
from gn_deploy.reports import causes, summary
from gn_deploy.reports.base import ReportFile
from gn_deploy.reports.summary import Verdict, headline, judged, reason

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 (section 2.2) does not allow even when escaped; a node may be named anything."""
_ERRORS = (Status.CRASH, Status.TIMEOUT)  # nothing was computed, so nothing was found wrong


def render(report: ParityReport) -> str:
    """A suite per runtime with its versions as properties.

    LOWPREC, UNSTABLE, NAN and FAIL are failures, CRASH and TIMEOUT are errors, NOTRUN is skipped with the reason. WARN
    and what the user accepted pass and say so in system-out. A site without a counterpart is skipped in a suite of its
    own; where a runtime parts from the reference, and what is at fault, is its suite's system-out.
    """
    suites = ElementTree.Element("testsuites", name=legal(f"{report.title}: {report.verdict}"))
    suites.append(ElementTree.Comment(legal(f" {headline(report)} ".replace("--", "- -"))))
    for runtime in dict.fromkeys(v.runtime for v in [*report.runtimes, *judged(report), *report.tasks]):
        suite = _suite(suites, runtime, _properties(report, runtime))
        for kind, name, verdict in _cases(report, runtime):
            _judge(_case(suite, f"{runtime}.{kind}", name), verdict, verdict.status in report.accepted)
        if found := _findings(report, runtime):
            ElementTree.SubElement(suite, "system-out").text = legal("\n".join(found))
    if report.unpaired:
        suite = _suite(suites, "unpaired", {})
        for why in report.unpaired:
            ElementTree.SubElement(_case(suite, "unpaired", why), "skipped", message="no counterpart in the candidate")
    return finish(suites)


def finish(suites: ElementTree.Element) -> str:
    """The document, every suite and the whole with its counts."""
    for element in (*suites.iter("testsuite"), suites):
        _count(element)
    ElementTree.indent(suites)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(suites, encoding="unicode") + "\n"


def _suite(suites: ElementTree.Element, name: str, properties: dict[str, str]) -> ElementTree.Element:
    suite = ElementTree.SubElement(suites, "testsuite", name=legal(name))
    if properties:
        held = ElementTree.SubElement(suite, "properties")
        for key, value in properties.items():
            ElementTree.SubElement(held, "property", name=legal(key), value=legal(value))
    return suite


def _properties(report: ParityReport, runtime: str) -> dict[str, str]:
    own = next((v for v in report.runtimes if v.runtime == runtime), None)
    told = {"reference": report.reference, "candidate": report.candidate, "command": report.command}
    if own is not None:
        told |= {"verdict": str(own.status), "version": own.version, "precision": own.precision}
    if report.accepted:
        told["accepted"] = ", ".join(report.accepted)
    told |= {f"environment.{name}": version for name, version in report.environment.items()}
    return {name: value for name, value in told.items() if value}


def _cases(report: ParityReport, runtime: str) -> Iterator[tuple[str, str, Verdict]]:
    """(kind, name, verdict) of everything judged on a runtime; the runtime itself when nothing in it was."""
    sites = [("site", v.site, v) for v in report.sites if v.runtime == runtime]
    outputs = [("output", v.output, v) for v in report.outputs if v.runtime == runtime]
    yield from sites
    yield from outputs
    for verdict in report.runtimes:
        if verdict.runtime == runtime and not (sites or outputs):
            yield "runtime", runtime, verdict
    yield from (("task", v.metric, v) for v in report.tasks if v.runtime == runtime)


def _case(suite: ElementTree.Element, classname: str, name: str) -> ElementTree.Element:
    return ElementTree.SubElement(suite, "testcase", classname=legal(classname), name=legal(name))


def _judge(case: ElementTree.Element, verdict: Verdict, accepted: bool) -> None:
    message = legal(reason(verdict))
    if verdict.status.broken and accepted:
        ElementTree.SubElement(case, "system-out").text = f"accepted as {verdict.status}: {message}"
    elif verdict.status.broken:
        tag = "error" if verdict.status in _ERRORS else "failure"
        told = ElementTree.SubElement(case, tag, type=str(verdict.status), message=message)
        told.text = legal("\n".join(_details(verdict))) or None
    elif verdict.status is Status.NOTRUN:
        ElementTree.SubElement(case, "skipped", message=message)
    elif verdict.status is Status.WARN:
        ElementTree.SubElement(case, "system-out").text = message


def _details(verdict: Verdict) -> list[str]:
    """What somebody who only sees the CI page needs to find the place."""
    if not isinstance(verdict, SiteVerdict):
        return []
    told = {"module": verdict.module, "source": verdict.source, "looks like": verdict.looks_like, "form": verdict.form}
    if verdict.metrics is not None:
        metrics = verdict.metrics
        told["largest error"] = f"{summary.number(metrics.max_abs)} ({summary.number(metrics.max_ulp)} ulp)"
        told["slope, offset"] = f"{summary.number(metrics.slope)}, {summary.number(metrics.offset)}"
    return [f"{name}: {value}" for name, value in told.items() if value]


def _findings(report: ParityReport, runtime: str) -> list[str]:
    told = [*causes.located(report), *causes.blamed(report)]
    return [line for about, lines in told if about == runtime for line in lines]


def _count(element: ElementTree.Element) -> None:
    counted = [("tests", "testcase"), ("failures", "failure"), ("errors", "error")]
    if element.tag == "testsuite":  # the schema has no such attribute for the whole
        counted.append(("skipped", "skipped"))
    for attribute, tag in counted:
        element.set(attribute, str(sum(1 for _ in element.iter(tag))))


def legal(value: str) -> str:
    """``value`` with a replacement character for what XML does not allow."""
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", value)


REPORT = ReportFile("junit.xml", render)
