"""The choice of a kernel: Python and C++ agree, every problem is served, and what is chosen covers the problem."""

from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gn_deploy.decision import Rejected
from gn_deploy.errors import InputError
from gn_deploy.plugin import select as python
from gn_deploy.plugin.binding import VARIANTS, Library, as_dict
from gn_deploy.plugin.check import check
from gn_deploy.plugin.problem import DEVICES, Device, Problem, device, without
from gn_deploy.plugin.units import ELEMENT_BYTES, GRID, PARTIAL_BYTES, THREADS, ceil_div, slabs_of, units_of
from scripts import kernel_choices
from tests.plugins.compiled import PLUGINS, compiled

KERNELS = PLUGINS / "kernels"
NO_GPU = """
#include "gn.h"
extern "C" int gn_enqueue(const gn_problem *, const gn_choice *, const gn_buffers *, void *, char *, size_t) {
    return GN_LAUNCH_FAILED;
}
extern "C" int gn_query_device(int, gn_device *, char *, size_t) { return GN_LAUNCH_FAILED; }
"""


@cache
def library_of() -> Library:
    sources = [KERNELS / "check.cpp", KERNELS / "select.cpp", NO_GPU]
    flags = ("-std=c++17", "-O1", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", f"-I{KERNELS}")
    return Library(compiled("select", sources, *flags, reads=sorted(KERNELS.glob("*.h"))))


@pytest.fixture(scope="module")
def library() -> Library:
    return library_of()


def same(library: Library, p: Problem, d: Device, variant: str | None = None) -> python.Selection | Rejected:
    """The answer of both, which must be the same, words and all."""
    decision = check(p)
    assert library.check(p) == decision
    if isinstance(decision, Rejected):
        for select in (lambda: library.select(p, d, variant), lambda: python.select(p, d, variant)):
            with pytest.raises(InputError) as error:
                select()
            assert error.value.message == decision.reason
        return decision
    mine, theirs = python.select(p, d, variant), library.select(p, d, variant)
    if isinstance(mine, Rejected) or isinstance(theirs, Rejected):
        assert mine == theirs
        return mine
    assert asdict(mine.choice) == as_dict(theirs.choice)
    assert mine.reason[:1023] == theirs.reason
    return mine


def holds(p: Problem, d: Device, selection: python.Selection) -> None:
    """What any kernel may rely on."""
    c = selection.choice
    if 0 in (p.samples, p.channels, p.positions):
        assert asdict(c) == asdict(python.Choice(c.variant))
        return
    u = units_of(p, c.slab)
    assert u.count * u.slab >= p.samples * p.channels > (u.count - p.samples) * u.slab  # all channels are in some slab
    assert u.slab % (p.channels // p.groups) == 0
    assert 0 < c.threads <= THREADS
    assert c.threads % 32 == 0
    assert 0 < c.blocks <= GRID
    assert c.shared - c.ahead * c.threads * 16 <= 48 << 10, "more shared memory than every device gives without asking"
    assert c.units == u.count
    rows = c.threads // u.columns  # of a block, in one go
    if c.variant == "warp":
        assert c.slices == 1
        assert c.blocks * (c.threads // 32) >= c.units
        assert c.vectors * 32 >= u.steps
        return
    assert c.slices % u.column_slices == 0
    steps = ceil_div(u.steps, c.slices // u.column_slices)
    assert rows >= 1
    assert (c.slices // u.column_slices - 1) * steps < u.steps, "a block with nothing to do"
    if c.variant != "split":
        assert rows * c.vectors >= steps, "x does not fit the registers"
    if c.variant == "block":
        assert (c.slices, c.blocks) == (1, c.units)
    if c.variant == "cluster":
        assert 2 <= c.slices <= d.cluster_blocks
        assert c.blocks == c.units * c.slices
    if c.variant == "team":
        teams = c.blocks // c.slices
        assert d.cooperative
        assert c.blocks == teams * c.slices
        assert teams <= c.units
        assert c.counters >= teams * (1 + 2 * c.slices * u.groups * PARTIAL_BYTES // 4)
        assert 0 <= c.ahead <= c.vectors
        assert c.shared <= d.shared_per_block
        assert c.blocks * c.threads <= d.threads * d.multiprocessors, "they wait for blocks that cannot start"
        assert c.blocks * c.threads * 64 <= d.registers * d.multiprocessors
        assert ceil_div(c.blocks, d.multiprocessors) * (c.shared + 1024) <= d.shared
    if c.variant == "split":
        assert c.blocks == c.units * c.slices
        assert c.workspace >= c.blocks * u.groups * PARTIAL_BYTES


def real() -> list[Problem]:
    cases = [(layout, dtype) for layout in ("nchw", "nhwc") for dtype in ("float16", "float32")]
    return [problem for case in cases for _, _, problem in kernel_choices.problems(*case)]


@pytest.mark.parametrize("gpu", sorted(DEVICES))
def test_shapes_of_real_networks_are_chosen_alike(library: Library, gpu: str) -> None:
    for p in real():
        selection = same(library, p, device(gpu))
        assert isinstance(selection, python.Selection)
        holds(p, device(gpu), selection)


def test_the_choices_for_real_networks_are_known() -> None:
    """scripts/kernel_choices.py prints them; a change here is a change of speed and wants a look."""
    assert kernel_choices.page() == Path(__file__).with_name("kernel_choices.md").read_text()


sizes = st.one_of(st.integers(0, 9), st.integers(1, 5000), st.integers(1, 2**22), st.sampled_from([2**31 - 1, 2**40]))


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    groups = draw(st.one_of(st.integers(1, 64), st.integers(1, 5000)))
    channels = groups * draw(st.one_of(st.integers(0, 9), st.integers(1, 300), st.integers(1, 2**20)))
    dtype = draw(st.sampled_from(["float32", "float16", "bfloat16"]))
    return Problem(
        draw(st.one_of(st.integers(0, 40), sizes)),
        channels,
        draw(sizes),
        groups,
        draw(st.sampled_from(["nchw", "nhwc"])),
        dtype,
        pitch=channels + draw(st.sampled_from([0, 0, 0, 1, 8, 13, -1])),
        output_pitch=channels + draw(st.integers(0, 16)),
        output_dtype=draw(st.sampled_from([dtype, "int8", "float8_e4m3fn"])),
        parameter_dtype=draw(st.sampled_from([dtype, "float32"])),
        has_residual=draw(st.integers(0, 1)),
    )


@st.composite
def devices(draw: st.DrawFn) -> Device:
    known = draw(st.sampled_from(sorted(DEVICES)))
    here = without(device(known), clusters=draw(st.booleans()), cooperative=draw(st.booleans()))
    return replace(here, multiprocessors=draw(st.one_of(st.just(here.multiprocessors), st.integers(1, 300))))


@settings(max_examples=600, deadline=None)
@given(problems(), devices(), st.sampled_from([None, None, *VARIANTS]))
def test_any_problem_on_any_device_is_chosen_alike_and_served(p: Problem, d: Device, variant: str | None) -> None:
    selection = same(library_of(), p, d, variant)
    if isinstance(selection, python.Selection):
        holds(p, d, selection)
    else:
        assert variant is not None or isinstance(check(p), Rejected)
    if not isinstance(check(p), Rejected):
        assert isinstance(python.select(p, d, "split"), python.Selection), "the fallback serves all"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"groups": 0}, "0 groups"),
        ({"groups": 7}, "64 channels are not divisible into 7 groups"),
        ({"samples": -1}, "negative"),
        ({"epsilon": float("nan")}, "epsilon"),
        ({"epsilon": float("inf")}, "epsilon"),
        ({"dtype": "int8", "output_dtype": "int8", "parameter_dtype": "int8"}, "x has type"),
        ({"parameter_dtype": "bfloat16"}, "parameters"),
        ({"output_dtype": "float32"}, "y has type"),
        ({"output_dtype": "int8", "output_scale": 0.0}, "scale of a quantized y"),
        ({"has_sum": 1}, "no residual"),
        ({"has_affine": 4}, "two bits"),
        ({"layout": "nhwc", "pitch": 63}, "pitch of 63"),
        ({"layout": "nhwc", "output_dtype": "int8", "output_pitch": 63}, "output pitch of 63"),
        ({"positions": 2**40}, "larger than 1 TB"),
        ({"samples": 2**62, "channels": 2**62, "positions": 2**62, "groups": 1}, "larger than 1 TB"),
        ({"samples": 2**30, "groups": 4, "positions": 1}, "units for one launch"),
    ],
)
def test_what_is_no_problem_is_told(library: Library, change: dict[str, object], said: str) -> None:
    bad = replace(Problem(2, 64, 100, 8), **change)
    decision = check(bad)
    assert isinstance(decision, Rejected)
    assert said in decision.reason
    there = library.check(bad)
    assert isinstance(there, Rejected)
    assert said.split(" ")[-1] in there.reason


@pytest.mark.parametrize("empty", ["samples", "channels", "positions"])
def test_nothing_is_computed_of_nothing(library: Library, empty: str) -> None:
    for layout in ("nchw", "nhwc"):
        p = replace(Problem(2, 64, 100, 8, layout), **{empty: 0})
        selection = same(library, p, device("H200"))
        assert isinstance(selection, python.Selection)
        assert (selection.choice.blocks, selection.choice.workspace, selection.choice.counters) == (0, 0, 0)


@pytest.mark.parametrize("variant", ["block", "cluster", "team", "split"])
def test_slabs_are_as_wide_as_it_pays(variant: str) -> None:
    """The cheapest of all widths, each of which may be asked for; whole rows where nothing fits the registers."""
    for p in (p for _, _, p in kernel_choices.problems("nhwc")):
        each = {slab: python.select(p, device("H200"), variant, (slab,)) for slab in slabs_of(p)}
        costs = {slab: one.candidates[variant].cost for slab, one in each.items() if isinstance(one, python.Selection)}
        best = python.select(p, device("H200"), variant)
        if isinstance(best, Rejected):
            assert not costs
            continue
        assert costs[best.choice.slab] <= min(costs.values()) * (
            1.12 if variant == "block" else 1
        )  # a tenth, both ways
        assert f"rows of {best.choice.slab * ELEMENT_BYTES[p.dtype]} bytes" in best.reason
    whole = python.select(Problem(1, 256, 1 << 20, 32, "nhwc"), device("H200"))
    assert isinstance(whole, python.Selection)
    assert (whole.choice.variant, whole.choice.slab) == ("split", 256)


def test_a_selection_says_why(library: Library) -> None:
    small = same(library, Problem(2, 320, 64 * 64, 32), device("A100"))
    assert small.reason == (
        "warp: a unit of 80 KB does not fit 4 KB; block chosen: 64 units of 80 KB for 108 multiprocessors"
    )
    large = same(library, Problem(1, 512, 16 * 180 * 320, 32), device("H200"))
    assert "team: a unit of 28.1 MB does not fit 264 blocks of 80 KB; split chosen" in large.reason
    asked = same(library, Problem(2, 320, 64 * 64, 32), device("A100"), "cluster")
    assert asked == Rejected("cluster: compute capability 9.0 or later is needed")


@settings(max_examples=100, deadline=None)
@given(problems(), devices(), st.data())
def test_there_is_room_for_every_smaller_problem(p: Problem, d: Device, data: st.DataObject) -> None:
    """An engine is built for its largest batch and image."""
    workspace, counters = library_of().room(p, d)
    smaller = replace(
        p,
        samples=data.draw(st.integers(0, max(0, p.samples))),
        positions=data.draw(st.integers(0, max(0, p.positions))),
    )
    if isinstance(check(p), Rejected):
        assert (workspace, counters) == (0, 0)
        return
    for variant in VARIANTS:
        for slab in slabs_of(smaller) if smaller.channels else []:  # also of widths that are not the cheapest
            selection = python.select(smaller, d, variant, (slab,))
            if isinstance(selection, python.Selection):
                holds(smaller, d, selection)
                assert selection.choice.workspace <= workspace
                assert selection.choice.counters <= counters
