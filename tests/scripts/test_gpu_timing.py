"""Rings of buffers, turns, medians and the budget of the GPU benchmark."""

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.gpu.budget import Budget
from scripts.gpu.cases import CASES, Case
from scripts.gpu.driver import THREADS, VECTORS_PER_BLOCK, copy_grid
from scripts.gpu.operands import sized_ring, slot_bytes
from scripts.gpu.timing import MOST_BUFFERS, Ring, drift, ring, rounds, spread, turns

L2 = 50 << 20


def test_a_ring_covers_the_cache_several_times() -> None:
    assert ring(10 << 20, L2, 80 << 30, 20 << 20) == Ring(20, 20, 4.0)
    assert ring(20 << 20, L2, 80 << 30, 40 << 20) == Ring(10, 20, 4.0)  # two laps: the recording's start is then little
    huge = ring(1 << 30, L2, 80 << 30, 3 << 30)
    assert (huge.buffers, huge.launches) == (4, 4)
    tiny = ring(4096, L2, 80 << 30, 8192)
    assert tiny.buffers == MOST_BUFFERS
    assert tiny.over_cache < 1  # and it says so


@given(st.integers(1, 1 << 31), st.integers(1 << 20, 1 << 27), st.integers(1 << 30, 1 << 37))
def test_a_ring_fits_the_memory(moved: int, l2: int, free: int) -> None:
    found = ring(moved, l2, free, 2 * moved)
    assert found.buffers == 1 or found.buffers * 2 * moved <= free / 2
    assert found.launches % found.buffers == 0
    assert found.launches >= found.buffers >= 1
    assert found.over_cache == pytest.approx(found.buffers * moved / l2)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.key)
def test_every_case_fits_a_gpu_of_16_gigabytes_and_is_beyond_the_cache(case: Case) -> None:
    found = sized_ring(case, L2, 15 << 30)
    inputs, outputs = slot_bytes(case)
    assert inputs >= case.moved_bytes // 2 <= outputs  # what a copy of the same bytes reads and writes
    assert found.buffers * (inputs + outputs) < 8 << 30
    assert found.over_cache > (1 if case.tensor_bytes > 1 << 20 else 0)
    assert found.buffers >= 2


@given(st.sets(st.sampled_from("abcdefghi")).map(list), st.integers(0, 40))
def test_everybody_has_a_turn_in_every_round(names: list[str], count: int) -> None:
    order = turns(names, count)
    assert len(order) == count
    assert all(sorted(one) == sorted(names) for one in order)


def test_nobody_always_follows_the_same_one() -> None:
    names = ["a", "b", "c", "d", "e"]
    order = turns(names, 20)
    before = {name: {one[one.index(name) - 1] for one in order if one.index(name)} for name in names}
    assert all(len(found) >= 2 for found in before.values())
    assert all({one.index(name) for one in order} == set(range(5)) for name in names)


def test_rounds() -> None:
    assert [rounds(once, 1.0) for once in (10.0, 0.1, 0.05, 0.001, 0.0)] == [7, 10, 20, 30, 30]


@given(st.lists(st.floats(1e-6, 10), min_size=2, max_size=40))
def test_a_spread_is_the_median_with_quartiles(times: list[float]) -> None:
    found = spread(times)
    assert found.median == pytest.approx(statistics.median(times))
    assert found.low <= found.median <= found.high
    assert min(times) <= found.low
    assert found.high <= max(times)


def test_one_time_is_its_own_spread() -> None:
    assert spread([3.0]) == spread([3.0, 3.0, 3.0])


def test_drift() -> None:
    assert drift([1.0] * 10) == 1.0
    assert drift([1.0] * 5 + [1.2] * 5) == pytest.approx(1.2)
    assert drift([1.0]) == 1.0


def test_a_copy_reaches_every_vector_once() -> None:
    for size in (16, 16 * VECTORS_PER_BLOCK, 16 * VECTORS_PER_BLOCK + 16, 5 << 20):
        blocks, vectors = copy_grid(size)
        assert vectors * 16 == size
        assert (blocks - 1) * VECTORS_PER_BLOCK < vectors <= blocks * VECTORS_PER_BLOCK
        reached = sorted(
            block * VECTORS_PER_BLOCK + part * THREADS + thread
            for block in (0, 1)
            for part in range(4)
            for thread in (0, THREADS - 1)
        )
        assert len(set(reached)) == len(reached)


def test_a_budget_ends() -> None:
    now = [100.0]
    budget = Budget(60.0, clock=lambda: now[0])
    assert (budget.spent, budget.left) == (0.0, 55.0)  # five are kept for the end
    assert budget.allows(55.0)
    assert not budget.allows(55.1)
    assert budget.limit(20.0) == 20.0
    part = budget.until(0.5)
    now[0] += 25
    assert (budget.left, part.left) == (30.0, 5.0)  # counted from the same beginning
    assert budget.limit(45.0) == 30.0
    assert budget.until(0.5, since=20.0).left == 15.0  # half of what there was after 20 seconds, 25 of which are over
    now[0] += 100
    assert (budget.left, part.left) == (0.0, 0.0)
    assert not part.allows(0.1)
