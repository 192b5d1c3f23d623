"""The words and numbers that every report shares, and the text report."""

import io
import math
from dataclasses import replace

import pytest
from hypothesis import given
from rich.console import Console

from gn_deploy.parity.report import OutputVerdict, ParityReport
from gn_deploy.parity.status import Status
from gn_deploy.reports import summary, text
from gn_deploy.reports.advice import next_steps
from gn_deploy.reports.plots import Scale, families
from gn_deploy.reports.summary import outcome
from tests.reports.conftest import metrics, site
from tests.reports.strategies import QUICK, REPORTS


def shown(report: ParityReport, width: int = 160) -> str:
    console = Console(file=io.StringIO(), width=width)
    text.show(report, console)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.0, "0"),
        (0.5, "0.500"),
        (12.345, "12.3"),
        (830.0, "830"),
        (1e-7, "1.0e-7"),
        (4.2e9, "4.2e9"),
        (math.nan, "–"),
        (math.inf, "∞"),
    ],
)
def test_numbers_for_people(value: float, words: str) -> None:
    assert summary.number(value) == words


def test_a_failure_is_never_rounded_to_a_pass() -> None:
    assert summary.ratio(1.0000001) == ">1"
    assert summary.ratio(1.0) == "1.00"
    assert float(summary.ratio(1.006)) > 1


def test_the_headline_names_the_worst_place(held: ParityReport, broken: ParityReport) -> None:
    peak = max(v.metrics.error_over_bound for v in held.sites if v.metrics)
    assert summary.headline(held) == f"12 GroupNorms on 4 runtimes, worst error {peak:.3f} of the bound."
    assert summary.headline(broken) == "3 of 12 GroupNorms on 4 runtimes broken, worst: layer3.0.norm2 on openvino."
    nothing = replace(held, sites=tuple(replace(v, status=Status.NOTRUN) for v in held.sites), outputs=())
    assert not nothing.held
    assert "nothing is proved" in summary.headline(nothing)


def test_problems_name_every_broken_thing_once(broken: ParityReport) -> None:
    assert [(where, str(status)) for where, status, _ in summary.problems(broken)] == [
        ("layer2.0.norm1 on onnxruntime", "fail"),
        ("layer2.1.norm2 on onnxruntime", "unstable"),
        ("layer3.0.norm2 on openvino", "nan"),
        ("tensorrt", "crash"),
    ]


def test_problems_that_are_alike_are_told_once(held: ParityReport) -> None:
    sites = tuple(
        replace(v, status=Status.UNSTABLE, reason="one pass", metrics=metrics(2.0 + i) if i else metrics(math.inf))
        if v.runtime == "onnxruntime"
        else v
        for i, v in enumerate(held.sites)
    )
    [(where, status, why)] = summary.problems(replace(held, sites=sites))
    assert where.startswith("layer1.0.norm1, layer1.0.norm2, layer1.1.norm1, layer1.1.norm2 and 8 more on onnxruntime")
    assert status is Status.UNSTABLE
    assert why.endswith("': one pass")
    assert why.startswith("48.0 times the bound on case '")  # the last of 48 verdicts on onnxruntime is the 47th
    both = tuple(v for v in sites if v.module in ("layer1.0.norm1", "layer1.0.norm2"))
    assert summary.problems(replace(held, sites=both))[0][0] == "layer1.0.norm1 and layer1.0.norm2 on onnxruntime"


@pytest.mark.parametrize(
    ("runtimes", "status", "expected"),
    [
        (("onnx-reference",), Status.FAIL, "gn-deploy inspect a.onnx ; gn-deploy inspect 'b c.onnx'"),
        (("onnx-reference",), Status.UNSTABLE, "the variance in one pass: correct 'b c.onnx' where it is made"),
        (("onnxruntime",), Status.UNSTABLE, "gn-deploy lower 'b c.onnx' --target ort-cpu -o OUT.onnx"),
        (("ort-cpu",), Status.FAIL, "gn-deploy parity a.onnx 'b c.onnx'"),
        (("openvino", "onnx-reference"), Status.FAIL, "Next:  See what each of the two says it computes"),
        (("openvino", "+onnx-reference"), Status.FAIL, "gn-deploy lower 'b c.onnx' --target openvino"),
    ],
)
def test_a_broken_report_says_what_to_do_next(
    runtimes: tuple[str, ...], status: Status, expected: str, held: ParityReport
) -> None:
    """A runtime after "+" holds; the others have ``status``."""
    sites = tuple(site(0, r.lstrip("+"), Status.PASS if r.startswith("+") else status, 9.0) for r in runtimes)
    report = replace(held, reference="a.onnx", candidate="b c.onnx", sites=sites)
    assert len(next_steps(report)) == 1
    assert expected in shown(report)
    assert not next_steps(held)


def test_every_runtime_that_judges_files_has_advice() -> None:
    from gn_deploy.reports.advice import _TARGETS
    from gn_deploy.runtimes import RUNTIMES
    from gn_deploy.targets import Target

    assert set(_TARGETS) == set(RUNTIMES.names()) - {"torch", "onnx-reference"}
    assert all(str(Target.parse(target)) == target for target in _TARGETS.values())


