"""The float64 oracle against independent sources: rationals, mpmath, torch in double, ONNX's own test data."""

from collections.abc import Callable
from fractions import Fraction

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gn_deploy.errors import InputError
from gn_deploy.reference import activate, group_norm, normalize
from gn_deploy.spec import Activation, GroupNormSpec

F = torch.nn.functional
TORCH = {
    Activation.NONE: lambda v: v,
    Activation.RELU: F.relu,
    Activation.SILU: F.silu,
    Activation.HARDSWISH: F.hardswish,
    Activation.GELU: F.gelu,
    Activation.GELU_TANH: lambda v: F.gelu(v, approximate="tanh"),
    Activation.MISH: F.mish,
}


def test_by_hand() -> None:
    # Two groups of two: (1, 3) has mean 2, variance 1; (10, 30) mean 20, variance 100. epsilon chosen for round roots.
    spec = GroupNormSpec(2, 4, epsilon=3.0)
    y = group_norm([[1.0, 3.0, 10.0, 30.0]], spec, scale=[1, 2, 1, 1], bias=[0, 5, 0, 0])
    want = [-0.5, 6.0, -10 / np.sqrt(103), 10 / np.sqrt(103)]
    np.testing.assert_allclose(y[0], want, rtol=1e-15)  # 1e-15: a few float64 roundings


def test_by_rationals() -> None:
    x = [3, 1, 4, 1, 5, 9, 2, 6]
    mean = Fraction(sum(x), 8)
    var = sum((Fraction(v) - mean) ** 2 for v in x) / 8
    parts = normalize(np.array(x).reshape(1, 2, 4), GroupNormSpec(1, 2))
    assert parts.mean.item() == float(mean)
    assert parts.var.item() == float(var)


@pytest.mark.parametrize(("mean", "std"), [(0, 1), (1e4, 1e-2), (1e8, 1e-3)])
def test_by_50_digits(mean: float, std: float) -> None:
    x = (mean + std * np.random.default_rng(1).standard_normal((1, 4, 5))).astype(np.float64)
    y = group_norm(x, GroupNormSpec(2, 4))
    with mpmath.workdps(50):
        for g in range(2):
            values = [mpmath.mpf(float(v)) for v in x[0, 2 * g : 2 * g + 2].ravel()]
            m = mpmath.fsum(values) / 10
            v = mpmath.fsum([(a - m) ** 2 for a in values]) / 10
            want = [float((a - m) / mpmath.sqrt(v + mpmath.mpf(1e-5))) for a in values]
            # x - mean is exact to a few float64 ulps of the mean: that, over the spread, is all that may be lost.
            np.testing.assert_allclose(y[0, 2 * g : 2 * g + 2].ravel(), want, atol=1e-15 + 4e-16 * mean / 3e-3)


@settings(deadline=None, max_examples=40)
@given(
    groups=st.integers(1, 4),
    per_group=st.integers(1, 3),
    spatial=st.lists(st.integers(1, 5), max_size=3),
    batch=st.integers(1, 3),
    last=st.booleans(),
    affine=st.booleans(),
    activation=st.sampled_from(Activation),
    seed=st.integers(0, 99),
)
def test_against_torch_double(
    groups: int,
    per_group: int,
    spatial: list[int],
    batch: int,
    last: bool,
    affine: bool,
    activation: Activation,
    seed: int,
) -> None:
    channels = groups * per_group
    if per_group * int(np.prod(spatial)) == 1:
        return  # torch refuses a single value per group
    spec = GroupNormSpec(groups, channels, 1e-3, channel_axis=-1 if last else 1, activation=activation)
    rng = np.random.default_rng(seed)
    x = 3 + rng.standard_normal((batch, channels, *spatial))
    scale, bias = (rng.standard_normal(channels), rng.standard_normal(channels)) if affine else (None, None)
    t = torch.from_numpy
    want = torch.nn.functional.group_norm(
        t(x), groups, t(scale) if affine else None, t(bias) if affine else None, spec.epsilon
    )
    want = TORCH[activation](want).numpy()
    given_x = np.moveaxis(x, 1, -1) if last else x
    got = group_norm(given_x, spec, scale, bias)
    got = np.moveaxis(got, -1, 1) if last else got
    np.testing.assert_allclose(got, want, rtol=1e-11, atol=1e-12)  # two float64 sums in different orders


