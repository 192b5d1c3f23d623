"""report.html: what is drawn stands where its number says, everything is on the page, and everybody can read it."""

import math
import re
from dataclasses import replace
from importlib.resources import files
from xml.etree import ElementTree

import pytest
from hypothesis import given

from gn_deploy.parity.report import HISTOGRAM_EDGES, ParityReport, SiteVerdict, WorstGroup
from gn_deploy.parity.status import Status
from gn_deploy.reports import bars, curves, html
from gn_deploy.reports.summary import outcome
from tests.reports.conftest import drawn, everything, group, histogram, metrics, report, site
from tests.reports.strategies import QUICK, REPORTS
from tests.reports.test_report_files import Page

BOUND = HISTOGRAM_EDGES.index(1.0)


def drawings(text: str) -> list[ElementTree.Element]:
    """Every SVG of a page that is not an ornament."""
    found = [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL)]
    return [svg for svg in found if svg.get("aria-hidden") != "true"]


def labelled(text: str, beginning: str) -> ElementTree.Element:
    [found] = [svg for svg in drawings(text) if (svg.get("aria-label") or "").startswith(beginning)]
    return found


def points(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"[ML]([-\d.]+) ([-\d.]+)", path)]


def one_site(verdict: SiteVerdict) -> str:
    return html.render(report(sites=(verdict,), outputs=(), tasks=(), engines=()))


@QUICK
@given(REPORTS)
def test_any_report_is_a_page(found: ParityReport) -> None:
    text = html.render(found)
    page = Page(text)
    assert outcome(found) in page.words
    for svg in drawings(text):
        assert not re.search(
            r"\b(nan|inf)\b", " ".join(v for e in svg.iter() for k, v in e.attrib.items() if k != "aria-label")
        )


@pytest.mark.parametrize(
    "expected",
    [
        "Held on 299 inputs: with 95 % confidence fewer than 1 %",
        "Taken for held, as asked: lowprec (not met) and unstable (once).",
        "looks like epsilon 1e-06 instead of 1e-05",
        "leaves the float64 oracle at /layer2/pad_output",
        "Pad /layer2/Pad",
        "resnet.py:47",
        "791 times rounding noise",
        "the border counted as zeros",
        "part.onnx, inputs.npz",
        "torch: nothing parts",
        "optimizer rule Pad_Fusion is at fault",
        'session.disabled_optimizers = ["Pad_Fusion"]',
        "all rules, Pad_Fusion, ConvBNFusion",
        "torch, openvino against onnxruntime",
        "-3.70 % to -0.93 %",
        "allowed drop 0.50 %",
        "38.50 dB",
        "tail left out",
        "layer1.0.norm1, layer3.1.norm2",
        "no NaN in the data",
        "promised float32",
    ],
)
def test_everything_a_report_holds_is_on_the_page(expected: str, full: ParityReport) -> None:
    words = " ".join(Page(html.render(full)).words.split())
    assert expected in words


def test_sections_come_in_order_and_the_contents_lead_to_each(full: ParityReport) -> None:
    page = Page(html.render(full))
    targets = [value[1:] for name, value in page.attributes if name == "href"]
    assert targets == [name for name in html.TITLES if name not in ("engines", "notes")]  # neither in this report
    headed = [value for name, value in page.attributes if name == "id"]
    assert headed == [*targets[:4], *targets[4:]]


