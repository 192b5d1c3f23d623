"""What comes in around a norm: drawn in the shape the file declares, handed to the oracle in its own."""

import numpy as np
import onnx_ir as ir
import pytest

from gn_deploy.parity.operands import draw, for_oracle
from gn_deploy.reference import group_norm
from gn_deploy.spec import GroupNormSpec


def value(name: str, shape: list[int | str] | None) -> ir.Value:
    return ir.Value(name=name, shape=None if shape is None else ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT))


FIRST, LAST = (3, 8, 4, 5), (3, 4, 5, 8)


@pytest.mark.parametrize(
    ("name", "declared", "axis", "drawn"),
    [
        ("residual", ["N", 8, "H", "W"], 1, FIRST),
        ("residual", None, 1, FIRST),
        ("residual", ["N", 8, 1, 1], 1, (3, 8, 1, 1)),
        ("residual", ["N", "H", "W", 8], -1, LAST),
        ("residual", ["N", 1, 1, 8], -1, (3, 1, 1, 8)),
        ("residual", ["N", 8], -1, (3, 8)),
        ("residual_bias", ["K"], -1, (8,)),
        ("modulation_scale", ["N", 8, 1, 1], 1, (3, 8, 1, 1)),
        ("modulation_scale", [1, 8, 1, 1], 1, (1, 8, 1, 1)),
        ("modulation_shift", ["N", 1, 1, 8], -1, (3, 1, 1, 8)),
        ("modulation_shift", None, -1, (3, 1, 1, 8)),
        ("modulation_shift", ["N", 8], 1, (3, 8)),
    ],
)
def test_shapes(name: str, declared: list[int | str] | None, axis: int, drawn: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).normal(size=FIRST if axis == 1 else LAST).astype(np.float32)
    (array,) = draw(value("x", None), {name: value("v", declared)}, x, axis).values()
    assert array.shape == drawn
    assert array.dtype == x.dtype


@pytest.mark.parametrize("axis", [1, -1])
def test_the_oracle_takes_every_shape_alike(axis: int) -> None:
    rng = np.random.default_rng(0)
    spec = GroupNormSpec(2, 8, rank=4, channel_axis=axis, residual=True, scale_shift=True)
    x = rng.normal(size=FIRST if axis == 1 else LAST)
    rows, s, t, bias = rng.normal(size=(3, 8)), rng.normal(size=(3, 8)), rng.normal(size=(1, 8)), rng.normal(size=8)

    def wide(array: np.ndarray) -> np.ndarray:
        return np.expand_dims(array, (2, 3) if axis == 1 else (1, 2))

    total = x + wide(rows) + wide(bias[None])
    wanted = group_norm(total, spec) * (1 + wide(s)) + wide(t)
    named = {"residual_bias": bias, "modulation_scale": wide(s), "modulation_shift": wide(t)}
    for residual in (rows, wide(rows), np.broadcast_to(wide(rows), x.shape)):
        around = for_oracle({"residual": residual, **named}, x, axis)
        np.testing.assert_allclose(group_norm(x, spec, **around), wanted, rtol=1e-12, atol=1e-12)


def test_one_tensor_that_comes_in_twice_is_drawn_once() -> None:
    x = np.random.default_rng(0).normal(size=FIRST)
    entry, s = value("x", list(FIRST)), value("s", [3, 8, 1, 1])
    drawn = draw(entry, {"residual": entry, "modulation_scale": s, "modulation_shift": s}, x, 1)
    assert drawn["residual"] is x
    assert drawn["modulation_scale"] is drawn["modulation_shift"]


def test_a_residual_keeps_the_scale_of_x() -> None:
    """Added to x it must not hide the family that x was drawn for."""
    x = np.random.default_rng(0).normal(1e4, 1e-2, FIRST)
    residual = draw(value("x", None), {"residual": value("r", None)}, x, 1)["residual"]
    total = x + residual
    assert 1.4e4 < total.mean() < 1.6e4
    assert 0.5e-2 < total.std() < 2e-2
