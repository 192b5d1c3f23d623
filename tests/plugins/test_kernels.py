"""The kernels against the float64 oracle, on the emulated GPU: every shape, type, layout, epilogue and variant."""

import random
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gn_deploy.decision import Rejected
from gn_deploy.parity.metrics import measure
from gn_deploy.parity.tolerance import bounds
from gn_deploy.reference import normalize
from scripts.gpu.inputs import SPIKE
from tests.plugins.cases import DEVICES, Case, Run, draw, run
from tests.plugins.contract import check
from tests.plugins.drawing import ACTIVATIONS, DATA, DTYPES, VARIANTS, drawn
from tests.plugins.emulated import SCHEDULES

EACH = [(layout, variant, dtype) for layout in ("nchw", "nhwc") for variant in VARIANTS for dtype in DTYPES]
EACH = [one for one in EACH if one[:2] != ("nhwc", "warp")]


def held(case: Case, schedule: str = "in order", seed: int = 0) -> Run | None:
    """The run of a case, checked; None where its variant is not suited. A failure tells how to repeat it."""
    inputs = draw(case)
    try:
        result = run(case, inputs, schedule, seed)
        if isinstance(result, Rejected):
            return None
        check(case, inputs, result)
    except Exception as error:
        error.add_note(f"{case!r}, {schedule!r}, {seed}")
        raise
    return result


def some(count: int, seed: str, **given: Any) -> list[Case]:
    """So many cases whose variant is suited."""
    found: list[Case] = []
    for number in range(20 * count):
        case = drawn(random.Random(f"{seed} {number}"), **given)
        if held(case, SCHEDULES[number % 4], number) is not None:
            found.append(case)
        if len(found) == count:
            break
    return found


@pytest.mark.parametrize(("layout", "variant", "dtype"), EACH)
def test_shapes_and_epilogues(layout: str, variant: str, dtype: str) -> None:
    found = some(16, "default", layout=layout, variant=variant, dtype=dtype)
    assert len(found) == 16


@pytest.mark.slow
@pytest.mark.parametrize("part", range(20))
def test_thousands_of_cases(part: int) -> None:
    ran: Counter[str] = Counter()
    for number in range(500):
        case = drawn(random.Random(f"slow {part} {number}"))
        result = held(case, SCHEDULES[number % 4], number)
        ran["not suited" if result is None else f"{case.layout} {result.variant}"] += 1
    assert min(ran.values()) > 10
    assert len(ran) == 10


@pytest.mark.parametrize("data", DATA)
def test_hard_data(data: str) -> None:
    for layout, variant, dtype in EACH:
        some(1, f"data {data}", data=data, layout=layout, variant=variant, dtype=dtype)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("output", ["", "int8", "float8_e4m3fn"])
def test_epilogues(activation: str, output: str) -> None:
    for number, layout in enumerate(("nchw", "nhwc") * 4):
        assert some(1, f"{number}", activation=activation, output_dtype=output, layout=layout, data="normal")


@pytest.mark.parametrize("device", DEVICES)
def test_what_is_selected_covers_the_problem(device: str) -> None:
    """Along a growing unit, so that each variant that the device has is selected somewhere."""
    chosen = set()
    for layout in ("nchw", "nhwc"):
        for positions in (5, 64, 300, 1024, 3000, 9000, 30000, 70000):
            for groups in (1, 6):
                if positions * groups < 100_000:
                    case = Case(1, groups, 4, positions, layout, device=device, activation="silu")
                    result = held(case)
                    assert result is not None
                    chosen.add(result.variant)
    # a GPU of two to four multiprocessors has nothing to share among a team
    assert chosen >= {"warp", "block"}
    assert chosen & {"cluster", "split"}


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Shapes without a pattern, and everything else as ``drawn``."""
    layout = draw(st.sampled_from(("nchw", "nhwc")))
    shape = [draw(st.integers(1, most)) for most in (3, 9, 40, 400)]
    while np.prod(shape) > 30_000:
        shape[int(np.argmax(shape))] //= 2
    names = ("samples", "groups", "group_channels", "positions")
    return drawn(random.Random(draw(st.integers(0, 2**32))), layout=layout, **dict(zip(names, shape, strict=True)))


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cases(), st.sampled_from(SCHEDULES), st.integers(0, 1000))
def test_any_case(case: Case, schedule: str, seed: int) -> None:
    held(case, schedule, seed)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_the_parity_tolerance_holds_as_well(layout: str, dtype: str) -> None:
    """As a user of gn_deploy judges any runtime; the contract above is tighter where the mean is large."""
    for number in range(12):
        case = drawn(random.Random(f"parity {number}"), layout=layout, dtype=dtype, output_dtype="", variant="")
        inputs = draw(case)
        result = run(case, inputs)
        assert isinstance(result, Run)
        told = bounds(
            inputs.total,
            case.spec,
            inputs.scale,
            inputs.bias,
            modulation_scale=inputs.modulation_scale,
            modulation_shift=inputs.modulation_shift,
        )
        assert measure(result.y, told.reference, told.two_pass, dtype=dtype).error_over_bound <= 1, repr(case)


OUTLIERS = {
    "first": [(0, 0, 1)],
    "second": [(1, 0, 1)],
    "third": [(2, 0, 1)],
    "two of three": [(0, 0, 1), (2, 0, 1)],
    "apart": [(0, 0, 1), (-1, -1, -1)],
}
"""Of each group: channel, position and sign; channels count on into the next position where a group has only one."""


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("at", OUTLIERS)
def test_an_outlier_costs_the_others_of_its_group_nothing(dtype: str, at: str) -> None:
    """Where sums are taken of many; the bias cancels what the others have become, so that errors show."""
    for shape in ((2, 2, 16, 320), (1, 4, 1, 1000)):
        plain = Case(*shape, "nhwc", dtype)
        inputs = draw(plain)
        groups = inputs.x.reshape(plain.samples, plain.groups, plain.group_channels, plain.positions)
        for channel, position, sign in OUTLIERS[at]:
            further, channel = divmod(channel, plain.group_channels) if channel > 0 else (0, channel)
            groups[:, :, channel, position + further] = sign * SPIKE[dtype]
        others = np.median(normalize(inputs.x, plain.spec).z[0].reshape(plain.channels, -1), axis=1)
        inputs = inputs._replace(bias=(-others * inputs.scale).astype(np.float32))
        told = bounds(inputs.x, plain.spec, inputs.scale, inputs.bias)
        for variant in ("block", "cluster", "team", "split"):
            result = run(replace(plain, variant=variant), inputs)
            assert isinstance(result, Run)
            found = measure(result.y, told.reference, told.two_pass, dtype=dtype).error_over_bound
            assert found <= 1, f"{shape}, {variant}: {found}"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("variant", ["block", "cluster", "team", "split"])
def test_a_constant_group_has_exactly_its_value_for_mean(dtype: str, variant: str) -> None:
    """With all digits of the format, in a block that is almost full: a sum that needs more digits than float32 has.

    One unit in the last place of the mean would be 0.04 in y.
    """
    for channels, positions in ((7, 4795), (31, 1145)):
        case = Case(1, 1, channels, positions, "nhwc", dtype, variant=variant)
        inputs = draw(case)
        inputs.x[:] = 2047 if dtype == "float16" else 255
        result = run(case, inputs)
        assert isinstance(result, Run)
        assert (result.y == inputs.bias.astype(result.y.dtype)[:, None]).all()