def test_dots_stand_where_their_errors_say() -> None:
    verdicts = [
        replace(site(i, "r"), case="a", cases={"a": 10.0**i, "b": 0.03}, metrics=metrics(10.0**i)) for i in range(3)
    ]
    plot = labelled(html.render(report(sites=tuple(verdicts))), "Error over bound on r")
    bound = next(float(e.attrib["y1"]) for e in plot.iter("line") if e.get("class") == "bound")
    decade = bound - next(float(t.attrib["y"]) - 3.5 for t in plot.iter("text") if t.text == "10")
    worst = [c for c in plot.iter("circle") if "worst" in (c.get("class") or "")]
    assert [float(c.attrib["cy"]) for c in worst] == pytest.approx([bound, bound - decade, bound - 2 * decade], abs=0.2)
    steps = [float(c.attrib["cx"]) for c in worst]
    assert steps[1] - steps[0] == pytest.approx(steps[2] - steps[1], abs=0.2)
    rest = [float(c.attrib["cy"]) for c in plot.iter("circle") if c not in worst]
    assert rest == pytest.approx([bound - decade * math.log10(0.03)] * 3, abs=0.2)


def test_bars_count_what_they_show() -> None:
    counts = [0] * 34
    counts[BOUND - 3], counts[BOUND], counts[BOUND + 1], counts[BOUND + 5] = 1000, 10, 100, 1
    made = bars.histogram(counts)
    assert made is not None
    assert (made.elements, made.beyond) == (1111, 101)
    assert [bar.beyond for bar in made.bars] == [False, False, True, True]
    # a bar ends at the upper edge of its bin: the last one inside ends at the bound, the first beyond begins there
    assert made.bars[1].x + made.bars[1].width == pytest.approx(made.bound, abs=0.02)
    assert made.bars[2].x == pytest.approx(made.bound, abs=0.02)
    assert made.bars[2].name.startswith("above 1, at most 1.8: 100")
    tick = {label: place for place, label in made.ticks}
    assert tick["1"] == made.bound
    assert made.bars[3].x == pytest.approx(tick["10"], abs=0.02)
    level = {label: height for height, label in made.levels}
    assert made.bars[0].height == pytest.approx(level["1,000"], abs=0.2)
    assert made.bars[1].height == pytest.approx(level["10"], abs=0.2)
    assert made.bars[3].height == pytest.approx(level["1"], abs=0.2)
    assert bars.histogram(()) is bars.histogram([0] * 34) is bars.histogram([1] * 5) is None


def test_histograms_of_a_runtime_add_its_sites(full: ParityReport) -> None:
    for runtime, made in bars.of_runtimes(full).items():
        mine = [v.histogram for v in full.sites if v.runtime == runtime and v.histogram]
        assert made.elements == sum(map(sum, mine))
        assert made.beyond == sum(sum(h[BOUND + 1 :]) for h in mine)
        label = labelled(html.render(full), f"Elements by error over bound on {runtime}").get("aria-label") or ""
        assert f"{made.beyond:,} of {made.elements:,} elements" in label


def test_the_worst_group_is_drawn_to_scale() -> None:
    found = WorstGroup(2, 5, (0, 1, 2, 9), (0.0, 1.0, 2.0, 4.0), (0.0, 1.0, 2.0, 4.0), (0.0, 1.5, 1.9, 4.0), (0.2,) * 4)
    plot = labelled(one_site(replace(site(0, "r", Status.FAIL, 2.5), group=found)), "Group 5 of sample 2")
    paths = {e.get("class"): e.attrib["d"] for e in plot.iter("path")}
    expected, actual = points(paths["expected"]), points(paths["actual"])
    per_unit = (expected[0][1] - expected[3][1]) / 4
    assert per_unit > 0
    assert [x for x, _ in expected] == [50, 150, 250, 350]
    assert [y for _, y in expected] == pytest.approx([expected[0][1] - per_unit * v for v in found.expected], abs=0.11)
    assert [y for _, y in actual] == pytest.approx([expected[0][1] - per_unit * v for v in found.actual], abs=0.11)
    band = points(paths["band"])
    assert len(band) == 8
    assert band[1][1] == pytest.approx(expected[1][1] - 0.2 * per_unit, abs=0.11)
    assert band[-2][1] == pytest.approx(expected[1][1] + 0.2 * per_unit, abs=0.11)
    crosses = points(paths["off"])  # one on the values and one on the errors, each two lines from its corner
    assert [x for x, _ in crosses] == [150 - 2, 150 - 2]
    assert crosses[0][1] == pytest.approx(actual[1][1] - 2, abs=0.11)
    assert crosses[1][1] == pytest.approx(points(paths["error"])[1][1] - 2, abs=0.11)
    assert "1 of 4 drawn elements outside the band" in (plot.get("aria-label") or "")