def test_models_without_groupnorms_are_judged_by_their_outputs(held: ParityReport) -> None:
    none = replace(held, sites=())
    assert summary.headline(none) == "No GroupNorm to judge, the outputs agree on 4 runtimes."
    worse = replace(none, outputs=(OutputVerdict("logits", "torch", Status.FAIL),))
    assert summary.headline(worse) == "No GroupNorm to judge, and the models differ on 4 runtimes."


def test_an_output_alone_can_break_parity(held: ParityReport) -> None:
    report = replace(held, outputs=(OutputVerdict("logits", "torch", Status.FAIL),))
    assert summary.headline(report).endswith("every GroupNorm held, but something else broke.")
    assert summary.problems(report)[0][0] == "output logits on torch"


def test_text_says_the_verdict_on_the_first_line(held: ParityReport, broken: ParityReport) -> None:
    assert shown(held).startswith("✓ Parity held. 12 GroupNorms")
    first, second = shown(broken).splitlines()[:2]
    assert first.startswith("✗ Parity broken. 3 of 12")
    assert "layer2.0.norm1 on onnxruntime" in second
    assert "830 times the bound" in second


def test_text_keeps_the_worst_of_a_long_list(held: ParityReport, broken: ParityReport) -> None:
    many = [replace(v, site=f"{v.site}.{i}") for i in range(5) for v in broken.sites]
    long = shown(replace(broken, sites=tuple(many)))
    table = long[long.index("GroupNorm sites") :]
    assert "(45 more held)" in table
    assert table.count("830") == 5
    calm = shown(replace(held, sites=tuple(replace(v, site=f"{v.site}.{i}") for i in range(5) for v in held.sites)))
    assert "(52 more held)" in calm  # eight of sixty are shown, the worst of all among them
    peak = max(v.metrics.error_over_bound for v in held.sites if v.metrics)
    assert f"{peak:.3f}" in calm[calm.index("GroupNorm sites") : calm.index("End to end")]


def test_a_name_cannot_drive_the_terminal(held: ParityReport) -> None:
    evil = replace(held, sites=(replace(held.sites[0], module="\x1b]0;title\x07[red]name\r"),), title="\x1b[2J")
    out = shown(evil)
    assert "\x1b" not in out
    assert "\x07" not in out
    assert "[red]name" in out


def test_the_scale_always_shows_the_bound() -> None:
    for values in ([0.2, 0.5], [830.0], [1e-9, math.inf, math.nan], []):
        scale = Scale.around(values)
        assert 0 < scale.at(1.0) < 100
        assert (scale.at(1.0), "1") in scale.ticks
        assert scale.at(math.inf) == 100
        assert scale.at(0.0) == scale.at(math.nan) == 0
    assert Scale.around([0.5]).at(0.1) == pytest.approx(100 / 3, abs=0.01)  # one decade of three: 0.01 to 10


def test_families_are_the_worst_of_every_site(held: ParityReport) -> None:
    table = families(held)
    for case, row in table.items():
        for runtime, value in row.items():
            assert value == max(v.cases[case] for v in held.sites if v.runtime == runtime)


def test_a_groupnorm_that_nothing_vouches_for_is_named(held: ParityReport) -> None:
    blind = replace(held, outputs=(), unpaired=("down.1.norm2: no counterpart",))
    assert not blind.held
    assert "nothing vouches for 1 of them" in summary.headline(blind)
    assert "down.1.norm2: no counterpart" in shown(blind)
    assert any("neither in itself nor through an output" in why for _, _, why in summary.problems(blind))


def test_a_narrow_console_keeps_names_whole(full: ParityReport) -> None:
    lines = shown(full, width=80).splitlines()
    told = lines[: next(i for i, line in enumerate(lines) if line.startswith("Next:"))]  # commands are never broken
    assert all(len(line.rstrip()) <= 80 for line in told)
    for name in ("onnxruntime ", "tensorrt-rtx ", "layer2.1.norm2 ", "-3.70 % to -0.93 %"):
        assert any(name in line for line in lines), name
    assert not any(line.startswith(("onnxruntim ", "tensorrt-r ")) for line in lines)


@pytest.mark.parametrize("width", [80, 160])
def test_how_sure_it_is_and_what_was_accepted_stand_below_the_verdict(width: int, full: ParityReport) -> None:
    head = " ".join(shown(full, width)[:600].split())
    assert "Held on 299 inputs: with 95 % confidence fewer than 1 % of inputs like these break it." in head
    assert "Taken for held, as asked: lowprec (not met) and unstable (once)." in head
    assert "unstable layer2.1.norm2" not in head  # accepted, so no problem


def test_what_was_accepted_breaks_nothing(broken: ParityReport) -> None:
    lax = replace(broken, accepted=(Status.FAIL, Status.NAN, Status.UNSTABLE), unpaired=())
    assert [where for where, _, _ in summary.problems(lax)] == ["tensorrt"]
    assert "0 of" not in summary.headline(lax)
    assert "something else broke" in summary.headline(lax)


@QUICK
@given(REPORTS)
def test_any_report_can_be_printed(found: ParityReport) -> None:
    for width in (80, 160):
        assert f"{outcome(found)}." in shown(found, width)
