"""Which types and formats the plugin takes together: all of them tried, against a table written by hand."""

import itertools

import pytest

from tests.plugins.layers import Layer
from tests.plugins.vtable import Format, TensorDesc, Type, tensor

FLOAT, HALF, BF16, INT8, FP8 = Type.FLOAT, Type.HALF, Type.BF16, Type.INT8, Type.FP8
PLAIN = {(kind, Format.LINEAR) for kind in (FLOAT, HALF, BF16)}
IMAGES = {(FLOAT, Format.HWC), (HALF, Format.HWC8), (HALF, Format.HWC16), (BF16, Format.HWC8)}
VOLUMES = {(FLOAT, Format.DHWC), (HALF, Format.DHWC8), (BF16, Format.DHWC8)}
EVERYTHING = list(itertools.product(Type, Format))
SHAPES = {2: (2, 8), 3: (2, 8, 5), 4: (2, 8, 5, 5), 5: (2, 8, 3, 5, 5), 6: (2, 8, 2, 3, 5, 5)}
"""HWC formats pad the third last axis, DHWC formats the fourth last: the channels only in these ranks."""


def with_tensor(layer: Layer, pos: int, kind: Type, layout: Format) -> list[TensorDesc]:
    """The layer's own tensors up to ``pos``, there these; what comes after it is invalid, and must not be looked at."""
    ins, outs = layer.tensors()
    tensors = [*ins, *outs]
    tensors[pos] = tensor(tuple(tensors[pos].dims.d[: tensors[pos].dims.rank]), kind, layout)
    rubbish = TensorDesc.from_buffer_copy(b"\xa5" * 88)
    return tensors[: pos + 1] + [rubbish] * (len(tensors) - pos - 1)


def taken(host, layer: Layer, pos: int) -> set[tuple[Type, Format]]:
    plugin = layer.create(host)
    found = {(t, f) for t, f in EVERYTHING if plugin.supports(pos, with_tensor(layer, pos, t, f))}
    plugin.close()
    return found


@pytest.mark.parametrize("rank", SHAPES)
def test_x(rank, host) -> None:
    assert taken(host, Layer(SHAPES[rank]), 0) == PLAIN | {4: IMAGES, 5: VOLUMES}.get(rank, set())


@pytest.mark.parametrize("rank", SHAPES)
def test_x_that_has_its_channels_last_already_is_plain_memory(rank, host) -> None:
    shape = SHAPES[rank]
    assert taken(host, Layer((shape[0], *shape[2:], 8), {"channels_last": 1}), 0) == PLAIN


@pytest.mark.parametrize("output", ["int8", "float8e4m3fn"])
def test_x_before_a_quantized_result(output, host) -> None:
    """TensorRT has no 8-bit format of 3-D data with the channels last."""
    assert taken(host, Layer(SHAPES[4], {"output_type": output}), 0) == PLAIN | IMAGES
    assert taken(host, Layer(SHAPES[5], {"output_type": output}), 0) == PLAIN


@pytest.mark.parametrize(("kind", "layout"), sorted(PLAIN | IMAGES))
def test_the_others_follow_x(kind, layout, host) -> None:
    attributes = {"residual": 1, "modulation_scale": 1, "modulation_shift": 1, "sum": 1}
    layer = Layer(SHAPES[4], attributes, kind, layout)
    assert taken(host, layer, 1) == {(FLOAT, Format.LINEAR), (kind, Format.LINEAR)}
    for parameters in {FLOAT, kind}:
        same = Layer(SHAPES[4], attributes, kind, layout, parameters)
        for pos in (2, 4, 5):
            assert taken(host, same, pos) == {(parameters, Format.LINEAR)}
    for pos in (3, 6, 7):  # residual, y, sum
        assert taken(host, layer, pos) == {(kind, layout)}


@pytest.mark.parametrize(("kind", "layout"), sorted(PLAIN | IMAGES))
@pytest.mark.parametrize(("output", "made"), [("int8", INT8), ("float8e4m3fn", FP8)])
def test_a_quantized_result(kind, layout, output, made, host) -> None:
    layer = Layer(SHAPES[4], {"output_type": output, "residual": 1, "sum": 1}, kind, layout)
    assert taken(host, layer, 6) == {(made, Format.LINEAR if layout == Format.LINEAR else Format.HWC16)}
    assert taken(host, layer, 7) == {(kind, layout)}


@pytest.mark.parametrize(("kind", "layout"), sorted(PLAIN | IMAGES))
def test_what_stands_for_an_absent_input_is_one_number_of_the_type_around_it(kind, layout, host) -> None:
    layer = Layer(SHAPES[4], {}, kind, layout)
    assert taken(host, layer, 3) == {(kind, Format.LINEAR)}
    assert taken(host, layer, 4) == taken(host, layer, 5) == {(FLOAT, Format.LINEAR)}


def test_a_layer_of_other_tensors_supports_nothing(host) -> None:
    layer = Layer(SHAPES[4])
    plugin = layer.create(host)
    ins, outs = layer.tensors()
    assert plugin.supports(0, [*ins, *outs])
    assert not plugin.supports(0, [*ins[:5], *outs], inputs=5)
    assert not plugin.supports(0, [*ins, *outs, *outs])
    assert not plugin.supports(-1, [*ins, *outs])
    assert not plugin.supports(7, [*ins, *outs])
    plugin.close()


def test_fewer_combinations_are_legal_than_tensorrt_times(host) -> None:
    """Beyond the limit TensorRT stops asking, and the rest would never be tried."""
    layer = Layer(SHAPES[4], {"residual": 1, "sum": 1})
    legal = sum(len(taken(host, Layer(SHAPES[4], {}, *x), 1)) for x in taken(host, layer, 0))
    assert legal == 12
    plugin = layer.create(host)
    assert legal <= plugin.number("getFormatCombinationLimit")
    plugin.close()
