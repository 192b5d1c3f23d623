"""The plugin's layers on the emulated GPU: what comes out of enqueue is what gn_deploy.reference says."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gn_deploy.reference import group_norm
from gn_deploy.spec import Activation, GroupNormSpec
from tests.plugins.adapter import Host
from tests.plugins.engine import execute
from tests.plugins.layers import NUMPY, Array, Layer
from tests.plugins.vtable import Format, Type

ALL = {"residual": 1, "modulation_scale": 1, "modulation_shift": 1}
SKIP = {"residual": 1, "sum": 1}
ERROR = {
    Type.FLOAT: (4e-6, 4e-6),  # float32 inside; some units in the last place of values of about 1
    Type.HALF: (2**-11 * 1.02, 2e-5),  # half a unit in the last place, and what float32 adds
    Type.BF16: (2**-8 * 1.02, 2e-5),
    Type.FP8: (2**-4 * 1.02, 2**-10 * 1.02),  # half a unit in the last place, or of the subnormals
    Type.INT8: (0.0, 0.5 + 1e-3),
}
"""Type of y -> largest relative and absolute error, the latter in units of the scale where there is one."""
LARGEST = {Type.INT8: (-128, 127), Type.FP8: (-448, 448)}


def random(shape: tuple[int, ...], kind: Type, seed: int, mean: float = 0.0) -> Array:
    return np.random.default_rng(seed).normal(mean, 1, shape).astype(NUMPY[kind])


def compute(
    host: Host, layer: Layer, *, tactic: int = 0, in_place: bool = False, bad: tuple[int, ...] = ()
) -> tuple[list[Array], list[Array], int]:
    """The six inputs, drawn at random, a NaN at ``bad``; the outputs; and how many tactics there were."""
    kinds = [layer.type, layer.parameters, layer.parameters, layer.type, layer.parameters, layer.parameters]
    means = (0.5, 1.0, 0.0, 0.0, 0.0, 0.0)
    inputs = [random(s, k, i, m) for i, (s, k, m) in enumerate(zip(layer.shapes(), kinds, means, strict=True))]
    if bad:
        inputs[0][bad] = np.nan
    tensors = layer.tensors()
    found, tactics = execute(host, layer.name, layer.fields(), *tensors, inputs, tactic=tactic, in_place=in_place)
    return inputs, found, tactics


def expected(layer: Layer, inputs: list[Array]) -> tuple[Array, Array]:
    """y in float64 before it is rounded or quantized, and the sum in x's type."""
    values = layer.values
    x, scale, bias, residual, s, t = inputs
    total = (x.astype(np.float32) + residual.astype(np.float32)).astype(x.dtype) if values["residual"] else x
    spec = GroupNormSpec(
        values["num_groups"],
        layer.channels,
        float(np.float32(values["epsilon"])),
        activation=Activation(values["activation"]),
        channel_axis=layer.channel_axis,
    )
    modulation = {
        name: array.reshape(layer.shape[0], -1).astype(np.float64)
        for name, array in (("modulation_scale", s), ("modulation_shift", t))
        if values[name]
    }
    parts = total.astype(np.float64), spec, scale.astype(np.float64), bias.astype(np.float64)
    return group_norm(*parts, **modulation), total


def check(layer: Layer, inputs: list[Array], found: list[Array]) -> None:
    wanted, total = expected(layer, inputs)
    kind = layer.output_type
    relative, absolute = ERROR[kind]
    if kind in LARGEST:
        wanted = np.clip(wanted / np.float32(layer.values["output_scale"]), *LARGEST[kind])
    error = np.abs(found[0].astype(np.float64) - wanted)
    assert (error <= absolute + relative * np.abs(wanted)).all(), f"{error.max()} from {wanted.flat[error.argmax()]}"
    if layer.values["sum"]:
        assert np.ascontiguousarray(found[1]).tobytes() == np.ascontiguousarray(total).tobytes()


LAYERS = [
    Layer((3, 8)),
    Layer((2, 8, 37), {"activation": "relu"}, Type.HALF),
    Layer((2, 6, 7, 7), {"num_groups": 3, "activation": "silu"}, Type.HALF, parameters=Type.HALF),
    Layer((2, 8, 3, 5, 6), {"activation": "gelu"}, Type.BF16),
    Layer((2, 6, 2, 3, 2, 3), {"num_groups": 6, "activation": "mish"}),
    Layer((2, 32, 9, 11), {"activation": "hardswish", **ALL}),
    Layer((1, 4, 64, 64), {"activation": "silu", **SKIP}),
    Layer((2, 20, 5, 7), {"num_groups": 5, "activation": "silu", **ALL}, Type.FLOAT, Format.HWC),
    Layer((2, 12, 5, 7), {"num_groups": 4, "activation": "gelu_tanh", **SKIP}, Type.HALF, Format.HWC8),
    Layer((2, 20, 5, 7), {"num_groups": 2, **ALL, **SKIP}, Type.HALF, Format.HWC16, Type.HALF),
    Layer((2, 40, 6, 6), {"num_groups": 8, "activation": "silu"}, Type.BF16, Format.HWC8, Type.BF16),
    Layer((2, 6, 2, 5, 7), {"num_groups": 1, **SKIP}, Type.FLOAT, Format.DHWC),
    Layer((2, 20, 2, 5, 7), {"num_groups": 4, "activation": "relu"}, Type.HALF, Format.DHWC8),
    Layer((2, 20, 2, 5, 7), {"num_groups": 20}, Type.BF16, Format.DHWC8),
    Layer((2, 7, 5, 24), {"channels_last": 1, "num_groups": 3, "activation": "silu", **ALL}, Type.HALF),
    Layer((2, 33, 6), {"channels_last": 1, **SKIP}),
    Layer((2, 8, 5, 7), {"output_type": "int8", "output_scale": 0.03, "activation": "silu", **SKIP}, Type.HALF),
    Layer((2, 8, 5, 7), {"output_type": "float8e4m3fn", "output_scale": 0.01}, Type.FLOAT),
    Layer((2, 20, 5, 7), {"output_type": "int8", "output_scale": 0.02, "num_groups": 4}, Type.HALF, Format.HWC8),
    Layer((2, 20, 5, 7), {"output_type": "float8e4m3fn", "output_scale": 0.5}, Type.HALF, Format.HWC16),
    Layer((2, 20, 5, 7), {"output_type": "int8", "output_scale": 0.02, **SKIP}, Type.FLOAT, Format.HWC),
]


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_a_layer_computes_what_its_attributes_say(layer, emulated) -> None:
    inputs, found, _ = compute(emulated, layer)
    check(layer, inputs, found)


