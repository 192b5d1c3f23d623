"""The checks of the GPU benchmark accept a right library and catch every seeded fault."""

import itertools
from collections.abc import Iterator
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest

from gn_deploy.decision import Rejected
from gn_deploy.plugin.binding import ACTIVATIONS, VARIANTS, CProblem, Library, struct
from gn_deploy.plugin.problem import DEVICES, Problem
from gn_deploy.plugin.select import select
from scripts.gpu import checks, sanitized
from scripts.gpu.cases import CASES
from scripts.gpu.memory import HostMemory
from scripts.gpu.sample import FLOATS, LARGE, MANY, ODD, PLAIN, WIDE, Check, sample
from tests.scripts.naive import naive

SMALL = Check((2, 12, 5, 5), 3)
FAULTS = {  # seeded -> the check it is caught with, and the words
    "epsilon": (replace(SMALL, data="small"), "times its bound off"),
    "random": (SMALL, "y of run 2 has other bits than that of run 1"),
    "counters": (SMALL, "counters are not zero after run 1"),
    "overrun": (SMALL, "y: written beyond its ends in run 1"),
    "input": (SMALL, "x was written to"),
    "sum": (replace(SMALL, residual=True, sum=True), "sum is not x + residual rounded to its type"),
    "padding": (replace(SMALL, layout="nhwc", padding=4), "y: padding is not zero in run 1"),
    "refuse": (SMALL, "too many resources requested"),
}


@pytest.fixture(scope="module")
def library() -> Library:
    return Library(naive())


def run(library: Library, check: Check, variant: str = "block") -> dict[str, object]:
    return checks.run(check, variant, library, library.query_device(), HostMemory())


def quick() -> Iterator[Check]:
    """Everything that is not only another size, at the size of SMALL."""
    for check in sample(large=False):
        if check.shape == PLAIN.shape and check.groups == PLAIN.groups:
            yield replace(check, shape=SMALL.shape, groups=SMALL.groups)
        elif check.shape not in (WIDE.shape, MANY.shape) and check.elements < 10_000:
            yield check


def test_a_right_library_passes(library: Library) -> None:
    ran = list(dict.fromkeys(quick()))
    assert len(ran) > 80
    for check in ran:
        found = run(library, check)
        assert found["faults"] == [], check.key
        assert found["ran"]