def test_against_onnx_backend_data(monkeypatch: pytest.MonkeyPatch) -> None:
    from onnx.backend.test.case.node import groupnormalization as source
    from onnx.helper import get_node_attr_value

    seen = []

    def judge(node, inputs, outputs, name) -> None:  # type: ignore[no-untyped-def]
        names = {a.name for a in node.attribute}
        epsilon = get_node_attr_value(node, "epsilon") if "epsilon" in names else 1e-5
        spec = GroupNormSpec(get_node_attr_value(node, "num_groups"), 4, epsilon)
        np.testing.assert_allclose(group_norm(inputs[0], spec, *inputs[1:]), outputs[0], atol=2e-6)  # float32 data
        seen.append(name)

    monkeypatch.setattr(source, "expect", judge)
    source.GroupNormalization.export()
    source.GroupNormalization.export_epsilon()
    assert seen == ["test_group_normalization_example", "test_group_normalization_epsilon"]


def test_modulation_and_residual_are_what_diffusers_writes() -> None:
    rng = np.random.default_rng(0)
    x, r = rng.standard_normal((2, 2, 4, 3))
    w, b = rng.standard_normal((2, 4))
    s, t = rng.standard_normal((2, 2, 4))
    spec = GroupNormSpec(2, 4, activation=Activation.SILU)
    got = group_norm(x, spec, w, b, residual=r, modulation_scale=s, modulation_shift=t)
    p = torch.from_numpy
    norm = torch.nn.functional.group_norm(p(x + r), 2, p(w), p(b), 1e-5)
    want = torch.nn.functional.silu(norm * (1 + p(s)[:, :, None]) + p(t)[:, :, None])
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-13)


def test_nan_and_inf_stay_in_their_group() -> None:
    x = np.random.default_rng(0).standard_normal((2, 4, 3))
    x[0, 0, 0], x[1, 3, 2] = np.nan, np.inf
    y = group_norm(x, GroupNormSpec(2, 4, activation=Activation.RELU))
    bad = np.isnan(y).reshape(2, 2, -1)
    assert bad[0, 0].all()
    assert bad[1, 1].all()
    assert not bad[0, 1].any()
    assert not bad[1, 0].any()


@pytest.mark.parametrize(
    ("activation", "exact"),
    [
        (Activation.SILU, lambda y: y / (1 + mpmath.exp(-y))),
        (Activation.GELU, lambda y: y * mpmath.erfc(-y / mpmath.sqrt(2)) / 2),
        (
            Activation.GELU_TANH,
            lambda y: y * (1 + mpmath.tanh(mpmath.sqrt(2 / mpmath.pi) * (y + mpmath.mpf("0.044715") * y**3))) / 2,
        ),
        (Activation.MISH, lambda y: y * mpmath.tanh(mpmath.log(1 + mpmath.exp(y)))),
        (Activation.HARDSWISH, lambda y: y * min(max(y + 3, 0), 6) / 6),
    ],
)
def test_activations_by_400_digits(activation: Activation, exact: Callable[[mpmath.mpf], mpmath.mpf]) -> None:
    """Also where 1 + erf and 1 + tanh would leave nothing."""
    at = np.concatenate([np.linspace(-10, 10, 401), [-1e-300, 1e-10, 30, 700]])
    with mpmath.workdps(400):
        want = [float(exact(mpmath.mpf(float(y)))) for y in at]
    # Of a tail exp(-t), t up to 170 at y = -10, float64 loses t ulps.
    np.testing.assert_allclose(activate(at, activation), want, rtol=400 * 2.0**-53, atol=0)


@pytest.mark.parametrize("activation", [a for a in Activation if a is not Activation.NONE])
def test_limits_of_activations(activation: Activation) -> None:
    got = activate(np.array([np.inf, -np.inf, np.nan, 1e300, -1e300, 0.0]), activation)
    np.testing.assert_array_equal(got, [np.inf, 0, np.nan, 1e300, 0, 0])


def test_constant_group_gives_the_bias() -> None:
    y = group_norm(np.full((1, 2, 7), np.float32(0.1)), GroupNormSpec(1, 2), bias=[2.0, -3.0])
    np.testing.assert_array_equal(y[0], np.repeat([[2.0], [-3.0]], 7, axis=1))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"x": np.zeros(4)}, "x has shape"),
        ({"x": np.zeros((1, 6, 2))}, "6 channels"),
        ({"x": np.zeros((0, 4, 2))}, "nothing to normalize"),
        ({"x": np.zeros((1, 4, 2)), "scale": np.ones(3)}, "scale has shape"),
        ({"x": np.zeros((1, 4, 2)), "bias": np.ones((4, 1))}, "bias has shape"),
        ({"x": np.zeros((1, 4, 2)), "residual": np.ones((1, 4, 3))}, "residual has shape"),
        ({"x": np.zeros((2, 4, 2)), "modulation_scale": np.ones((1, 4))}, "modulation_scale has shape"),
    ],
)
def test_wrong_shapes_are_named(arguments: dict[str, np.ndarray], words: str) -> None:
    with pytest.raises(InputError, match=words):
        group_norm(spec=GroupNormSpec(2, 4), **arguments)
