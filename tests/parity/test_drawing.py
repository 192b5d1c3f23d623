"""What is drawn of a site's worst case: counts and a group, against sums made here element by element."""

import bisect
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gn_deploy.parity.drawing import GROUPS, PICKED, keep_few
from gn_deploy.parity.harness import compare
from gn_deploy.parity.per_site import Evidence, gather, judge_arrays
from gn_deploy.parity.report import HISTOGRAM_EDGES, Metrics, SiteVerdict, WorstGroup
from gn_deploy.parity.status import Status
from gn_deploy.parity.tolerance import bounds
from gn_deploy.spec import GroupNormSpec
from tests.parity.spellings import alone, native

SPEC = GroupNormSpec(2, 4)


def right(x: np.ndarray, spec: GroupNormSpec = SPEC) -> np.ndarray:
    n = len(x)
    rows = x.astype(np.float64).reshape(n, spec.num_groups, -1)
    mean = rows.mean(-1, keepdims=True)
    y = (rows - mean) / np.sqrt(rows.var(-1, keepdims=True) + spec.epsilon)
    return y.reshape(x.shape).astype(np.float32)


def drawn(x: np.ndarray, y: np.ndarray, spec: GroupNormSpec = SPEC) -> Evidence:
    [evidence] = judge_arrays(x, y, spec, case="c")
    return evidence


def image(seed: int = 0, shape: tuple[int, ...] = (3, 4, 5, 7)) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_the_worst_group_is_drawn_whole_with_its_place() -> None:
    x = image()
    y = right(x)
    y[2, 1, 3, 4] += 0.25  # sample 2, group 0, channel 1 of its 2, row 3, column 4
    group = drawn(x, y).drawing.group
    assert (group.sample, group.group) == (2, 0)
    assert group.index == tuple(range(2 * 5 * 7))
    at = 1 * 35 + 3 * 7 + 4
    assert group.x[at] == pytest.approx(float(x[2, 1, 3, 4]), rel=1e-8)
    assert group.actual[at] - group.expected[at] == pytest.approx(0.25, rel=1e-5)
    limits = bounds(x, SPEC)
    assert group.bound[at] == pytest.approx(float(limits.two_pass[2, 1, 3, 4]), rel=1e-3)
    off = [
        i for i, (e, a, b) in enumerate(zip(group.expected, group.actual, group.bound, strict=True)) if abs(a - e) > b
    ]
    assert off == [at]


def test_channels_last_counts_over_channels_and_then_space() -> None:
    spec = GroupNormSpec(2, 4, channel_axis=-1)
    x = image()
    y = right(x)
    y[1, 3, 0, 2] -= 1.0
    last = [np.ascontiguousarray(np.moveaxis(a, 1, -1)) for a in (x, y)]
    group = drawn(*last, spec).drawing.group
    assert (group.sample, group.group) == (1, 1)
    errors = [abs(a - e) for e, a in zip(group.expected, group.actual, strict=True)]
    assert errors.index(max(errors)) == 1 * 35 + 0 * 7 + 2


@given(st.integers(0, 2 * 600 - 1), st.integers(PICKED + 1, 600))
@settings(max_examples=25, deadline=None)
def test_of_a_large_group_the_worst_element_is_always_among_those_picked(at: int, size: int) -> None:
    x = image(1, (1, 2, size))
    spec = GroupNormSpec(2, 2)
    y = right(x, spec)
    at %= 2 * size
    y.reshape(-1)[at] += 0.5
    group = drawn(x, y, spec).drawing.group
    assert group.group == at // size
    assert at % size in group.index
    assert list(group.index) == sorted(set(group.index))
    assert len(group.index) == PICKED
    assert max(np.diff(group.index)) <= 2 * size / PICKED + 1


@given(st.lists(st.tuples(st.integers(0, 419), st.floats(-7, 7)), max_size=8))
@settings(max_examples=40, deadline=None)
def test_the_histogram_counts_every_element_where_its_error_belongs(moved: list[tuple[int, float]]) -> None:
    x = image()
    y = right(x)
    limits = bounds(x, SPEC)
    for at, power in moved:
        y.reshape(-1)[at] = np.float32(limits.reference.reshape(-1)[at] + 10**power * limits.two_pass.reshape(-1)[at])
    evidence = drawn(x, y)
    expected = [0] * (len(HISTOGRAM_EDGES) + 1)
    for got, want, bound in zip(y.flat, limits.reference.flat, limits.two_pass.flat, strict=True):
        expected[bisect.bisect_left(HISTOGRAM_EDGES, abs(float(got) - want) / bound)] += 1
    assert list(evidence.drawing.histogram) == expected
    outside = sum(evidence.drawing.histogram[HISTOGRAM_EDGES.index(1.0) + 1 :])
    assert (outside > 0) == (evidence.metrics.error_over_bound > 1)


