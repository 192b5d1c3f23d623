"""report.json, junit.xml and report.html say what the comparison found, whatever things are named."""

import json
import math
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gn_deploy.errors import InputError
from gn_deploy.parity.report import BuiltEngine, Metrics, OutputVerdict, ParityReport, RuntimeVerdict, SiteVerdict
from gn_deploy.parity.status import Status
from gn_deploy.reports import REPORTS, as_json, html, junit, write
from gn_deploy.runtimes.base import Kernel

HOSTILE = "<script>alert('1')</script>\x00\x1b[31m]]>&\"'\ud800 {{ 7 * 7 }}"


def hostile(name: str = HOSTILE) -> ParityReport:
    site = SiteVerdict(
        name, name, Status.FAIL, name, Metrics(9.0, 1, 1, 1, 1), name, name, 2, 4, 1e-5, name, name, name, {name: 9.0}
    )
    output = OutputVerdict(name, name, Status.WARN, name, None, math.nan, name)
    return ParityReport(
        name,
        name,
        (RuntimeVerdict(name, Status.FAIL, name, name, name),),
        (site,),
        (output,),
        unpaired=(name,),
        environment={name: name},
        command=name,
        title=name,
        engines=(BuiltEngine(name, name, 1, (Kernel(name, name, (name,)),)),),
    )


class Page(HTMLParser):
    """Tags, attributes and visible text of a page; void elements apart, every tag must be closed in order."""

    VOID = frozenset({"meta", "br", "wbr", "hr", "img", "link", "input"})
    """Tags that are never closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words = ""
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words += data


def test_json_is_strict_and_tells_everything(broken: ParityReport) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    data = json.loads(as_json.render(broken), parse_constant=refuse)
    assert (data["schema_version"], data["verdict"], data["held"]) == (2, "broken", False)
    assert len(data["sites"]) == len(broken.sites)
    assert {row["status"] for row in data["sites"]} == {"pass", "fail", "unstable", "nan", "notrun"}
    assert next(r for r in data["sites"] if r["status"] == "fail")["metrics"]["error_over_bound"] == 830.0
    assert next(r for r in data["sites"] if r["status"] == "nan")["metrics"]["error_over_bound"] == "inf"
    documented = set(re.findall(r"\w+", as_json.__doc__ or ""))
    keys = {*data, *data["sites"][0], *data["outputs"][0], *data["runtimes"][0], *data["tasks"][0]}
    assert keys <= documented, f"not in the documented schema: {keys - documented}"


def test_html_says_the_verdict_first_and_everything_else_after(held: ParityReport, broken: ParityReport) -> None:
    good, bad = Page(html.render(held)), Page(html.render(broken))
    assert "Parity held" in good.words
    assert "What broke" not in good.words
    assert good.words.index("Parity held") < good.words.index("GroupNorm sites")
    assert "Parity broken" in bad.words
    assert bad.words.index("Parity broken") < bad.words.index("What broke") < bad.words.index("GroupNorm sites")
    for expected in (
        "layer2.0.norm1 on onnxruntime",
        "digits_resnet.py:47",
        "8 × 64",
        "ε 1e-05",
        "segmentation fault while building",
        "no NVIDIA GPU on this machine",
        "up.3.norm",
    ):
        assert expected in bad.words
    for expected in ("sm80_group_norm_relu_fp32_2", "1.3 MB", held.command, "98.33 %", "540 of 540", "2026.4.1"):
        assert expected in good.words


def test_html_draws_one_dot_for_every_case(held: ParityReport) -> None:
    page = Page(html.render(held))
    assert page.tags.count("figure") == len(held.runtimes)
    seal = 1
    assert page.tags.count("circle") == sum(len(v.cases) for v in held.sites) + seal


def test_html_needs_nothing_from_outside(held: ParityReport, broken: ParityReport, full: ParityReport) -> None:
    for report in (held, broken, full):
        text = html.render(report)
        page = Page(text)
        assert not {"script", "link", "img", "iframe", "object", "image", "use"} & set(page.tags)
        assert not {name for name, _ in page.attributes} & {"src", "xlink:href", "style", "onclick", "onload"}
        anchors = {value for name, value in page.attributes if name == "id"}
        assert {value for name, value in page.attributes if name == "href"} <= {f"#{anchor}" for anchor in anchors}
        assert not re.search(r"https?:|url\(|@import", text)
        assert 'name="viewport"' in text
        assert "prefers-color-scheme: dark" in text
        assert "@media print" in text


@pytest.mark.parametrize("name", ["json", "junit", "html"])
def test_a_report_is_the_same_every_time_and_holds_no_clock(name: str, held: ParityReport) -> None:
    render = REPORTS.require(name).render
    later = replace(held, runtimes=tuple(replace(r, seconds=r.seconds + 1) for r in held.runtimes))
    assert render(held) == render(later)


def test_hostile_names_stay_names() -> None:
    report = hostile()
    page = Page(html.render(report))
    assert "script" not in page.tags
    assert "<script>alert('1')</script>" in page.words
    assert "{{ 7 * 7 }}" in page.words
    assert ElementTree.fromstring(junit.render(report)).get("failures") == "1"
    assert json.loads(as_json.render(report))["title"].startswith("<script>")


@settings(deadline=None, max_examples=40)
@given(st.text(st.characters(), max_size=12))  # surrogates and control characters too
def test_no_name_breaks_a_file(name: str) -> None:
    report = hostile(name)
    ElementTree.fromstring(junit.render(report).encode())
    json.loads(as_json.render(report).encode())
    Page(html.render(report).encode().decode())


def test_write_makes_the_folder_and_leaves_nothing_else(held: ParityReport, tmp_path: Path) -> None:
    written = write(held, tmp_path / "a" / "b")
    assert [p.name for p in written] == ["report.json", "junit.xml", "report.html"]
    assert sorted(p.name for p in (tmp_path / "a" / "b").iterdir()) == ["junit.xml", "report.html", "report.json"]


def test_without_jinja2_the_other_reports_are_written(
    held: ParityReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)  # what `import jinja2` meets when it is not installed
    skipped: list[tuple[str, str]] = []
    written = write(held, tmp_path, on_skip=lambda name, why: skipped.append((name, why)))
    assert [p.name for p in written] == ["report.json", "junit.xml"]
    [(name, why)] = skipped
    assert name == "html"
    assert "jinja2" in why
    assert "pip install" in why


def test_a_failure_while_writing_leaves_the_old_reports(
    held: ParityReport, broken: ParityReport, tmp_path: Path
) -> None:
    write(held, tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    (tmp_path / "report.html").unlink()
    (tmp_path / "report.html").mkdir()
    with pytest.raises(InputError, match=r"report\.html"):
        write(broken, tmp_path)
    assert (tmp_path / "report.json").read_bytes() == before["report.json"]
    assert len(list(tmp_path.iterdir())) == 3


def test_a_list_of_numbers_is_one_line_and_still_the_same_list() -> None:
    document = {
        "numbers": [1, -2.5e-07, None, "inf", "-inf", 0.1],
        "words": ["a", "b"],
        "mixed": [1, "[\n  1,\n  2\n]"],
        "empty": [],
        "nested": [[1, 2], [3]],
        "rows": [{"a": [1, 2]}],
    }
    text = as_json.dumps(document)
    assert json.loads(text) == document
    assert '"numbers": [1, -2.5e-07, null, "inf", "-inf", 0.1],\n' in text
    assert '"a": [1, 2]\n' in text
    assert '"words": [\n' in text
