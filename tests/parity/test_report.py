"""A report as data: what counts as held, and the way to JSON and back."""

import json
import math
from dataclasses import replace

import pytest

from gn_deploy.errors import InputError
from gn_deploy.parity.report import (
    Metrics,
    OutputVerdict,
    ParityReport,
    RuntimeVerdict,
    SiteVerdict,
    Status,
    TaskVerdict,
)

METRICS = Metrics(0.5, 1e-7, 1e-7, 1.0, 2.0, math.nan, math.nan)
REPORT = ParityReport(
    reference="a.onnx",
    candidate="b.onnx",
    runtimes=(RuntimeVerdict("onnxruntime", Status.PASS, "1.31", "float32", seconds=3.5),),
    sites=(SiteVerdict("gn", "onnxruntime", Status.PASS, "normal", METRICS, num_groups=4, cases={"normal": 0.5}),),
    outputs=(OutputVerdict("y", "onnxruntime", Status.WARN, "normal", METRICS, 5.0),),
    tasks=(TaskVerdict("onnxruntime", "accuracy", 0.98, 0.98, 1.0, 540),),
    unpaired=("gn2: no such value",),
)


def _with(site: Status, **changes: object) -> ParityReport:
    return replace(REPORT, sites=(replace(REPORT.sites[0], status=site),), **changes)


def test_held_needs_something_judged_and_nothing_broken() -> None:
    assert REPORT.held
    for status in (Status.FAIL, Status.UNSTABLE, Status.NAN, Status.CRASH):
        assert not _with(status).held
    assert not _with(Status.NOTRUN, outputs=()).held
    assert not _with(Status.PASS, runtimes=(RuntimeVerdict("openvino", Status.CRASH),)).held
    assert not replace(REPORT, sites=(), outputs=()).held
    assert _with(Status.FAIL).verdict == "broken"


def test_json_is_strict_and_comes_back() -> None:
    broken = replace(REPORT.outputs[0], metrics=replace(METRICS, error_over_bound=math.inf))
    report = replace(REPORT, outputs=(broken,))
    text = json.dumps(report.to_dict(), allow_nan=False)
    assert "3.5" not in text  # seconds: a clock
    data = json.loads(text)
    assert data["schema_version"] == 2
    assert data["outputs"][0]["metrics"]["error_over_bound"] == "inf"
    back = ParityReport.from_dict(data)
    assert back.outputs == report.outputs
    assert json.dumps(back.to_dict()) == text
    assert back.sites[0].metrics is not None
    assert math.isnan(back.sites[0].metrics.slope)
    assert back.held == report.held


def test_another_schema_is_refused() -> None:
    with pytest.raises(InputError, match="schema_version"):
        ParityReport.from_dict({"schema_version": 99})
