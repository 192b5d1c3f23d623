"""What changed between two reports, and which of it is worse."""

import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from rich.console import Console

from gn_deploy.errors import InputError
from gn_deploy.parity.report import Confidence, Noticed, OutputVerdict, ParityReport, SiteVerdict, TaskVerdict
from gn_deploy.parity.status import Status
from gn_deploy.reports import difference as module
from gn_deploy.reports import difference_text
from gn_deploy.reports.difference import Change, Direction, difference
from gn_deploy.reports.read import read
from tests.reports.conftest import metrics, site
from tests.reports.strategies import QUICK, REPORTS

WORSE, BETTER, CHANGED = Direction.WORSE, Direction.BETTER, Direction.CHANGED


def only(before: ParityReport, after: ParityReport) -> Change:
    """The one change there is beside the verdict and the summary words of the whole."""
    [change] = [c for c in difference(before, after).changes if c.kind != "verdict"]
    return change


def with_site(report: ParityReport, at: int, **changes: Any) -> ParityReport:
    return replace(report, sites=tuple(replace(v, **changes) if i == at else v for i, v in enumerate(report.sites)))


def test_a_report_differs_in_nothing_from_itself(full: ParityReport) -> None:
    same = difference(full, full)
    assert not same.changes
    assert not same.worse


@settings(QUICK, max_examples=12)
@given(REPORTS, REPORTS)
def test_any_two_reports_can_be_compared(a: ParityReport, b: ParityReport) -> None:
    there, back = difference(a, b), difference(b, a)
    order = [list(Direction).index(c.direction) for c in there.changes]
    assert order == sorted(order)
    assert there.worse == (WORSE in [c.direction for c in there.changes])
    for change in there.changes:
        assert change.before != change.after or change.kind in ("site", "output", "unpaired"), change
    if a.held and not b.held:
        assert there.worse
    assert {c.kind for c in there.changes if c.kind == "verdict"} == {
        c.kind for c in back.changes if c.kind == "verdict"
    }
    json.dumps(there.to_dict(), allow_nan=False)
    difference_text.show(there, Console(file=io.StringIO(), width=100))


@pytest.mark.parametrize(
    ("old", "new", "direction"),
    [
        (Status.PASS, Status.FAIL, WORSE),
        (Status.UNSTABLE, Status.FAIL, WORSE),
        (Status.FAIL, Status.UNSTABLE, BETTER),
        (Status.FAIL, Status.PASS, BETTER),
        (Status.PASS, Status.NOTRUN, WORSE),
        (Status.NOTRUN, Status.PASS, BETTER),
        (Status.NOTRUN, Status.CRASH, WORSE),
        (Status.CRASH, Status.NOTRUN, CHANGED),
        (Status.PASS, Status.WARN, WORSE),
    ],
)
def test_a_graver_verdict_is_worse(old: Status, new: Status, direction: Direction, held: ParityReport) -> None:
    change = only(with_site(held, 2, status=old), with_site(held, 2, status=new))
    assert (change.kind, change.place, change.runtime) == ("site", "layer1.0.norm1", "onnxruntime")
    assert change.direction is direction
    assert change.before.startswith(str(old))
    assert change.after.startswith(str(new))


@pytest.mark.parametrize(
    ("status", "old", "new", "direction"),
    [
        (Status.PASS, 0.1, 0.19, None),
        (Status.PASS, 0.1, 0.21, CHANGED),
        (Status.PASS, 0.9, 0.2, CHANGED),
        (Status.FAIL, 3.0, 5.9, None),
        (Status.FAIL, 3.0, 6.1, WORSE),
        (Status.FAIL, 6.1, 3.0, BETTER),
        (Status.NAN, 9.0, math.inf, WORSE),
        (Status.NAN, math.inf, math.inf, None),
        (Status.PASS, 0.0, 0.0, None),
        (Status.PASS, 0.0, 0.5, CHANGED),
    ],
)
def test_an_error_that_more_than_doubled_is_told_and_is_worse_where_it_is_broken(
    status: Status, old: float, new: float, direction: Direction | None, held: ParityReport
) -> None:
    before, after = (with_site(held, 0, status=status, metrics=metrics(value)) for value in (old, new))
    found = [c.direction for c in difference(before, after).changes]
    assert found == ([direction] if direction else [])


