"""Each fault does what its sentence says, by torch or by hand, in every layout; and acts where it says it can."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gn_deploy.faults import FAULTS, Fault, Kind, applies
from gn_deploy.reference import group_norm
from gn_deploy.spec import Activation, GroupNormSpec
from tests.test_reference import TORCH

GROUPS, CHANNELS, EPSILON = 2, 8, 1e-5
SHAPE = (3, CHANNELS, 5, 4)
RNG = np.random.default_rng(5)
X = 3e-3 * (RNG.standard_normal(SHAPE) + 0.5)
SCALE, BIAS = RNG.standard_normal((2, CHANNELS))
SPEC = GroupNormSpec(GROUPS, CHANNELS, EPSILON)
F = torch.nn.functional


def tensors(*arrays: np.ndarray) -> list[torch.Tensor]:
    return [torch.from_numpy(np.asarray(a, np.float64)) for a in arrays]


def by_torch(groups: int = GROUPS, epsilon: float = EPSILON, scale: Any = SCALE, bias: Any = BIAS) -> np.ndarray:
    x, w, b = tensors(X, scale, bias)
    return F.group_norm(x, groups, w, b, epsilon).numpy()


def by_hand(mean: np.ndarray, var: np.ndarray) -> np.ndarray:
    """Statistics (N or 1, G) to y."""
    mean, root = (np.repeat(v, CHANNELS // GROUPS, 1)[..., None, None] for v in (mean, np.sqrt(var + EPSILON)))
    return (X - mean) / root * SCALE[:, None, None] + BIAS[:, None, None]


ROWS = X.reshape(3, GROUPS, -1)
PADDED = np.concatenate([ROWS, np.zeros((3, GROUPS, 10))], -1)
BATCH = np.moveaxis(ROWS, 1, 0).reshape(1, GROUPS, -1)


def rolled() -> np.ndarray:
    back = np.roll(X, -1, axis=1)
    x, w, b = tensors(back, np.roll(SCALE, -1), np.roll(BIAS, -1))
    return np.roll(F.group_norm(x, GROUPS, w, b, EPSILON).numpy(), 1, axis=1)


def strided() -> np.ndarray:
    y = np.empty_like(X)
    for g in range(GROUPS):
        z = X[:, g::GROUPS]
        mean, var = z.mean((1, 2, 3), keepdims=True), z.var((1, 2, 3), keepdims=True)
        scale, bias = (p[g::GROUPS, None, None] for p in (SCALE, BIAS))
        y[:, g::GROUPS] = (z - mean) / np.sqrt(var + EPSILON) * scale + bias
    return y


def after(position: int, wanted: Callable[[np.ndarray], float]) -> np.ndarray:
    y = by_torch()
    y.reshape(-1)[position] = wanted(y.reshape(-1))
    return y


BY_HAND: dict[str, Callable[[], np.ndarray]] = {
    "epsilon x10": lambda: by_torch(epsilon=1e-4),
    "epsilon /10": lambda: by_torch(epsilon=1e-6),
    "epsilon 1e-3": lambda: by_torch(epsilon=1e-3),
    "epsilon absent": lambda: by_torch(epsilon=0.0),
    "epsilon outside the root": lambda: by_hand(ROWS.mean(-1), (ROWS.std(-1) + EPSILON) ** 2 - EPSILON),
    "epsilon in float16": lambda: by_torch(epsilon=1.0013580322265625e-05),
    "unbiased variance": lambda: by_hand(ROWS.mean(-1), ROWS.var(-1, ddof=1)),
    "mean absolute deviation": lambda: by_hand(
        ROWS.mean(-1), np.abs(ROWS - ROWS.mean(-1, keepdims=True)).mean(-1) ** 2
    ),
    "no centring": lambda: by_hand(np.zeros((3, GROUPS)), np.square(ROWS).mean(-1)),
    "half the groups": lambda: by_torch(1),
    "twice the groups": lambda: by_torch(4),
    "groups swapped": lambda: by_torch(4),
    "groups one channel late": rolled,
    "groups interleaved": strided,
    "per channel": lambda: F.instance_norm(*tensors(X), None, None, *tensors(SCALE, BIAS), eps=EPSILON).numpy(),
    "one group": lambda: (
        F.layer_norm(*tensors(X), SHAPE[1:], eps=EPSILON).numpy() * SCALE[:, None, None] + BIAS[:, None, None]
    ),
    "batch statistics": lambda: by_hand(BATCH.mean(-1), BATCH.var(-1)),
    "first sample's statistics": lambda: by_hand(ROWS[:1].mean(-1), ROWS[:1].var(-1)),
    "last element left out": lambda: by_hand(ROWS[..., :-1].mean(-1), ROWS[..., :-1].var(-1)),
    "tail after 32s left out": lambda: by_hand(ROWS[..., :64].mean(-1), ROWS[..., :64].var(-1)),
    "tail after 64s left out": lambda: by_hand(ROWS[..., :64].mean(-1), ROWS[..., :64].var(-1)),
    "padding counted": lambda: by_hand(PADDED.mean(-1), PADDED.var(-1)),
    "affine per group": lambda: by_torch(scale=SCALE[[0] * 4 + [4] * 4], bias=BIAS[[0] * 4 + [4] * 4]),
    "affine tiled": lambda: by_torch(scale=SCALE[[0, 1, 2, 3] * 2], bias=BIAS[[0, 1, 2, 3] * 2]),
    "affine one channel off": lambda: by_torch(scale=SCALE[[7, *range(7)]], bias=BIAS[[7, *range(7)]]),
    "scale dropped": lambda: by_torch(scale=np.ones(CHANNELS)),
    "bias dropped": lambda: by_torch(bias=np.zeros(CHANNELS)),
    "last channel's affine lost": lambda: by_torch(scale=[*SCALE[:7], 1], bias=[*BIAS[:7], 0]),
    "bias before scale": lambda: (
        (by_torch(scale=np.ones(CHANNELS), bias=np.zeros(CHANNELS)) + BIAS[:, None, None]) * SCALE[:, None, None]
    ),
    "one element stale": lambda: after(X.size // 2, lambda y: y[0]),
    "last element stale": lambda: after(X.size - 1, lambda y: y[0]),
    "one element 5 % off": lambda: after(X.size // 2, lambda y: y[X.size // 2] + 0.05 * np.sqrt((y**2).mean())),
    "height and width swapped": lambda: np.stack([image.T.reshape(5, 4) for image in by_torch().reshape(-1, 5, 4)])
    .reshape(SHAPE),
    "stored in bfloat16": lambda: torch.from_numpy(by_torch()).bfloat16().double().numpy(),
    "stored in float16": lambda: by_torch().astype(np.float16),
    "approximate root": lambda: (by_torch() - BIAS[:, None, None]) * (1 + 2**-12) + BIAS[:, None, None],
}  # fmt: skip
"""Fault -> its answer to X, SCALE, BIAS, written without the package."""
ELSEWHERE = {Kind.ACTIVATION, Kind.RESIDUAL, Kind.NAN}
ROUNDED = ["one-pass variance", "bfloat16 arithmetic", "float16 arithmetic", "TF32 arithmetic"]


def test_every_fault_is_tested() -> None:
    others = {"modulation dropped", "modulation without 1 +", *ROUNDED}
    others |= {name for name, fault in FAULTS.items() if fault.kind in ELSEWHERE}
    assert BY_HAND.keys() | others == FAULTS.keys()
    assert not BY_HAND.keys() & others
    assert len(FAULTS) >= 36


@pytest.mark.parametrize("name", BY_HAND)
def test_the_fault_is_what_it_says(name: str) -> None:
    assert applies(FAULTS[name], SPEC, SHAPE)
    wrong = FAULTS[name].compute(X, SPEC, SCALE, BIAS)
    np.testing.assert_allclose(wrong, BY_HAND[name](), rtol=1e-9, atol=1e-12)
    assert np.abs(wrong - group_norm(X, SPEC, SCALE, BIAS)).max() > 1e-6


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_says_so_in_one_sentence_in_a_table(name: str) -> None:
    fault = FAULTS[name]
    assert fault.name == name
    assert len(name) <= 30
    assert fault.says == fault.says.strip(".").strip()
    assert ". " not in fault.says


def test_one_pass_variance_is_right_at_mean_0_and_wrong_at_mean_1000() -> None:
    x = RNG.standard_normal(SHAPE).astype(np.float32)
    for offset, most in ((0, 1e-5), (1000, np.inf)):
        moved = x + np.float32(offset)
        wrong = FAULTS["one-pass variance"].compute(moved, SPEC, SCALE, BIAS)
        error = np.abs(wrong - group_norm(moved, SPEC, SCALE, BIAS)).max()
        assert most > error > (0 if offset == 0 else 0.01)
        assert (wrong.astype(np.float32) == wrong).all()


@pytest.mark.parametrize(
    ("name", "bits"), [("bfloat16 arithmetic", 8), ("float16 arithmetic", 11), ("TF32 arithmetic", 11)]
)
def test_arithmetic_is_as_coarse_as_it_says(name: str, bits: int) -> None:
    x = RNG.standard_normal(SHAPE)
    error = np.abs(FAULTS[name].compute(x, SPEC, SCALE, BIAS) - group_norm(x, SPEC, SCALE, BIAS))
    assert 2.0**-bits / 4 < error.max() < 8 * 4 * 2.0**-bits  # 8 roundings of values up to 4


def test_arithmetic_that_nothing_is_lost_in_is_right() -> None:
    """Small whole numbers, a variance of 1 and no epsilon: every step is exact in 8 bits."""
    x = np.tile([1.0, -1.0], 24).reshape(1, 8, 6)
    spec = GroupNormSpec(2, 8, 0.0)
    for name in ("bfloat16 arithmetic", "float16 arithmetic", "TF32 arithmetic", "one-pass variance"):
        np.testing.assert_array_equal(FAULTS[name].compute(x, spec, np.full(8, 2.0), np.ones(8)), 2 * x + 1)


@pytest.mark.parametrize("activation", [a for a in Activation if a is not Activation.NONE])
def test_faults_of_activations(activation: Activation) -> None:
    spec = GroupNormSpec(GROUPS, CHANNELS, activation=activation)
    bare = by_torch()
    np.testing.assert_allclose(FAULTS["activation missing"].compute(X, spec, SCALE, BIAS), bare)
    other = FAULTS["another activation"].compute(X, spec, SCALE, BIAS)
    right = TORCH[activation](torch.from_numpy(bare)).numpy()
    assert 1e-3 < np.abs(other - right).max() < 0.5
    gelu = {Activation.GELU: "tanh", Activation.GELU_TANH: "none"}
    assert bool(applies(FAULTS["the other GELU"], spec, SHAPE)) is (activation in gelu)
    if activation in gelu:
        want = F.gelu(torch.from_numpy(bare), approximate=gelu[activation]).numpy()
        np.testing.assert_allclose(FAULTS["the other GELU"].compute(X, spec, SCALE, BIAS), want, atol=1e-12)


def test_faults_of_residual_and_modulation() -> None:
    spec = GroupNormSpec(GROUPS, CHANNELS, residual=True, scale_shift=True, activation=Activation.SILU)
    residual = RNG.standard_normal(SHAPE) / 100
    s, t = RNG.standard_normal((2, 3, CHANNELS))
    given = {"residual": residual, "modulation_scale": s, "modulation_shift": t}
    x, r, w, b = tensors(X, residual, SCALE, BIAS)
    gain, shift = tensors(s[..., None, None], t[..., None, None])
    both, alone = (F.group_norm(v, GROUPS, w, b, EPSILON) for v in (x + r, x))
    want = {
        "residual dropped": F.silu(alone * (1 + gain) + shift),
        "residual added after": F.silu(alone * (1 + gain) + shift + r),
        "modulation dropped": F.silu(both),
        "modulation without 1 +": F.silu(both * gain + shift),
    }
    for name, y in want.items():
        assert applies(FAULTS[name], spec, SHAPE)
        np.testing.assert_allclose(FAULTS[name].compute(X, spec, SCALE, BIAS, **given), y.numpy(), atol=1e-10)


@pytest.mark.parametrize(("name", "value"), [("NaN swallowed", np.nan), ("Inf swallowed", np.inf)])
def test_what_is_not_finite_vanishes(name: str, value: float) -> None:
    x, zero = X.copy(), X.copy()
    x[1, 6, 2, 2], zero[1, 6, 2, 2] = value, 0
    right = group_norm(x, SPEC, SCALE, BIAS)
    assert np.isnan(right[1, 4:]).all()
    np.testing.assert_array_equal(FAULTS[name].compute(x, SPEC, SCALE, BIAS), group_norm(zero, SPEC, SCALE, BIAS))
    other = FAULTS["Inf swallowed" if name.startswith("NaN") else "NaN swallowed"].compute(x, SPEC, SCALE, BIAS)
    np.testing.assert_array_equal(other, right)


@st.composite
def calls(draw: st.DrawFn) -> tuple[GroupNormSpec, tuple[int, ...]]:
    groups, per_group = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    around = draw(st.booleans())
    spec = GroupNormSpec(
        groups,
        groups * per_group,
        draw(st.sampled_from([1e-5, 1e-3, 1e-6, 2.0**-10])),
        activation=draw(st.sampled_from(Activation)),
        residual=around,
        scale_shift=around,
        dtype=draw(st.sampled_from(["float32", "float16", "bfloat16"])),
    )
    inner = draw(st.lists(st.integers(1, 7), max_size=3))
    return spec, (draw(st.integers(1, 3)), spec.num_channels, *inner)


def arguments(spec: GroupNormSpec, shape: tuple[int, ...], seed: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    x = (np.sqrt(spec.epsilon) * (rng.standard_normal(shape) + 0.5)).astype(spec.dtype).astype(np.float64)
    around = {"scale": rng.standard_normal(shape[1]), "bias": rng.standard_normal(shape[1])}
    if spec.residual:
        around["residual"] = np.sqrt(spec.epsilon) * rng.standard_normal(shape)
        around["modulation_scale"], around["modulation_shift"] = rng.standard_normal((2, shape[0], shape[1]))
    return x, around


@settings(deadline=None, max_examples=40)
@given(call=calls(), seed=st.integers(0, 99), name=st.sampled_from(list(FAULTS)))
def test_channels_last_is_the_same_fault(call: tuple[GroupNormSpec, tuple[int, ...]], seed: int, name: str) -> None:
    spec, shape = call
    fault = FAULTS[name]
    if fault.kind in (Kind.STALE, Kind.LAYOUT):
        return  # which element that is depends on the layout
    x, given_too = arguments(spec, shape, seed)
    last = GroupNormSpec(**{f: getattr(spec, f) for f in spec.__slots__} | {"channel_axis": -1})
    turned = {k: np.moveaxis(v, 1, -1) if k == "residual" else v for k, v in given_too.items()}
    assert applies(fault, spec, shape) == applies(fault, last, np.moveaxis(x, 1, -1).shape)
    if applies(fault, spec, shape):
        first = fault.compute(x, spec, **given_too)
        second = fault.compute(np.moveaxis(x, 1, -1), last, **turned)
        np.testing.assert_allclose(np.moveaxis(second, -1, 1), first, rtol=1e-12, atol=1e-12)


@settings(deadline=None, max_examples=60)
@given(call=calls(), seed=st.integers(0, 99))
def test_a_fault_acts_where_it_applies_and_nowhere_else(call: tuple[GroupNormSpec, tuple[int, ...]], seed: int) -> None:
    """Rejected is right: the answer is not changed, or makes no sense. Accepted is right: it shows on some input."""
    spec, shape = call
    x, around = arguments(spec, shape, seed)
    right = group_norm(x, spec, **around)
    for name, fault in FAULTS.items():
        if fault.kind is Kind.NAN:
            continue
        if applies(fault, spec, shape):
            assert fault.compute(x, spec, **around).shape == shape
        elif is_defined(fault, spec, shape):
            with np.errstate(all="ignore"):
                wrong = fault.compute(x, spec, **around).astype(spec.dtype).astype(np.float64)
            np.testing.assert_allclose(
                wrong, right.astype(spec.dtype).astype(np.float64), rtol=1e-9, atol=1e-12, err_msg=name
            )


def is_defined(fault: Fault, spec: GroupNormSpec, shape: tuple[int, ...]) -> bool:
    """Whether a rejected fault can be computed at all."""
    n = int(np.prod(shape[2:])) * spec.channels_per_group
    return not (
        (fault.name == "half the groups" and spec.num_groups % 2)
        or (fault.name == "twice the groups" and spec.channels_per_group % 2)
        or (fault.name.startswith("tail after") and n < 64)
        or (fault.name in ("unbiased variance", "last element left out", "epsilon absent") and n == 1)
        or fault.name == "one-pass variance"  # rounds
        or fault.kind is Kind.PRECISION
        or fault.name == "epsilon in float16"
        or (fault.kind is Kind.LAYOUT and len(shape) < 4)
        or (fault.name == "the other GELU")
        or (fault.name == "another activation")
    )


@pytest.mark.parametrize("shape", [(2, 12, 5, 7), (3, 12, 3, 4, 9)])
@pytest.mark.parametrize("activation", [Activation.NONE, Activation.GELU])
def test_what_is_accepted_shows(activation: Activation, shape: tuple[int, ...]) -> None:
    """On x = sqrt(eps) (N(0,1) + 0.5) and random parameters, in float32."""
    spec = GroupNormSpec(4, 12, activation=activation, residual=True, scale_shift=True)
    x, around = arguments(spec, shape, 1)
    right = group_norm(x, spec, **around)
    for fault in FAULTS.values():
        if applies(fault, spec, shape) and fault.kind is not Kind.NAN:
            assert np.abs(fault.compute(x, spec, **around) - right).max() > 1e-8, fault.name


def test_a_shape_that_is_not_the_specs() -> None:
    assert not applies(FAULTS["bias dropped"], SPEC, (2, 9, 3))
    assert not applies(FAULTS["bias dropped"], SPEC, (8,))