@pytest.mark.parametrize("kind", FAULTS)
def test_a_seeded_fault_is_caught(library: Library, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check, words = FAULTS[kind]
    monkeypatch.setenv("GN_FAULT", f"{kind}:split")
    told = run(library, check, "split")["faults"]
    assert any(words in fault for fault in told), told
    assert run(library, check, "block")["faults"] == []


def test_a_variant_that_is_not_suited_is_no_fault(library: Library) -> None:
    assert run(library, replace(SMALL, layout="nhwc"), "warp") == {"ran": False, "reason": "warp is not for this"}


def test_the_sample_visits_everything() -> None:
    found = sample()
    assert len(set(found)) == len(found) == len({check.key for check in found})
    visited = {(c.dtype, c.layout) for c in found}
    assert visited == {(dtype, layout) for dtype in FLOATS for layout in ("nchw", "nhwc")}
    assert {c.activation for c in found} == set(ACTIVATIONS)
    assert {c.data for c in found} == {"normal", "offset", "small", "spike", "constant", "nan"}
    assert {c.y_dtype for c in found} >= {"int8", "float8_e4m3fn"}
    assert {(c.affine, c.modulation) for c in found} >= {(0, 0), (1, 0), (2, 1), (0, 2), (0, 3), (3, 3)}
    assert {c.parameter_dtype for c in found} == set(FLOATS)
    assert {c.shift for c in found} == {0, 1, 3}
    assert {c.padding for c in found} == {0, 2, 3, 8}
    assert any(not c.elements for c in found)
    assert any(7 in c.shape for c in found)
    assert {len(c.shape) for c in found} == {3, 4, 5}
    assert set(LARGE) <= set(found)
    assert found[-1] in LARGE  # what takes longest comes last


def test_on_a_large_gpu_every_variant_is_checked_in_every_tile() -> None:
    """But for teams with full registers, whose units are too large for the oracle: those are in the timed layers."""
    tiles: dict[tuple[str, str], set[int]] = {}
    loops: set[str] = set()
    for check, variant in itertools.product(sample(), VARIANTS):
        found = select(Problem(**check.problem()), DEVICES["H200"], variant)
        if isinstance(found, Rejected) or not found.choice.blocks:
            continue
        choice = found.choice
        tiles.setdefault((variant, check.layout), set()).add(choice.vectors)
        if variant == "team" and choice.units > choice.blocks // choice.slices:
            loops.add(check.layout)
    assert tiles["warp", "nchw"] == {2, 4, 8}
    for layout in ("nchw", "nhwc"):
        assert tiles["block", layout] == tiles["cluster", layout] == {2, 5, 10}
        assert tiles["team", layout] >= {2}
        assert ("split", layout) in tiles
    timed = set()
    for case in CASES:
        if found := select(Problem(**case.problem()), DEVICES["H200"], "team"):
            timed.add((case.layout, found.choice.vectors))
            if found.choice.units > found.choice.blocks // found.choice.slices:
                loops.add(case.layout)
    assert loops == {"nchw", "nhwc"}  # a team that goes from unit to unit
    assert timed >= {("nchw", 10), ("nchw", 5), ("nhwc", 10), ("nhwc", 5)}


def test_keys_name_what_is_unusual() -> None:
    assert PLAIN.key == "2x32x16x16/8 float16 nchw silu"
    unusual = replace(PLAIN, output_dtype="int8", residual=True, modulation=3, shift=1, parameter_dtype="float16")
    assert unusual.key == ("2x32x16x16/8 float16 nchw silu to int8 parameters float16 residual modulation=3 shift=1")
    assert ODD[4].key == "2x24x3x5x7/4 float16 nchw silu"


def test_problems_are_what_the_check_says() -> None:
    problem = struct(CProblem, Check((2, 30, 15, 15), 6, "bfloat16", "nhwc", padding=2).problem())
    assert (problem.pitch, problem.output_pitch, problem.positions, problem.dtype) == (32, 32, 225, 2)


@pytest.mark.parametrize(("output", "steps"), [("int8", 1), ("float8_e4m3fn", 1)])
def test_one_step_of_an_8_bit_output_is_seen(output: str, steps: int) -> None:
    check = replace(SMALL, output_dtype=output, activation="none")
    oracle = checks.expected(check, checks.draw(check))
    assert oracle is not None
    exact = oracle.reference / check.output_scale
    if output == "int8":
        y = np.clip(np.rint(exact), -128, 127).astype(np.int8)
    else:
        y = np.clip(exact, -448, 448).astype(ml_dtypes.float8_e4m3fn)
    assert checks.judge(check, y, oracle) <= 1
    moved = y.copy()
    moved.reshape(-1).view(np.int8)[np.abs(exact).argmin()] += 16 * steps  # near zero e4m3's steps are fine
    assert checks.judge(check, moved, oracle) > 1
    nan = y.astype(np.float32)
    nan.reshape(-1)[0] = np.nan
    assert checks.judge(check, nan, oracle) == np.inf


def test_shifted_tensors_start_off_alignment() -> None:
    memory = HostMemory()
    array = np.arange(6, dtype=np.float16).reshape(2, 3)
    place = checks._Place.of(array, replace(SMALL, shift=3, padding=2), rows=True)
    place.address = memory.put(place.image)
    assert place.address % 256 == 0
    assert place.start % 16 == 6
    image = memory.get(place.address, place.image.size)
    assert (place.tensor(image) == array).all()
    assert np.isnan(place._padded(image)[:, 3:]).all()


def test_the_sanitizers_sample_runs_without_torch(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    device = library.query_device()
    assert sanitized.run(library, device, HostMemory(), ["block"]) == []
    monkeypatch.setenv("GN_FAULT", "counters:team")
    faults = sanitized.run(library, device, HostMemory(), ["team"])
    assert faults
    assert all(fault.startswith("team: ") for fault in faults)