def test_the_same_holds_for_outputs(held: ParityReport) -> None:
    def report(status: Status, ratio: float) -> ParityReport:
        return replace(held, outputs=(OutputVerdict("y", "torch", status, "normal", metrics(0.3), ratio),))

    change = only(report(Status.PASS, 0.9), report(Status.WARN, 11.0))
    assert (change.place, change.before, change.after) == (
        "output y", "pass, noise ratio 0.900", "warn, noise ratio 11.0",
    )  # fmt: skip
    assert change.direction is WORSE
    assert only(report(Status.PASS, 0.9), report(Status.PASS, 2.5)).direction is CHANGED
    assert only(report(Status.FAIL, 20.0), report(Status.FAIL, 791.0)).direction is WORSE


def test_places_that_come_and_go(held: ParityReport) -> None:
    fewer = replace(held, sites=held.sites[4:])
    gone = difference(held, fewer)
    assert [(c.place, c.before != "", c.after) for c in gone.changes] == [("layer1.0.norm1", True, "")] * 4
    assert not gone.worse
    broken = replace(held, sites=(*held.sites, site(40, "torch", Status.FAIL, 9.0)))
    assert difference(held, broken).worse
    assert only(held, broken).before == ""
    lost = replace(fewer, unpaired=("layer1.0.norm1: no counterpart",))
    assert [c.kind for c in difference(held, lost).changes if c.direction is WORSE] == ["unpaired"]


def test_a_site_is_found_again_by_its_module_when_the_exporter_renames_nodes(held: ParityReport) -> None:
    def renamed(v: SiteVerdict) -> SiteVerdict:
        return replace(v, site=v.site.replace("node_group_norm", "/gn/Instance"))

    after = replace(held, sites=tuple(map(renamed, held.sites)))
    assert difference(held, after).changes == ()
    worse = with_site(after, 5, status=Status.FAIL, metrics=metrics(7.0))
    assert only(held, worse).place == "layer1.0.norm2"


def test_runtimes_versions_precision_and_packages(held: ParityReport) -> None:
    runtimes = tuple(
        replace(r, version="1.32.0", precision="bfloat16") if r.runtime == "onnxruntime" else r for r in held.runtimes
    )
    after = replace(held, runtimes=runtimes, environment=held.environment | {"onnxruntime": "1.32.0", "python": "3.12"})
    assert [
        (c.kind, c.place or c.runtime, c.before, c.after, c.direction) for c in difference(held, after).changes
    ] == [
        ("precision", "onnxruntime", "float32", "bfloat16", WORSE),
        ("version", "onnxruntime", "1.31.1", "1.32.0", CHANGED),
        ("environment", "python", "3.11", "3.12", CHANGED),
    ]
    assert [c.direction for c in difference(after, held).changes if c.kind == "precision"] == [BETTER]
    without = replace(
        held,
        runtimes=held.runtimes[1:],
        sites=tuple(v for v in held.sites if v.runtime != "torch"),
        outputs=held.outputs[1:],
        tasks=held.tasks[1:],
    )
    gone = difference(held, without)
    assert [(c.kind, c.runtime, c.after) for c in gone.changes] == [("runtime", "torch", ""), ("task", "torch", "")]
    assert not gone.worse
    back = difference(without, with_site(held, 0, status=Status.FAIL, metrics=metrics(9.0)))
    told = [(c.kind, c.place) for c in back.changes if c.runtime == "torch"]
    assert told == [("site", "layer1.0.norm1"), ("runtime", ""), ("task", "accuracy")]
    assert back.worse