def test_nan_is_counted_in_the_last_bin_and_its_group_drawn() -> None:
    x = image()
    y = right(x)
    y[0, 2, 0, 0] = np.nan
    y[1, 0, 0, 0] += 100.0  # larger than anything but NaN
    drawing = drawn(x, y).drawing
    assert drawing.histogram[-1] == 2
    assert sum(drawing.histogram) == x.size
    assert (drawing.group.sample, drawing.group.group) == (0, 1)
    assert math.isnan(drawing.group.actual[0])


def test_where_nothing_can_be_said_nothing_is_counted() -> None:
    x = np.full((1, 4, 2, 3), 3e38, np.float32)  # its square is infinite in float32
    evidence = drawn(x, np.zeros_like(x))
    assert sum(evidence.drawing.histogram) == 0


def test_of_families_in_slots_only_the_gravest_is_drawn_with_its_own_slot() -> None:
    x = image(2, (2, 4, 30))
    y = right(x)
    y[1, 0, 3] += 0.01
    y[1, 3, 3] += 0.02
    evidence = judge_arrays(x, y, SPEC, case="probe", hand=["a", "b", "c", "a"])
    assert [(e.case, e.status) for e in evidence] == [
        ("probe a", Status.FAIL), ("probe b", Status.PASS), ("probe c", Status.FAIL),
    ]  # fmt: skip
    [one] = [e for e in evidence if e.drawing]
    assert one.case == "probe a"
    assert (one.drawing.group.sample, one.drawing.group.group) == (1, 1)
    assert sum(one.drawing.histogram) == 2 * 60  # the two slots of family a


def test_however_many_cases_come_one_drawing_is_kept() -> None:
    held: list[Evidence] = []
    x = image()
    for case in range(5):
        y = right(x)
        y[0, 0, 0, 0] += 0.1 if case == 2 else 0.0
        gather(held, judge_arrays(x, y, SPEC, case=str(case)))
    assert [e.case for e in held] == ["0", "1", "2", "3", "4"]
    assert [e.case for e in held if e.drawing] == ["2"]


def group() -> WorstGroup:
    return WorstGroup(0, 0, (0,), (1.0,), (1.0,), (1.0,), (1.0,))


def test_a_runtime_keeps_the_groups_of_its_worst_sites_only() -> None:
    def site(i: int, status: Status, size: float) -> SiteVerdict:
        return SiteVerdict(str(i), "r", status, "c", Metrics(size, 0, 0, 1, 0), histogram=(1,), group=group())

    verdicts = [site(i, Status.FAIL, 2.0 + i) for i in range(30)] + [
        site(30 + i, Status.PASS, 0.1 * i) for i in range(5)
    ]
    kept = keep_few(verdicts)
    assert [v.site for v in kept] == [v.site for v in verdicts]
    assert [v.site for v in kept if v.group] == [*(str(29 - i) for i in reversed(range(GROUPS))), "34"]
    assert all(v.histogram for v in kept)


def test_a_comparison_draws_its_worst_held_site() -> None:
    [site] = compare(alone(native()), alone(native())).sites
    assert site.group is not None
    assert len(site.histogram) == len(HISTOGRAM_EDGES) + 1
    size = max(abs(a - e) / b for e, a, b in zip(site.group.expected, site.group.actual, site.group.bound, strict=True))
    assert site.metrics is not None
    assert size == pytest.approx(site.metrics.error_over_bound, rel=0.02)  # rounded for the file


def test_the_environment_says_what_a_difference_may_come_from_and_names_no_machine() -> None:
    import platform

    told = compare(alone(native()), alone(native())).environment
    assert {"python", "cpu", "numpy", "onnx"} <= told.keys()
    assert told["cpu"].startswith(platform.machine())
    assert platform.node() not in [*told.values(), *told["cpu"].split()]
    assert not any("/" in value for value in told.values())