@pytest.mark.parametrize(
    "layer",
    [
        Layer((2, 8, 40, 40), {"activation": "silu", **ALL, **SKIP}, Type.HALF),
        Layer((2, 24, 20, 20), {"num_groups": 3, "activation": "silu", **SKIP}, Type.HALF, Format.HWC8),
    ],
    ids=["NCHW", "NHWC"],
)
def test_every_tactic_computes_the_same(layer, emulated) -> None:
    inputs, found, tactics = compute(emulated, layer)
    check(layer, inputs, found)
    assert tactics >= 3
    for tactic in range(1, tactics + 1):
        check(layer, *compute(emulated, layer, tactic=tactic)[:2])


@pytest.mark.parametrize("layout", [Format.LINEAR, Format.HWC8])
def test_the_sum_may_take_the_place_of_the_residual(layout, emulated) -> None:
    """What getAliasedInput promises, for every tactic."""
    layer = Layer((2, 16, 24, 24), {"activation": "silu", **SKIP}, Type.HALF, layout)
    for tactic in range(5):
        inputs, found, _ = compute(emulated, layer, tactic=tactic, in_place=True)
        check(layer, inputs, found)


@pytest.mark.parametrize("layout", [Format.LINEAR, Format.HWC8])
def test_a_bad_value_stays_in_its_group(layout, emulated) -> None:
    """And the NaN that padding is full of stays where it is."""
    layer = Layer((2, 12, 5, 7), {"num_groups": 3}, Type.HALF, layout)
    _, good, _ = compute(emulated, layer)
    _, found, _ = compute(emulated, layer, bad=(1, 6, 2, 2))
    group = np.zeros(layer.shape, bool)
    group[1, 4:8] = True
    assert np.isnan(found[0][group].astype(np.float32)).all()
    assert (found[0][~group] == good[0][~group]).all()


FORMATS = {
    2: [(Type.FLOAT, Format.LINEAR), (Type.HALF, Format.LINEAR), (Type.BF16, Format.LINEAR)],
    4: [(Type.FLOAT, Format.HWC), (Type.HALF, Format.HWC8), (Type.HALF, Format.HWC16), (Type.BF16, Format.HWC8)],
    5: [(Type.FLOAT, Format.DHWC), (Type.HALF, Format.DHWC8), (Type.BF16, Format.DHWC8)],
}
"""Of every rank, and what a rank has besides."""


@st.composite
def layers(draw) -> Layer:
    rank = draw(st.integers(2, 5))
    groups, per_group = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    sizes = [draw(st.integers(1, 9)) for _ in range(rank - 2)]
    batch, channels = draw(st.integers(1, 3)), groups * per_group
    last = draw(st.booleans())
    kind, layout = draw(st.sampled_from(FORMATS[2] + ([] if last else FORMATS.get(rank, []))))
    residual = draw(st.integers(0, 1))
    outputs = ["x"] if rank == 5 and layout != Format.LINEAR else ["x", "int8", "float8e4m3fn"]
    attributes = {
        "num_groups": groups,
        "epsilon": draw(st.sampled_from([1e-5, 1e-3])),
        "activation": draw(st.sampled_from([str(a) for a in Activation])),
        "channels_last": int(last),
        "residual": residual,
        "sum": draw(st.integers(0, residual)),
        "modulation_scale": draw(st.integers(0, 1)),
        "modulation_shift": draw(st.integers(0, 1)),
        "output_type": draw(st.sampled_from(outputs)),
        "output_scale": draw(st.sampled_from([0.03, 0.5])),
    }
    shape = (batch, *sizes, channels) if last else (batch, channels, *sizes)
    return Layer(shape, attributes, kind, layout, draw(st.sampled_from([Type.FLOAT, kind])))


@settings(max_examples=120, deadline=None)
@given(layer=layers(), tactic=st.integers(0, 5))
def test_any_layer_in_any_format_by_any_tactic(layer, tactic, emulated) -> None:
    inputs, found, _ = compute(emulated, layer, tactic=tactic)
    check(layer, inputs, found)