def test_a_task_is_worse_when_its_verdict_is_or_its_interval_lies_below(held: ParityReport) -> None:
    def report(value: float, interval: tuple[float, ...], status: Status = Status.NOTRUN) -> ParityReport:
        task = TaskVerdict("torch", "top-1", 0.98, value, 1.0, 540, interval=interval, status=status)
        return replace(held, tasks=(task,))

    base = report(0.98, (-0.01, 0.01))
    assert only(base, report(0.975, (-0.02, 0.005))).direction is CHANGED
    assert only(base, report(0.90, (-0.1, -0.06))) == Change("task", "top-1", "torch", "98.00 %", "90.00 %", WORSE)
    assert only(report(0.98, (), Status.PASS), report(0.97, (), Status.FAIL)).direction is WORSE


def test_confidence_noticed_and_accepted(held: ParityReport) -> None:
    sure = replace(held, confidence=Confidence(299, 0, 0.01, settled=True))
    unsure = replace(held, confidence=Confidence(40, 0, 0.07))
    assert only(sure, unsure).direction is WORSE
    assert only(held, sure).direction is CHANGED
    keen, dull = (replace(held, noticed=(Noticed("tail left out", 9, 8, n, n),)) for n in (8, 6))
    assert only(keen, dull) == Change("noticed", "tail left out", "", "8 of 8", "6 of 8", WORSE)
    assert only(dull, keen).direction is BETTER
    lax = replace(held, accepted=(Status.UNSTABLE, Status.LOWPREC))
    assert only(held, lax) == Change("accepted", "", "", "", "lowprec, unstable", CHANGED)


def test_every_kind_and_direction_is_documented(full: ParityReport, held: ParityReport) -> None:
    kinds = {c.kind for c in (*difference(full, held).changes, *difference(held, full).changes)}
    assert len(kinds) > 8
    documented = module.__doc__ or ""
    assert all(kind in documented for kind in kinds)
    assert all(str(direction) in documented for direction in Direction)
    assert all(key in documented for key in (*difference(full, held).to_dict(), "kind", "place", "direction"))


@pytest.mark.parametrize("width", [80, 160])
def test_the_answer_stands_first(width: int, held: ParityReport, broken: ParityReport) -> None:
    console = Console(file=io.StringIO(), width=width)
    difference_text.show(difference(held, broken), console)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert lines[0].startswith("✗ Something got worse. ")
    assert all(len(line) <= width for line in lines)
    first = next(i for i, line in enumerate(lines) if "✗ worse" in line)
    assert "verdict" in lines[first]


def test_reading_says_what_is_wrong(tmp_path: Path, held: ParityReport) -> None:
    file = tmp_path / "report.json"
    good = held.to_dict()
    for text, told in (
        ("", "is not JSON"),
        ("[1]", "not a parity report"),
        ('{"a": NaN}', "NaN is no number"),
        ("[" * 100_000, "is not JSON"),
        (json.dumps(good | {"schema_version": 99}), "schema_version 99"),
        (json.dumps(good | {"reference": 5}), "str expected, not 5"),
        (json.dumps(good | {"sites": "none"}), "a list expected, not 'none'"),
        (json.dumps(good | {"engines": [{"runtime": "r"}]}), "not a report of schema 2"),
        (json.dumps({k: v for k, v in good.items() if k != "runtimes"}), "not a report of schema 2"),
    ):
        file.write_text(text)
        with pytest.raises(InputError, match=told):
            read(file)
    file.write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(InputError, match="is not JSON"):
        read(file)
    file.write_text(json.dumps({"kind": "matrix", "schema_version": 1}))
    with pytest.raises(InputError, match="report of a matrix"):
        read(file)
    file.write_text(json.dumps({"schema_version": 1, "job": "ab12", "report": good}))  # of a matrix, results/ID.json
    assert read(file).to_dict() == good
    file.write_text(json.dumps(good))
    assert read(tmp_path).to_dict() == read(file).to_dict() == good