def test_errors_are_drawn_in_bounds_linear_inside_and_logarithmic_beyond() -> None:
    found = WorstGroup(0, 0, (0, 1, 2, 3), (0.0,) * 4, (0.0,) * 4, (0.5, -1.0, 10.0, 100.0), (1.0,) * 4)
    made = curves.draw(replace(site(0, "r", Status.FAIL, 100.0), group=found))
    top, bottom = made.within
    middle, unit = (top + bottom) / 2, (bottom - top) / 2
    ys = [y for _, y in points(made.error)]
    assert [(middle - y) / unit for y in ys] == pytest.approx([0.5, -1.0, 2.0, 3.0], abs=0.05)
    assert [mark.x for mark in made.marks] == [x for x, _ in points(made.error)][2:]


def test_nan_infinity_and_unknown_bounds_are_drawn_as_what_they_are() -> None:
    nan, inf = math.nan, math.inf
    found = WorstGroup(
        0, 0, tuple(range(6)), (1.0, inf, 0.0, 0.0, nan, 0.0), (0.0, 1.0, 2.0, inf, nan, 3.0),
        (nan, 1.0, -inf, inf, nan, 50.0), (0.1, 0.1, 0.1, 0.1, nan, inf),
    )  # fmt: skip
    made = curves.draw(replace(site(0, "r", Status.NAN, inf), group=found))
    columns = [round(400 * (i + 0.5) / 6, 1) for i in range(6)]
    assert [mark.x for mark in made.marks] == [columns[0], columns[2]]  # the others are right, or nobody knows
    assert [x for x, _ in points(made.actual)] == [columns[1], columns[5]]
    assert made.actual.count("M") == 2
    assert "nan" not in "".join((made.band, made.expected, made.actual, made.error, made.x))
    assert "∞" in made.told


def test_the_worst_broken_groups_are_drawn_and_one_of_each_runtime_that_held() -> None:
    broken = [replace(site(i, "a", Status.FAIL, 5.0 + i), group=group(8)) for i in range(12)]
    held = [replace(site(i, r, Status.PASS, 0.6 + i / 100), group=group(8)) for i in range(3) for r in ("a", "b")]
    made = curves.groups(report(sites=(*broken, *held)))
    assert [(d.site.runtime, d.site.site) for d in made] == [
        *(("a", f"node_group_norm_{i}") for i in range(11, 3, -1)),
        ("b", "node_group_norm_2"),
    ]


def test_of_many_sites_what_broke_and_the_worst_stand_open() -> None:
    sites = [site(i, "r", Status.FAIL if i == 40 else Status.PASS, 9.0 if i == 40 else None) for i in range(61)]
    text = html.render(report(sites=tuple(sites), outputs=(), tasks=(), engines=()))
    before, _, folded = text[text.index('id="sites"') :].partition("<details")
    assert len(re.findall(r'class="full wrap site"', before)) == 8
    assert "node_<wbr>group_<wbr>norm_<wbr>40<" in before
    assert len(re.findall(r'class="full wrap site"', folded)) == 61 - 8
    assert "53 more sites" in folded


def test_a_large_report_stays_small() -> None:
    """61 sites on 5 runtimes, everything broken: what per_site keeps of it, as JSON and as a page."""
    runtimes = [f"runtime {i}" for i in range(5)]
    sites = tuple(
        drawn(site(i, r, Status.FAIL, 830.0), i, with_group=False) if i > 8
        else replace(site(i, r, Status.FAIL, 830.0), histogram=histogram(830.0), group=group(256, 1e-3))
        for i in range(61) for r in runtimes
    )  # fmt: skip
    from gn_deploy.reports import as_json

    large = report(sites=sites)
    assert len(as_json.render(large)) < 3_000_000  # measured 1.5 MB
    assert len(html.render(large)) < 1_500_000  # measured 0.6 MB


