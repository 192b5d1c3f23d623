"""The bound: no false alarm on right implementations, every seeded fault seen, its formula by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gn_deploy.faults import FAULTS, Kind, applies
from gn_deploy.parity.cases import FAMILIES, deal
from gn_deploy.parity.metrics import classify, measure
from gn_deploy.parity.status import Status
from gn_deploy.parity.tolerance import LANES, LIPSCHITZ, bound, bounds
from gn_deploy.reference import activate
from gn_deploy.spec import Activation, GroupNormSpec
from tests.parity.implementations import RIGHT

SHAPES = [((2, 8, 4, 4), 4), ((1, 6, 5), 3), ((2, 32, 16, 16), 4), ((1, 8, 64, 64), 2), ((3, 8), 2), ((2, 8, 7, 7), 8)]


def _parameters(channels: int, dtype: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal(channels).astype(dtype), rng.standard_normal(channels).astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("name", RIGHT)
def test_no_false_alarm(name: str, dtype: str) -> None:
    for shape, groups in SHAPES:
        spec = GroupNormSpec(groups, shape[1], dtype=dtype)
        scale, bias = _parameters(shape[1], dtype)
        for x in deal(shape, spec):
            limits = bounds(x, spec, scale, bias)
            y = RIGHT[name](x, spec, scale, bias)
            got = measure(y, limits.reference, limits.two_pass, dtype=dtype, spec=spec)
            assert got.error_over_bound <= 1, (shape, got)
            assert classify(y, limits, dtype=dtype) is Status.PASS


@settings(deadline=None, max_examples=30)
@given(
    groups=st.integers(1, 5),
    per_group=st.integers(1, 4),
    size=st.integers(1, 40),
    batch=st.integers(1, 3),
    epsilon=st.sampled_from([1e-3, 1e-5, 1e-6, 1e-12]),
    name=st.sampled_from(list(RIGHT)),
    gain=st.sampled_from([1e-3, 1.0, 50.0]),
    seed=st.integers(0, 10_000),
)
def test_no_false_alarm_on_any_shape(
    groups: int, per_group: int, size: int, batch: int, epsilon: float, name: str, gain: float, seed: int
) -> None:
    if per_group * size == 1 and name == "torch":
        return  # torch refuses one value per group
    spec = GroupNormSpec(groups, groups * per_group, epsilon)
    scale, bias = (gain * v for v in _parameters(spec.num_channels, "float32", seed))
    for x in deal((batch, spec.num_channels, size), spec, seed):
        limits = bounds(x, spec, scale.astype(np.float32), bias.astype(np.float32))
        y = RIGHT[name](x, spec, scale.astype(np.float32), bias.astype(np.float32))
        assert measure(y, limits.reference, limits.two_pass, dtype="float32").error_over_bound <= 1


@settings(deadline=None, max_examples=30)
@given(
    shape=st.tuples(st.integers(1, 2), st.integers(1, 4), st.integers(1, 3), st.integers(1, 60)),
    epsilon=st.floats(1e-12, 1e-2),
    lanes=st.integers(1, 100),
    seed=st.integers(0, 10_000),
)
def test_any_order_of_the_sums_is_inside(
    shape: tuple[int, int, int, int], epsilon: float, lanes: int, seed: int
) -> None:
    """The elements in a random order, in so many running sums; fewer than a register holds where the graph says so."""
    batch, groups, per_group, size = shape
    spec = GroupNormSpec(groups, groups * per_group, epsilon)
    rng = np.random.default_rng(seed)
    order = rng.permutation(per_group * size)
    for x in deal((batch, spec.num_channels, size), spec, seed):
        rows = x.reshape(batch * groups, -1)

        def mean(values: np.ndarray) -> np.ndarray:
            mixed = values[:, order]
            padded = np.pad(mixed, ((0, 0), (0, -mixed.shape[1] % lanes))).reshape(len(mixed), -1, lanes)
            sums = np.add.accumulate(padded, axis=1)[:, -1]
            while sums.shape[1] > 1:  # lanes are joined as a tree
                sums = np.pad(sums, ((0, 0), (0, sums.shape[1] % 2)))
                sums = sums[:, ::2] + sums[:, 1::2]
            return np.asarray(sums / np.float32(values.shape[1]))

        centred = rows - mean(rows)
        y = (centred / np.sqrt(mean(centred * centred) + np.float32(epsilon))).reshape(x.shape)
        limits = bounds(x, spec, serial=lanes < LANES[0])
        assert measure(y, limits.reference, limits.two_pass, dtype="float32").error_over_bound <= 1


@pytest.mark.parametrize("by_pixel", [False, True])
def test_one_accumulator_over_a_constant_image_is_inside_where_the_graph_says_so(by_pixel: bool) -> None:
    """ONNX Runtime's ReduceMean over all but the channels of an image stored channels last."""
    x = np.full((1, 4, 64, 64), np.float32(0.7), np.float32)
    x += np.float32(1e-3) * np.arange(4, dtype=np.float32).reshape(1, 4, 1, 1)
    flat = x.reshape(1, 4, -1)
    row = (np.swapaxes(flat, 1, 2) if by_pixel else flat).reshape(-1)
    mean = np.add.accumulate(row)[-1] / np.float32(row.size)
    var = np.add.accumulate(np.square(row - mean))[-1] / np.float32(row.size)
    y = (x - mean) / np.sqrt(var + np.float32(1e-5))
    spec = GroupNormSpec(1, 4)
    assert classify(y, bounds(x, spec), dtype="float32") is not Status.PASS
    assert classify(y, bounds(x, spec, serial=True), dtype="float32") is Status.PASS


