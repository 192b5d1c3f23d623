"""Families do what their names say, cases are deterministic."""

import zlib

import numpy as np
import pytest

from gn_deploy.errors import InputError
from gn_deploy.parity.cases import FAMILIES, InputSpec, bind, deal, hands, input_specs, model_cases
from gn_deploy.parity.metrics import by_slot
from gn_deploy.spec import FLOAT_DTYPES, GroupNormSpec
from tests.parity.spellings import alone, native

IMAGE = InputSpec("image", "float32", ("batch", 3, "h", "w"))
STEP = InputSpec("step", "int64", ("batch",))


@pytest.mark.parametrize("dtype", FLOAT_DTYPES)
@pytest.mark.parametrize("name", FAMILIES)
def test_families_are_finite_and_say_what_they_expose(name: str, dtype: str) -> None:
    family = FAMILIES[name]
    assert len(family.exposes) > 20
    x = family.draw(np.random.default_rng(0), (3, 50), 1e-5, dtype)
    assert x.shape == (3, 50)
    assert np.isfinite(x.astype(dtype)).all()


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [("normal", 0, 1), ("offset", 100, 1), ("small", 0, 1e-3), ("large_mean", 1e4, 1e-2), ("kappa1000", 1e3, 1)],
)
def test_moments(name: str, mean: float, std: float) -> None:
    x = FAMILIES[name].draw(np.random.default_rng(0), (1, 100_000), 1e-5, "float32")
    assert x.mean() == pytest.approx(mean, abs=0.02 * std)  # 0.02: six standard errors of the mean
    assert x.std() == pytest.approx(std, rel=0.02)


def test_special_families() -> None:
    rng = np.random.default_rng(0)
    assert np.ptp(FAMILIES["constant"].draw(rng, (4, 9), 1e-5, "float32"), axis=1).max() == 0
    assert FAMILIES["epsilon_dominated"].draw(rng, (1, 10_000), 1e-4, "float32").std() == pytest.approx(1e-2, rel=0.05)
    assert (FAMILIES["outlier"].draw(rng, (4, 90), 1e-5, "float32") == 1000).sum(1).tolist() == [1, 1, 1, 1]
    extreme = FAMILIES["near_max"].draw(rng, (1, 1000), 1e-5, "float16").astype(np.float16)
    with np.errstate(over="ignore"):
        assert np.isinf(np.square(extreme)).mean() > 0.9
    wide = FAMILIES["near_max"].draw(rng, (1, 1000), 1e-5, "float32").astype(np.float32)
    assert np.isfinite(np.square(wide).sum(dtype=np.float32))


@pytest.mark.parametrize(
    ("shape", "groups"), [((1, 4, 5), 1), ((2, 8, 3), 2), ((4, 8, 3), 4), ((1, 8, 2), 3), ((9, 8, 2), 4)]
)
def test_every_family_is_dealt(shape: tuple[int, ...], groups: int) -> None:
    spec = GroupNormSpec(groups, 8 if groups != 3 else 9)
    shape = (shape[0], spec.num_channels, *shape[2:])
    tensors, held = deal(shape, spec), hands(shape, spec)
    assert {name for hand in held for name in hand} == set(FAMILIES)
    assert all(len(set(families)) > 1 for families in zip(*held, strict=True)), "a slot that saw one family only"
    for x, hand in zip(tensors, held, strict=True):
        assert x.shape == shape
        for row, name in zip(by_slot(x, spec), hand, strict=True):
            assert (np.ptp(row) == 0) == (name == "constant")


def test_channels_last_deals_the_same_groups() -> None:
    first, last = GroupNormSpec(2, 4), GroupNormSpec(2, 4, channel_axis=-1)
    for a, b in zip(deal((2, 4, 3, 5), first), deal((2, 3, 5, 4), last), strict=True):
        np.testing.assert_array_equal(a, np.moveaxis(b, -1, 1))


def test_the_same_in_every_process() -> None:
    x = deal((10, 4, 3), GroupNormSpec(1, 4))[0]
    np.testing.assert_array_equal(x, deal((10, 4, 3), GroupNormSpec(1, 4))[0])
    assert zlib.crc32(x.tobytes()) == 0xC9438568, hex(zlib.crc32(x.tobytes()))
    assert not np.array_equal(x, deal((10, 4, 3), GroupNormSpec(1, 4), seed=1)[0])


def test_dims_are_bound_by_name() -> None:
    image, step = bind([IMAGE, STEP], {"batch": 5, "h": 8})
    assert (image.shape, step.shape) == ((5, 3, 8, 32), (5,))
    assert bind([IMAGE, STEP])[1].shape == (2,)
    with pytest.raises(InputError, match="no input has a dim named 'height'"):
        bind([IMAGE], {"height": 3})


def test_model_cases() -> None:
    cases = model_cases([IMAGE, STEP, InputSpec("mask", "bool", ("batch",))], ["normal", "offset"])
    assert [(c.name, c.conditioned) for c in cases] == [("normal", True), ("offset", False)]
    feeds = cases[0].feeds
    assert feeds["image"].dtype == np.float32
    assert set(feeds["step"].tolist()) <= {0, 1}
    assert feeds["mask"].all()
    assert [(s.name, s.dtype, s.shape) for s in input_specs(alone(native()))] == [("x", "float32", ("N", 8, 6, 6))]
