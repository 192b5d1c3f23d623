"""Choices that are timed: consistent, right on the emulated GPU, all that is ever selected, expected as select does."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from gn_deploy.plugin import select
from gn_deploy.plugin.binding import VARIANTS, CChoice, struct
from gn_deploy.plugin.problem import DEVICES, Device, Problem, device
from gn_deploy.plugin.select import Selection
from gn_deploy.plugin.units import slabs_of
from scripts.gpu.cases import CASES
from scripts.gpu.choices import broken, choices, key, name, of_key
from scripts.gpu.model import SELECTING, current, parts, selecting
from scripts.gpu.sweep import MOST, ranked
from tests.plugins import cases
from tests.plugins.contract import check
from tests.plugins.test_select import holds

H200 = DEVICES["H200"]
SOME = [CASES[i] for i in (0, 5, 6, 33)]  # both layouts, units that only a split can take, and those that a warp can
PROBLEMS = [Problem(**case.problem()) for case in SOME]


@pytest.mark.parametrize("gpu", ["H200", "T4", "4090"])
def test_choices_are_consistent(gpu: str) -> None:
    """As tests/plugins/test_select.py demands it of those that are selected."""
    d, seen = device(gpu), set()
    for p in PROBLEMS:
        found = choices(p, d)
        assert len({key(c) for c in found}) == len(found)
        for c in found[:: 1 + len(found) // 150]:
            holds(p, d, Selection(c, {}, ""))
            assert of_key(p, d, key(c)) == c
        seen |= {c.variant for c in found}
    assert seen == set(VARIANTS) - ({"cluster"} if d.cluster_blocks == 1 else set())


def test_whatever_could_be_selected_is_among_them() -> None:
    for p in PROBLEMS:
        known = {key(c): c for c in choices(p, H200)}
        for variant, slab in itertools.product((None, *VARIANTS), slabs_of(p)):
            found = select.select(p, H200, variant, (slab,))
            if isinstance(found, Selection):
                assert known[key(found.choice)] == found.choice


def test_tiles_ahead_and_widths_vary() -> None:
    p = Problem(**CASES[5].problem())
    found = choices(p, H200)
    assert {c.slab for c in found} == set(slabs_of(p))
    teams = [c for c in found if c.variant == "team" and c.units > c.blocks // c.slices]
    assert {c.vectors for c in teams} == {2, 5, 10}
    assert {c.ahead for c in teams if c.vectors == 10} >= {0, 5, 10}
    assert {-(-c.blocks // 132) for c in teams} == {1, 2, 3, 4}


def test_what_breaks_a_kernel_is_seen() -> None:
    p = PROBLEMS[0]
    found = {c.variant: c for c in choices(p, H200)}
    for variant, changes in {
        "block": [{"threads": 96}, {"threads": 500}, {"blocks": 63}, {"shared": 1664}, {"vectors": 3}],
        "cluster": [{"slices": 16, "blocks": 16 * 64}, {"blocks": 64}],
        "team": [{"counters": 31}, {"ahead": 11}, {"blocks": 1 << 20}, {"slices": 1}, {"units": 1}],
        "split": [{"workspace": 0}, {"slices": 5000}, {"vectors": 10}, {"ahead": 1}],
    }.items():
        assert not broken(p, H200, found[variant])
        for change in changes:
            assert broken(p, H200, replace(found[variant], **change)), (variant, change)


def test_a_dozen_give_the_right_numbers() -> None:
    """On the emulated GPU, every variant and both layouts."""
    ran = set()
    for layout in ("nchw", "nhwc"):
        case = cases.Case(6, 4, 12, 150, layout, activation="silu", residual=True)
        p, d = Problem(**case.problem), Device(**cases.DEVICES[case.device])
        given, found = cases.draw(case), choices(p, d)
        for variant in VARIANTS:
            mine = [c for c in found if c.variant == variant]
            mine.sort(key=lambda c: (c.ahead != c.vectors // 2, c.blocks, key(c)))  # unusual ones first
            for c in mine[:: max(1, len(mine) // 2)][:2]:
                result = cases.run(case, given, "random", 1, how=struct(CChoice, c))
                assert isinstance(result, cases.Run)
                check(case, given, result)
                ran.add((layout, *key(c)))
    assert len(ran) >= 12
    assert {one[:2] for one in ran} >= set(itertools.product(["nchw", "nhwc"], ["block", "cluster", "team", "split"]))
    assert any(ahead for *_, ahead in ran)


def test_expected_times_are_those_of_select() -> None:
    now = current()
    for p, variant in itertools.product(PROBLEMS, VARIANTS):
        for slab in slabs_of(p):
            found = select.select(p, H200, variant, (slab,))
            if isinstance(found, Selection):
                cost = found.candidates[variant].cost
                part = parts(p, H200, key(found.choice))
                rate = now.cached_rate if part.cached else now.memory_rate
                # select rounds down, and a split's last chunk is a little smaller than it counts with
                assert part.nanoseconds(now) * rate == pytest.approx(cost, rel=0.06)


def test_other_constants_choose_otherwise_and_are_put_back() -> None:
    before, p = current(), PROBLEMS[0]
    assert select.select(p, H200).choice.variant == "cluster"

    def fails() -> None:
        assert select.select(p, H200).choice.variant != "cluster"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), selecting(replace(before, cluster_ns=1e6)):
        fails()
    assert current() == before
    assert select.select(p, H200).choice.variant == "cluster"
    assert {n.upper() for n in SELECTING} <= set(vars(select))


def test_the_selected_and_the_promising_come_first() -> None:
    for p in PROBLEMS:
        found = ranked(p, H200)
        assert key(found[0]) == key(select.select(p, H200).choice)
        assert len({key(c) for c in found}) == len(found) <= MOST
        everyone = {c.variant for c in choices(p, H200)}
        assert {c.variant for c in found[:6]} == everyone
        assert {c.variant for c in ranked(p, H200, only=["split"])} == {"split"}
        times = np.array([parts(p, H200, key(c)).nanoseconds(current()) for c in found if c.variant == "team"])
        assert (np.diff(times)[2:] >= 0).all()
        assert len({name(key(c)) for c in found}) == len(found)
