"""The words and numbers that every report shares, and the text report."""

import io
import math
from dataclasses import replace

import pytest
from rich.console import Console

from gn_deploy.parity.report import OutputVerdict, ParityReport, Status
from gn_deploy.reports import summary, text
from gn_deploy.reports.html import Scale, families


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
