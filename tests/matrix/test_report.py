"""What a matrix says in the end: the gravest exit code, the gravest case of a cell, and nothing twice."""

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from gn_deploy.errors import ExitCode, InputError
from gn_deploy.matrix import words
from gn_deploy.matrix.files import html, junit
from gn_deploy.matrix.report import JobVerdict, MatrixReport
from gn_deploy.matrix.run import run
from gn_deploy.parity.status import Status
from gn_deploy.reports.as_json import dumps
from tests.matrix.quick import Quick, plan


@pytest.fixture
def done(tmp_path: Path) -> MatrixReport:
    """3 models x 2 columns x 2 cases, all passed."""
    return run(plan(), tmp_path, executor=Quick(tmp_path / "ran"))


def with_first(report: MatrixReport, **facts: object) -> MatrixReport:
    first, *others = report.jobs
    return replace(report, jobs=(replace(first, **facts), *others))  # type: ignore[arg-type]


def failures(report: MatrixReport) -> dict[str, int]:
    tree = ElementTree.fromstring(junit(report))
    return {tag: len(list(tree.iter(tag))) for tag in ("testsuite", "testcase", "failure", "error", "skipped")}


@pytest.mark.parametrize(
    ("status", "code", "verdict", "junit_tag"),
    [
        (Status.PASS, 0, "held", None),
        (Status.WARN, 0, "held", None),
        (Status.FAIL, 1, "broken", "failure"),
        (Status.UNSTABLE, 1, "broken", "failure"),
        (Status.CRASH, 1, "broken", "error"),
        (Status.TIMEOUT, 1, "broken", "error"),
        (Status.NOTRUN, 2, "open", "error"),
        (Status.NOTRUN, 3, "open", "skipped"),
        (Status.NOTRUN, 70, "broken", "error"),
    ],
)
def test_one_job_decides(done: MatrixReport, status: Status, code: int, verdict: str, junit_tag: str | None) -> None:
    report = with_first(done, status=status, exit_code=code, reason="because \x07 of <this>")
    assert report.exit_code == code
    assert report.verdict == verdict
    assert report.held == (code == 0)
    assert report.cell(report.models[0], report.columns[0]).status is status
    assert report.cell(report.models[0], report.columns[1]).status is Status.PASS
    expected = {"testsuite": 6, "testcase": 12, "failure": 0, "error": 0, "skipped": 0}
    assert failures(report) == expected | ({junit_tag: 1} if junit_tag else {})
    assert [p.reason for p in words.problems(report)] == (["because \x07 of <this>"] if code else [])
    page = html(report)
    assert words.title(report) in page
    assert ("of &lt;this&gt;" in page) == bool(code)
    assert "\x07" not in page


def test_the_gravest_exit_code_wins(done: MatrixReport) -> None:
    def code(*codes: int) -> ExitCode:
        jobs = tuple(replace(job, exit_code=c) for job, c in zip(done.jobs, codes, strict=False))
        return replace(done, jobs=jobs).exit_code

    assert code(0, 3) is ExitCode.UNAVAILABLE
    assert code(3, 2, 0) is ExitCode.BAD_INPUT
    assert code(3, 1, 2) is ExitCode.PARITY_BROKEN
    assert code(1, 70) is ExitCode.BUG
    assert replace(done, jobs=()).exit_code is ExitCode.UNAVAILABLE, "nothing judged is no pass"


def test_what_is_not_finished_is_open(done: MatrixReport) -> None:
    first, *others = done.jobs
    report = replace(done, jobs=tuple(others), left=("m0.onnx  onnx  normal",))
    assert (report.verdict, report.exit_code) == ("open", 3)
    cell = report.cell(report.models[0], report.columns[0])
    assert (cell.cases, cell.left) == (1, 1)
    assert "1 not finished" in words.headline(report)
    assert failures(report)["skipped"] == 1
    assert words.strip(report, first.model, report.columns[0]) == f"{others[0].case} pass"


def test_what_is_alike_is_told_once(done: MatrixReport) -> None:
    def crashed(job: JobVerdict) -> JobVerdict:
        return replace(job, status=Status.CRASH, exit_code=1, reason="it fell over")

    report = replace(done, jobs=tuple(crashed(j) if j.runtime == "runtime1" else j for j in done.jobs))
    [problem] = words.problems(report)
    assert problem.models == done.models
    assert problem.cases == done.cases
    assert problem.place == "m0.onnx, m1.onnx, m2.onnx for onnx on runtime1, normal, constant"


def test_the_document_is_strict_json_and_comes_back(done: MatrixReport) -> None:
    report = with_first(done, status=Status.FAIL, exit_code=1)
    document = json.loads(dumps(report.to_dict()))
    assert (document["kind"], document["schema_version"], document["exit_code"]) == ("matrix", 1, 1)
    assert document["jobs"][0]["error_over_bound"] is None
    assert MatrixReport.from_dict(document) == report
    for broken in ({}, document | {"schema_version": 2}, document | {"kind": "parity"}, document | {"jobs": 3}):
        with pytest.raises(InputError, match="matrix"):
            MatrixReport.from_dict(broken)
