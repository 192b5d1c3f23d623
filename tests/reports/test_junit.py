"""junit.xml: the shape CI systems read, and a test case for every verdict."""

from dataclasses import replace
from xml.etree import ElementTree

from hypothesis import given

from gn_deploy.parity.report import OutputVerdict, ParityReport, RuntimeVerdict
from gn_deploy.parity.status import Status
from gn_deploy.reports import junit
from tests.reports.conftest import metrics
from tests.reports.strategies import QUICK, REPORTS

SHAPE = {  # junit-10.xsd of Jenkins' xunit-plugin: attributes that must and may be there, children
    "testsuites": ((), ("name", "time", "tests", "failures", "errors"), ("testsuite",)),
    "testsuite": (
        ("name", "tests", "failures", "errors"),
        ("group", "time", "skipped", "timestamp", "hostname", "id", "package", "file", "log", "url"),
        ("testsuite", "properties", "testcase", "system-out", "system-err"),
    ),
    "properties": ((), (), ("property",)),
    "property": (("name", "value"), (), ()),
    "testcase": (
        ("name",),
        ("time", "classname", "group"),
        ("skipped", "error", "failure", "system-out", "system-err"),
    ),
    "skipped": ((), ("type", "message"), ()),
    "error": ((), ("type", "message"), ()),
    "failure": ((), ("type", "message"), ()),
    "system-out": ((), (), ()),
}


def fits(element: ElementTree.Element) -> None:
    must, may, children = SHAPE[element.tag]
    assert set(must) <= set(element.attrib) <= {*must, *may}, f"{element.tag}: {element.attrib}"
    for child in element:
        assert child.tag in children, f"{child.tag} inside {element.tag}"
        fits(child)


def parsed(report: ParityReport) -> ElementTree.Element:
    root = ElementTree.fromstring(junit.render(report).encode())
    fits(root)
    return root


def counts(element: ElementTree.Element) -> list[int]:
    return [int(element.get(name) or 0) for name in ("tests", "failures", "errors")]


def test_every_verdict_is_a_case(broken: ParityReport) -> None:
    root = parsed(broken)
    cases = list(root.iter("testcase"))
    alone = ["tensorrt"]  # crashed before any site was judged: the runtime itself is the case
    every = (broken.sites, broken.outputs, broken.tasks, broken.unpaired, alone)
    assert len(cases) == sum(map(len, every))
    assert [f.get("type") for f in root.iter("failure")] == ["fail", "unstable", "nan"]
    failure = next(f for f in root.iter("failure") if f.get("type") == "fail")
    assert "830 times the bound on case" in (failure.get("message") or "")
    assert "source: digits_resnet.py:47" in (failure.text or "")
    assert [e.get("message") for e in root.iter("error")] == ["segmentation fault while building"]
    assert counts(root) == [len(cases), 3, 1]
    skipped = {suite.get("name"): int(suite.get("skipped") or 0) for suite in root.iter("testsuite")}
    assert skipped["tensorrt-rtx"] == 12
    assert skipped["unpaired"] == len(broken.unpaired)


def test_a_held_report_has_nothing_to_complain_about(held: ParityReport) -> None:
    root = parsed(held)
    assert counts(root) == [56, 0, 0]
    tasks = [case for case in root.iter("testcase") if case.get("classname") == "torch.task"]
    [reason] = [skipped.get("message") for case in tasks for skipped in case.iter("skipped")]
    assert "98.33 % against 98.33 %" in (reason or "")  # no drop was allowed, so nothing was judged


def test_each_word_is_what_ci_systems_call_it(held: ParityReport) -> None:
    def kind(status: Status, **changes: object) -> list[str]:
        output = OutputVerdict("y", "r", status, "normal", metrics(2.0), 20.0)
        root = parsed(replace(held, sites=(), tasks=(), engines=(), runtimes=(), outputs=(output,), **changes))  # type: ignore[arg-type]
        [case] = root.iter("testcase")
        return [child.tag for child in case]

    assert {status: kind(status) for status in Status} == {
        Status.NOTRUN: ["skipped"],
        Status.PASS: [],
        Status.WARN: ["system-out"],
        Status.LOWPREC: ["failure"],
        Status.UNSTABLE: ["failure"],
        Status.NAN: ["failure"],
        Status.FAIL: ["failure"],
        Status.TIMEOUT: ["error"],
        Status.CRASH: ["error"],
    }
    assert kind(Status.LOWPREC, accepted=(Status.LOWPREC,)) == ["system-out"]


def test_tasks_are_cases_and_findings_are_the_suites_output(full: ParityReport) -> None:
    root = parsed(full)
    suite = next(s for s in root.iter("testsuite") if s.get("name") == "onnxruntime")
    tasks = {case.get("name"): case for case in suite.iter("testcase") if case.get("classname") == "onnxruntime.task"}
    failure = tasks["top-1"].find("failure")
    assert failure is not None
    assert "96.11 % against 98.33 %, difference -2.22 % (95 % interval -3.70 % to -0.93 %)" in failure.attrib["message"]
    skipped = tasks["psnr"].find("skipped")
    assert skipped is not None
    assert "38.50 dB against 41.25 dB" in skipped.attrib["message"]
    out = suite.findtext("system-out") or ""
    assert "first leaves the float64 oracle at '/layer2/pad_output', made by Pad '/layer2/Pad' (layer2.0, " in out
    assert "Pad_Fusion (optimizer rule): 791 times rounding noise with it, 0.900 times rounding noise without" in out
    unstable = [
        case for case in suite.iter("testcase") if "accepted as unstable" in (case.findtext("system-out") or "")
    ]
    assert len(unstable) == 1


def test_versions_are_properties(broken: ParityReport) -> None:
    suite = next(s for s in parsed(broken).iter("testsuite") if s.get("name") == "openvino")
    told = {p.get("name"): p.get("value") for p in suite.iter("property")}
    assert told["version"] == "2026.4.1"
    assert told["precision"] == "float32"
    assert told["environment.gn-deploy"] == "0.1.0"
    assert told["command"] == broken.command


def test_a_runtime_that_crashed_is_a_case_of_its_own(held: ParityReport) -> None:
    crashed = replace(
        held, runtimes=(RuntimeVerdict("r", Status.TIMEOUT, reason="60 s"),), sites=(), outputs=(), tasks=()
    )
    assert counts(parsed(crashed)) == [1, 0, 1]


@QUICK
@given(REPORTS)
def test_any_report_fits_the_shape(report: ParityReport) -> None:
    parsed(report)