@pytest.mark.parametrize(("channels", "seed"), [(8, 110), (2, 3), (8, 7), (2, 82), (4, 93)])
def test_no_false_alarm_where_an_image_is_constant(channels: int, seed: int) -> None:
    """Long runs of one value round alike, and otherwise around another mean: 1.1 to 1.3 bounds that knew only m."""
    rng = np.random.default_rng(seed)
    x = (rng.uniform(-1, 1, (1, channels, 1, 1)) * np.ones((1, channels, 32, 32))).astype(np.float32)
    x[..., :2, :] = rng.standard_normal((1, channels, 2, 32))
    spec = GroupNormSpec(1, channels)
    for name in RIGHT:
        y = RIGHT[name](x, spec, np.ones(channels), np.zeros(channels))
        assert classify(y, bounds(x, spec), dtype="float32") is Status.PASS, name


BARE = [f.name for f in FAULTS.values() if f.kind not in (Kind.ACTIVATION, Kind.RESIDUAL, Kind.NAN)]
WRONG = [name for name in BARE if name not in ("one-pass variance", "modulation dropped", "modulation without 1 +")]
FAULTY = (3, 16, 7, 9)
"""A shape on which every fault acts in two groups."""


def found(name: str, dtype: str, seeds: int = 1) -> set[Status]:
    spec = GroupNormSpec(2, 16, 1e-5, dtype=dtype)
    scale, bias = _parameters(16, dtype)
    assert applies(FAULTS[name], spec, FAULTY)
    statuses = set()
    for x in (x for seed in range(seeds) for x in deal(FAULTY, spec, seed)):
        with np.errstate(over="ignore"):
            y = FAULTS[name].compute(x, spec, scale, bias).astype(dtype)
        statuses.add(classify(y, bounds(x, spec, scale, bias), dtype=dtype))
    return statuses


@pytest.mark.parametrize("name", WRONG)
def test_every_fault_is_seen(name: str) -> None:
    assert Status.FAIL in found(name, "float32")


SMALL = {"unbiased variance", "last element left out", "approximate root"}
"""Faults smaller than float16 can show here."""
FINER = {"epsilon in float16", "float16 arithmetic", "TF32 arithmetic", "stored in float16"}
"""Faults that float16 does not have."""


