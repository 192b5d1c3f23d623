"""What the kernels promise besides numbers: the same bits always, x read once, wide loads, offsets beyond 32 bits."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gn_deploy.decision import Rejected
from gn_deploy.errors import InputError
from scripts.gpu.inputs import Inputs
from tests.plugins.cases import DEVICES, TYPES, Case, Run, draw, emulator, run
from tests.plugins.contract import check
from tests.plugins.drawing import DTYPES
from tests.plugins.emulated import SCHEDULES
from tests.plugins.far import check_far_apart, launched, reserved

# Each variant where it has something to exchange: clusters of several blocks, teams that walk over several units.
EXCHANGING = [
    Case(5, 3, 5, 49, variant="warp", data="nan"),
    Case(3, 2, 8, 490, variant="block"),
    Case(2, 2, 8, 1030, dtype="float32", variant="cluster"),
    Case(3, 3, 4, 1029, dtype="bfloat16", variant="team", device="blackwell"),
    Case(1, 2, 8, 9001, variant="team", device="blackwell"),  # 6 of 10 vectors are copied ahead
    Case(2, 2, 8, 1030, dtype="float32", variant="team", device="many"),
    Case(2, 1, 8, 3000, variant="split"),
    Case(3, 4, 10, 77, "nhwc", variant="block"),
    Case(2, 4, 10, 400, "nhwc", dtype="float32", variant="cluster", slab=20),
    Case(3, 40, 3, 100, "nhwc", dtype="bfloat16", variant="team", device="blackwell", slab=48),
    Case(2, 4, 10, 400, "nhwc", variant="team", device="many"),
    Case(2, 2, 20, 700, "nhwc", variant="split"),
    # ... and of rows that are wider than they need to be, up to the most groups that a slab may have
    Case(2, 16, 4, 33, "nhwc", variant="block", slab=64),
    Case(2, 32, 2, 100, "nhwc", dtype="float32", variant="cluster", slab=64),
    Case(2, 64, 3, 60, "nhwc", dtype="bfloat16", variant="team", device="blackwell", slab=96),
    Case(2, 32, 8, 100, "nhwc", variant="split", slab=256),
]


def ran(case: Case, inputs: Inputs | None = None, *args: Any, **options: Any) -> Run:
    inputs = inputs or draw(case)
    result = run(case, inputs, *args, **options)
    assert isinstance(result, Run), result
    check(case, inputs, result)
    return result


@pytest.mark.parametrize("plain", EXCHANGING, ids=str)
def test_every_schedule_and_every_launch_gives_the_same_bits(plain: Case) -> None:
    case = replace(plain, activation="silu", residual=True, sum=True, modulation=3)
    inputs = draw(case)
    first = ran(case, inputs)
    for schedule in SCHEDULES:
        for seed in range(4 if schedule in ("random", "skewed") else 1):
            again = ran(case, inputs, schedule, seed)
            assert again.y.tobytes() == first.y.tobytes()
            assert again.sum is not None
            assert first.sum is not None
            assert again.sum.tobytes() == first.sum.tobytes()
    assert ran(case, inputs, launches=3).y.tobytes() == first.y.tobytes()


@pytest.mark.parametrize("plain", EXCHANGING, ids=str)
def test_a_sample_has_the_same_bits_alone_and_in_a_batch(plain: Case) -> None:
    """Where both are cut into the same slices: the choice may depend on how many samples there are."""
    case = replace(plain, samples=1, data="normal")
    together = replace(case, samples=2)
    inputs = draw(together)
    batch = ran(together, inputs)
    same = 0
    for i in range(2):
        alone = run(case, Inputs(*(None if a is None else a[i : i + 1] if a.ndim > 1 else a for a in inputs)))
        assert isinstance(alone, Run)
        if (alone.choice.slices, alone.choice.threads) == (batch.choice.slices, batch.choice.threads):
            assert alone.y.tobytes() == batch.y[i : i + 1].tobytes()
            same += 1
    assert same == 2 or plain.variant in ("warp", "team", "split")


@pytest.mark.parametrize("plain", EXCHANGING, ids=str)
def test_each_tensor_goes_through_memory_once(plain: Case) -> None:
    for parts in ({}, {"residual": True}, {"residual": True, "sum": True}):
        case = replace(plain, data="normal", **parts)
        result = ran(case)
        size = case.samples * case.channels * case.positions * np.dtype(TYPES[case.dtype]).itemsize
        times = 2 if case.variant == "split" else 1
        moved = result.moved
        if case.layout == "nchw" or case.channels % 8 == 0:
            assert moved["x"].loaded == (size if case.sum else times * size)  # split reads the sum again, where one is
            assert moved["y"].stored == size
            if case.residual:
                assert moved["residual"].loaded == (size if case.sum else times * size)
            if case.sum:
                assert moved["sum"].stored == size
                assert moved["sum"].loaded == (times - 1) * size
        assert moved["y"].loaded == 0
        parameters = sum(moved[name].loaded for name in ("scale", "bias"))
        tables = result.choice.units * result.choice.slices  # one for each block and each of its units
        assert parameters <= 8 * result.choice.slab * tables


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "shape", [(2, 8, 8, 64), (1, 4, 32, 49), (2, 2, 5, 49), (1, 3, 7, 333)], ids=lambda s: "x".join(map(str, s))
)
@pytest.mark.parametrize("skew", [0, 3])
def test_vectors_of_16_bytes_whatever_the_size_of_the_image(dtype: str, shape: tuple[int, ...], skew: int) -> None:
    """All of x but less than two vectors of a unit, when the tensors begin at the same distance from 16 bytes."""
    case = Case(*shape, dtype=dtype, residual=True, sum=True, skew=(skew,) * 4, activation="silu")
    moved = ran(case).moved
    size = np.dtype(TYPES[dtype]).itemsize
    vectors = case.samples * case.groups * (case.group_channels * case.positions * size // 16 - 1)
    for name in ("x", "residual"):
        assert moved[name].wide_loads >= vectors
        assert moved[name].loads - moved[name].wide_loads <= case.samples * case.groups * 2 * (16 // size - 1)
    for name in ("sum", "y"):
        assert moved[name].wide_stores >= vectors


@pytest.mark.parametrize("channels", [32, 24, 40])
@pytest.mark.parametrize("pad", [0, 8])
def test_rows_of_whole_vectors_are_moved_by_16_bytes(channels: int, pad: int) -> None:
    moved = ran(Case(2, 4, channels // 4, 49, "nhwc", residual=True, sum=True, pad=pad, activation="silu")).moved
    for name in ("x", "residual"):
        assert moved[name].loads == moved[name].wide_loads == 2 * 49 * channels // 8
    assert moved["y"].wide_stores == moved["sum"].wide_stores == 2 * 49 * channels // 8  # the padding by elements


@pytest.mark.parametrize("variant", ["warp", "block", "cluster", "team", "split"])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("activation", ["relu", "silu"])
def test_a_bad_value_makes_exactly_its_group_nan(variant: str, layout: str, bad: float, activation: str) -> None:
    if (layout, variant) == ("nhwc", "warp"):
        assert isinstance(run(Case(1, 1, 1, 1, layout, variant=variant), draw(Case(1, 1, 1, 1))), Rejected)
        return
    case = Case(2, 6, 3, 77, layout, dtype="float32", variant=variant, activation=activation)
    inputs = draw(case)
    inputs.x[1, 7, 40] = bad  # group 2
    y = np.asarray(ran(case, inputs).y)
    nan = np.isnan(y).reshape(2, 6, -1)
    assert nan[1, 2].all()
    assert nan.sum() == nan[1, 2].size


@pytest.mark.parametrize("plain", EXCHANGING, ids=str)
@pytest.mark.parametrize("place", ["x", "residual"])
def test_the_sum_may_take_the_place_of_an_input(plain: Case, place: str) -> None:
    case = replace(plain, residual=True, sum=True, data="normal")
    inputs = draw(case)
    over = ran(replace(case, place=place), inputs, "random")
    assert over.y.tobytes() == ran(case, inputs).y.tobytes()


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("empty", ["samples", "channels", "positions"])
def test_nothing_is_launched_for_nothing(layout: str, empty: str) -> None:
    case = replace(Case(2, 2, 4, 9, layout), **({"group_channels": 0} if empty == "channels" else {empty: 0}))
    kernels, gpu = emulator()
    selected = kernels.select(case.problem, DEVICES[case.device])
    assert not isinstance(selected, Rejected)
    with gpu.buffers():
        kernels.enqueue(case.problem, selected.choice, {})
    assert gpu.moved["total"].launches == 0


NAMES = ("x", "residual", "scale", "bias", "modulation_scale", "modulation_shift", "y", "sum")


@pytest.mark.parametrize("wrong", NAMES)
def test_a_pointer_that_is_null_or_unaligned_is_refused(wrong: str) -> None:
    kernels, _ = emulator()
    problem = Case(2, 2, 4, 9, residual=True, sum=True, modulation=3).problem
    selected = kernels.select(problem, DEVICES["hopper"])
    assert not isinstance(selected, Rejected)
    for address in (None, 4097):
        with pytest.raises(InputError, match=wrong):
            kernels.enqueue(problem, selected.choice, {**dict.fromkeys(NAMES, 4096), wrong: address})


@pytest.mark.parametrize("variant", ["block", "cluster", "team", "split"])
def test_rows_far_apart_need_offsets_of_64_bits(variant: str) -> None:
    check_far_apart(variant)


@pytest.mark.parametrize(
    ("layout", "variant"),
    [("nchw", "warp"), ("nchw", "block"), ("nchw", "split"), ("nhwc", "block"), ("nhwc", "split")],
)
def test_the_last_units_of_a_large_batch_need_offsets_of_64_bits(layout: str, variant: str) -> None:
    """Only the last blocks are run: nobody touches the samples before them. Offsets pass 2^32 elements."""
    small = Case(2, 1, 16, 49 if variant == "warp" else 1000, layout, variant=variant, activation="relu")
    elements = 16 * small.positions
    case = replace(small, samples=2**32 // elements + 3)
    inputs = draw(small)
    size = case.samples * elements * 2
    with reserved(size) as x, reserved(size) as y, reserved(1 << 30) as workspace:
        values = inputs.x if layout == "nchw" else inputs.x.transpose(0, 2, 1)
        x.view(np.float16)[-2 * elements :] = values.ravel()
        buffers = {"x": x, "y": y, "workspace": workspace, "scale": inputs.scale, "bias": inputs.bias}
        result = launched(case, buffers, last=2)
        assert result is not None
        choice, _ = result
        tail = y.view(np.float16)[-2 * elements :]
        got = tail.reshape(2, 16, -1) if layout == "nchw" else tail.reshape(2, -1, 16).transpose(0, 2, 1)
        check(small, inputs, Run(np.array(got), None, got[:0], choice, variant, ""))