def test_tables_and_drawings_can_be_read_aloud(full: ParityReport) -> None:
    text = html.render(full)
    assert not re.search(r"<th(?![^>]*scope=)", text.replace("<thead", ""))
    anchors = set(re.findall(r' id="(\w+)"', text))
    assert set(re.findall(r'aria-labelledby="(\w+)"', text)) <= anchors
    assert len(re.findall(r"<table", text)) == len(re.findall(r"<table[^>]*aria-labelledby", text))
    for svg in drawings(text):
        assert svg.get("role") == "img"
        assert svg.get("aria-label")
    hidden = re.findall(r'<svg class="(?:bar|seal)[^>]*>', text)
    assert all('aria-hidden="true"' in svg for svg in hidden)


def test_no_meaning_is_in_colour_alone(full: ParityReport) -> None:
    """Whatever is coloured by a verdict says it with a word or a sign as well."""
    words = "|".join(status for status in Status)
    text = re.sub(r"<svg.*?</svg>", "", html.render(full), flags=re.DOTALL)
    for coloured in re.findall(rf'<(span|td)[^>]*class="(?:badge |n )?(?:{words})"[^>]*>(.*?)</\1>', text, re.DOTALL):
        inside = re.sub(r"<[^>]+>", "", coloured[1])
        assert re.search(rf"[✓✗≈!–]|{words}|\d|∞", inside), inside


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("block", [0, 1, 2], ids=["light", "dark", "print"])
def test_text_stands_out_from_what_it_stands_on(block: int) -> None:
    """A contrast of 4.5, WCAG 2.2 AA for text of any size, on every ground it is used on."""
    css = files("gn_deploy.reports").joinpath("page/style.css").read_text("utf-8")
    blocks = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    assert len(blocks) == 3
    colours = {}
    for name, value in re.findall(r"--([\w-]+): (#\w+)", blocks[block]):
        colours[name] = value.lower() if len(value) == 7 else "#" + "".join(2 * c for c in value[1:].lower())
    for text in ("ink", "soft", "faint", "pass", "fail", "warn", "none"):
        for ground in ("paper", "card", "pass-wash", "fail-wash", "warn-wash"):
            light, dark = sorted((luminance(colours.get(c, "#555555")) for c in (text, ground)), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, f"{text} on {ground}"


def test_characters_that_are_not_seen_are_shown_and_turn_nothing_round() -> None:
    evil = "norm\u202egpj.exe\u2066\x1b[31m\x00"
    base = everything(report(2))
    text = html.render(replace(base, sites=tuple(replace(v, module=evil) for v in base.sites), reference=evil))
    assert not set("\u202e\u2066\x1b\x00") & set(text)
    assert "norm\N{REPLACEMENT CHARACTER}gpj.exe" in Page(text).words.replace("\n", "")
    assert "نموذج" in html.render(replace(base, title="نموذج"))  # letters of any script stay


def test_the_noise_ratio_is_a_bar_with_its_two_limits(held: ParityReport) -> None:
    text = html.render(replace(held, outputs=(replace(held.outputs[0], noise_ratio=10.0, status=Status.WARN),)))
    [bar] = re.findall(r'<svg class="bar warn".*?</svg>', text[text.index('id="outputs"') :], re.DOTALL)
    widths = [float(v) for v in re.findall(r'class="fill"[^>]*width="([\d.]+)"', bar)]
    marks = [float(v) + 0.5 for v in re.findall(r'class="one" x="([\d.]+)"', bar)]
    assert widths == [pytest.approx(50.0)]  # 10 in the middle of 0.1 to 1000
    assert marks == pytest.approx([25 * (1 + math.log10(limit)) for limit in (4, 16)], abs=0.02)