@pytest.mark.parametrize("name", [name for name in WRONG if name not in SMALL | FINER])
def test_faults_are_seen_in_half_precision(name: str) -> None:
    assert Status.FAIL in found(name, "float16")


def test_one_pass_variance_is_unstable_and_never_fails() -> None:
    assert found("one-pass variance", "float32", seeds=5) == {Status.UNSTABLE}


def test_formula_by_hand() -> None:
    """x = (0, 2, 0, 2): mean 1, variance 1, every sum exact, so both E are their log2(4) = 2 floors."""
    u = 2.0**-24
    epsilon = 0.5625 - 2**-40  # r is 0.8 but for 1e-12
    x = np.array([[0, 2, 0, 2]], np.float32)
    got = bound(x, GroupNormSpec(1, 4, epsilon), [3] * 4, [2] * 4, stores=1)
    r = 0.8
    d = 2 * u * 1 * r
    rho = (2 + 3) * u * 1 * r**2 + d**2
    for i, (value, z) in enumerate(zip((0, 2, 0, 2), (-r, r, -r, r), strict=True)):
        y = 3 * z + 2
        want = 3 * d + 3 * r * rho / (2 * (1 - rho)) + 2 * u * (3 * r * (value + 1) + 3 * r + 2)
        want += u * abs(y) + 1 * u * (3 * r + 2) + 2.0**-150
        assert got[0, i] == pytest.approx(want, rel=1e-9)


def test_activation_is_pushed_through() -> None:
    spec = GroupNormSpec(4, 16, activation=Activation.SILU)
    scale, bias = _parameters(16, "float32")
    for x in deal((3, 16, 8, 8), spec):
        limits = bounds(x, spec, scale, bias)
        y = RIGHT["pairwise"](x, spec, scale, bias)
        silu = y / (1 + np.exp(-y))
        assert classify(silu, limits, dtype="float32") is Status.PASS
        assert classify(silu * np.float32(1.00001), limits, dtype="float32") is not Status.PASS


@pytest.mark.parametrize("activation", Activation)
def test_lipschitz_constants(activation: Activation) -> None:
    at = np.linspace(-6, 6, 1_200_001)
    assert np.abs(np.gradient(activate(at, activation), at)).max() == pytest.approx(LIPSCHITZ[activation], rel=1e-5)


def test_overflow_of_the_arithmetic_is_vacuous_not_a_pass_elsewhere() -> None:
    x = np.random.default_rng(0).standard_normal((1, 2, 50)).astype(np.float32)
    x[0, 0] *= np.float32(1e38)
    limits = bounds(x, GroupNormSpec(2, 2))
    assert np.isinf(limits.two_pass[0, 0]).all()
    assert np.isfinite(limits.two_pass[0, 1]).all()


def test_float16_statistics_are_caught_near_the_maximum() -> None:
    spec = GroupNormSpec(1, 4, dtype="float16")
    x = (
        FAMILIES["near_max"]
        .draw(np.random.default_rng(0), (1, 64), 1e-5, "float16")
        .reshape(1, 4, 16)
        .astype("float16")
    )
    assert np.isfinite(x).all()
    with np.errstate(all="ignore"):
        var = np.square(x - x.mean(dtype="float16")).mean(dtype="float16")
        y = ((x - x.mean(dtype="float16")) / np.sqrt(var + np.float16(1e-5))).astype("float16")
    assert classify(y, bounds(x, spec), dtype="float16") is Status.FAIL


def test_residual_rounding_is_inside() -> None:
    spec = GroupNormSpec(4, 16, residual=True)
    rng = np.random.default_rng(3)
    for offset in (0, 100, 1000):
        x, residual = (offset + rng.standard_normal((2, 2, 16, 9))).astype(np.float32)
        limits = bounds(x, spec, residual=residual)
        y = RIGHT["pairwise"](x + residual, spec, np.ones(16), np.zeros(16))
        assert classify(y, limits, dtype="float32") is Status.PASS
