"""The plugin while TensorRT builds and runs an engine: shapes, the problem the kernels get, tactics and workspace."""

import ctypes

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gn_deploy.plugin.binding import (
    ACTIVATIONS,
    DTYPES,
    LAYOUTS,
    VARIANTS,
    CChoice,
    CDevice,
    CProblem,
    struct,
)
from tests.plugins.adapter import H100, SMALL
from tests.plugins.layers import BIAS, RESIDUAL, SCALE, SUM, WORKSPACE, Layer, S, T, X, Y, launched, run
from tests.plugins.vtable import Context, Format, Sizes, Type, dynamic, fixed, tensor

SKIP = {"residual": 1, "sum": 1}
ALL = {**SKIP, "modulation_scale": 1, "modulation_shift": 1}
INVALID_ARGUMENT = 3  # ErrorCode


@pytest.mark.parametrize(
    ("attributes", "types"),
    [
        ({}, [Type.HALF]),
        (SKIP, [Type.HALF, Type.HALF]),
        ({"output_type": "int8"}, [Type.INT8]),
        ({**SKIP, "output_type": "float8e4m3fn"}, [Type.FP8, Type.HALF]),
    ],
)
def test_types_and_shapes_of_the_outputs(attributes, types, host, capfd) -> None:
    plugin = Layer((2, 8, 5, 5), attributes).create(host)
    ins = [Type.HALF, Type.FLOAT, Type.FLOAT, Type.HALF, Type.FLOAT, Type.FLOAT]
    assert plugin.output_types(ins, len(types)) == types
    sizes = Sizes()
    shapes = [sizes.shape(s) for s in ((None, 8, None, 5), (8,), (8,), (None, 8, None, 5), (None, 8), (None, 8, 1, 1))]
    assert plugin.output_shapes(sizes, shapes, len(types)) == [list(shapes[0].d[:4])] * len(types)
    assert capfd.readouterr().err == ""
    assert plugin.output_types(ins[:5], len(types)) != 0
    assert plugin.output_shapes(sizes, shapes, len(types) + 1) != 0
    assert capfd.readouterr().err.count(f"has 6 and {len(types)}") == 2
    plugin.close()


@pytest.mark.parametrize(
    ("place", "sizes", "message"),
    [
        (0, (2,), "x has shape (2), needed (N, C, ...), at least two axes"),
        (0, (2, 9, 5, 5), "x has shape (2,9,5,5): 9 channels do not divide into 2 groups"),
        (1, (4,), "scale has shape (4), needed one number for each channel of x (?,8,?,5)"),
        (2, (8, 1, 1), "bias has shape (8,1,1), needed one number for each channel of x (?,8,?,5)"),
        (3, (None, 8, None, 1), "residual has shape (?,8,?,1), x has (?,8,?,5)"),
        (3, (None, 8, None), "residual has shape (?,8,?), x has (?,8,?,5)"),
        (4, (None, 4), "modulation_scale has shape (?,4), needed (N, C) or (N, C, 1, ...) of x (?,8,?,5)"),
        (5, (None, 8, 1, 5), "modulation_shift has shape (?,8,1,5), needed (N, C) or (N, C, 1, ...) of x (?,8,?,5)"),
        (5, (8,), "modulation_shift has shape (8), needed (N, C) or (N, C, 1, ...) of x (?,8,?,5)"),
    ],
)
def test_shapes_that_do_not_fit_are_told_when_the_layer_is_added(place, sizes, message, host, capfd) -> None:
    plugin = Layer((2, 8, 5, 5), ALL).create(host)
    builder = Sizes()
    shapes = [(None, 8, None, 5), (8,), (8,), (None, 8, None, 5), (None, 8), (None, 8, 1, 1)]
    shapes[place] = sizes
    assert plugin.output_shapes(builder, [builder.shape(s) for s in shapes], 2) != 0
    assert f"gn_deploy plugin: {message}" in capfd.readouterr().err
    plugin.close()


def test_what_stands_for_an_absent_input_may_have_any_shape(host) -> None:
    plugin = Layer((2, 8, 5, 5)).create(host)
    builder = Sizes()
    shapes = [(None, 8, None, 5), (8,), (8,), (1,), (1, 8), ()]
    assert isinstance(plugin.output_shapes(builder, [builder.shape(s) for s in shapes], 1), list)
    plugin.close()


@pytest.mark.parametrize(
    ("last", "sizes", "fits"),
    [
        (0, (None, 8), True),
        (0, (None, 8, 1), True),
        (0, (None, 1, 1, 8), False),
        (1, (None, 8), True),
        (1, (None, 1, 1, 8), True),
        (1, (None, 8, 1, 1), False),
        (1, (None, 1, 5, 8), False),
        (1, (3, 8), False),
    ],
)
def test_modulation_has_its_channels_where_x_has_them(last, sizes, fits, host, capfd) -> None:
    x = (2, 5, 5, 8) if last else (2, 8, 5, 5)
    plugin = Layer(x, {"channels_last": last, "modulation_scale": 1}).create(host)
    builder = Sizes()
    shapes = [x, (8,), (8,), (1,), sizes, (1, 8)]
    assert isinstance(plugin.output_shapes(builder, [builder.shape(s) for s in shapes], 1), list) == fits
    assert ("needed (N, C) or (N, 1, ..., C) of x" in capfd.readouterr().err) == (bool(last) and not fits)
    plugin.close()


def test_channels_last_nodes_have_their_channels_last(host, capfd) -> None:
    plugin = Layer((2, 5, 5, 8), {"channels_last": 1}).create(host)
    builder = Sizes()
    shapes = [(None, 5, 5, 8), (8,), (8,), (1,), (1, 8), (1, 8)]
    assert isinstance(plugin.output_shapes(builder, [builder.shape(s) for s in shapes], 1), list)
    shapes[0] = (None, 8, 5, 5)
    assert plugin.output_shapes(builder, [builder.shape(s) for s in shapes], 1) != 0
    assert "(?,8,5,5): 5 channels do not divide into 2 groups" in capfd.readouterr().err
    plugin.close()


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (Layer((3, 8)), {"positions": 1}),
        (Layer((3, 8, 7)), {"positions": 7}),
        (Layer((3, 8, 5, 7), {}, Type.HALF), {"positions": 35, "dtype": "float16"}),
        (Layer((3, 8, 2, 5, 7), {}, Type.BF16, Format.LINEAR, Type.BF16), {"positions": 70, "dtype": "bfloat16"}),
        (Layer((3, 8, 5, 7), {}, Type.FLOAT, Format.HWC), {"positions": 35, "layout": "nhwc", "pitch": 8}),
        (Layer((3, 12, 5, 7), {}, Type.HALF, Format.HWC8), {"positions": 35, "layout": "nhwc", "pitch": 16}),
        (Layer((3, 12, 2, 5, 7), {}, Type.BF16, Format.DHWC8), {"positions": 70, "layout": "nhwc", "pitch": 16}),
        (
            Layer((3, 20, 5, 7), {}, Type.HALF, Format.HWC16, Type.HALF),
            {"positions": 35, "layout": "nhwc", "pitch": 32},
        ),
        (
            Layer((3, 20, 5, 7), {"output_type": "int8"}, Type.HALF, Format.HWC8),
            {"positions": 35, "layout": "nhwc", "pitch": 24, "output_pitch": 32, "output_dtype": "int8"},
        ),
        (Layer((3, 5, 7, 6), {"channels_last": 1}), {"channels": 6, "positions": 35, "layout": "nhwc", "pitch": 6}),
        (
            Layer((3, 8, 5, 7), {"output_type": "float8e4m3fn", "output_scale": 0.25}),
            {"positions": 35, "output_dtype": "float8_e4m3fn", "output_scale": 0.25},
        ),
        (Layer((3, 8, 5), {"epsilon": 1e-3, "num_groups": 4}), {"epsilon": float(np.float32(1e-3)), "groups": 4}),
        *((Layer((3, 8, 5), {"activation": name}), {"activation": name}) for name in ACTIVATIONS),
        (Layer((3, 8, 5), SKIP), {"has_residual": 1, "has_sum": 1}),
        (Layer((3, 8, 5), {"residual": 1}), {"has_residual": 1}),
        (Layer((3, 8, 5), {"modulation_scale": 1}), {"has_modulation": 1}),
        (Layer((3, 8, 5), {"modulation_shift": 1}), {"has_modulation": 2}),
        (Layer((3, 8, 5), ALL), {"has_residual": 1, "has_sum": 1, "has_modulation": 3}),
    ],
    ids=str,
)
def test_the_problem_that_the_kernels_get(layer, expected, host) -> None:
    problem, _, buffers = launched(host, layer)
    kind = DTYPES[[Type.FLOAT, Type.HALF, Type.BF16].index(layer.type)]
    assert problem == {
        "samples": 3,
        "channels": layer.channels,
        "positions": 5,
        "pitch": layer.channels,
        "output_pitch": expected.get("pitch", layer.channels),
        "groups": 2,
        "epsilon": float(np.float32(1e-5)),
        "layout": LAYOUTS[0],
        "dtype": kind,
        "parameter_dtype": kind if layer.parameters == layer.type else "float32",
        "output_dtype": kind,
        "activation": "none",
        "output_scale": 1.0,
        "has_residual": 0,
        "has_sum": 0,
        "has_affine": 3,
        "has_modulation": 0,
        **expected,
    }
    present = {**layer.values}
    assert (buffers.x, buffers.scale, buffers.bias, buffers.y) == (X, SCALE, BIAS, Y)
    assert (buffers.residual or 0) == present["residual"] * RESIDUAL
    assert (buffers.modulation_scale or 0) == present["modulation_scale"] * S
    assert (buffers.modulation_shift or 0) == present["modulation_shift"] * T
    assert (buffers.sum or 0) == present["sum"] * SUM
    assert buffers.workspace == WORKSPACE
    assert buffers.counters


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ins, outs: ins.pop(), "the layer has 5 inputs and 2 outputs, SkipGroupNorm has 6 and 2"),
        (lambda ins, outs: outs.pop(), "the layer has 6 inputs and 1 outputs, SkipGroupNorm has 6 and 2"),
        (lambda ins, outs: ins.__setitem__(0, tensor((2, 9, 5))), "9 channels do not divide into 2 groups"),
        (lambda ins, outs: ins.__setitem__(1, tensor((9,))), "scale has shape (9), needed one number for each channel"),
        (lambda ins, outs: ins.__setitem__(2, tensor((2, 8))), "bias has shape (2,8), needed one number"),
        (lambda ins, outs: ins.__setitem__(3, tensor((2, 8, 4))), "residual has shape (2,8,4), x has (2,8,5)"),
        (lambda ins, outs: ins.__setitem__(4, tensor((1, 8))), "modulation_scale has shape (1,8), needed (N, C)"),
        (lambda ins, outs: ins.__setitem__(0, tensor((2, 8, -1))), "sizes of x are not known yet"),
        (
            lambda ins, outs: outs.__setitem__(0, tensor((2, 8, 4))),
            "output 0 has shape (2,8,4), which is not that of x",
        ),
        (lambda ins, outs: outs.__setitem__(1, tensor((2, 8, 5), Type.HALF)), "tensor 7 has type 1 and format 0"),
        (lambda ins, outs: ins.__setitem__(0, tensor((2, 8, 5), Type.INT32)), "tensor 0 has type 3 and format 0"),
        (lambda ins, outs: ins.__setitem__(0, tensor((2, 8, 5), Type.HALF, Format.HWC8)), "type 1 and format 2"),
    ],
)
def test_tensors_that_do_not_fit_are_told_to_the_error_recorder(change, message, host, capfd) -> None:
    layer = Layer((2, 8, 5), ALL)
    plugin = layer.create(host)
    context = Context()
    attached = plugin.attach(context)
    ins, outs = layer.tensors()
    change(ins, outs)
    assert attached.on_shape_change(ins, outs) != 0
    (code, told), *more = context.errors
    assert (code, more) == (INVALID_ARGUMENT, [])
    assert message in told
    assert message in capfd.readouterr().err
    attached.close()
    plugin.close()


def test_an_empty_batch_launches_nothing(host) -> None:
    before = host.launch()[0]
    for shape in ((0, 8, 5, 5), (2, 8, 0, 5)):
        layer = Layer(shape, ALL)
        plugin = layer.create(host)
        tensors = [fixed(t) for t in layer.tensors()[0]], [fixed(t) for t in layer.tensors()[1]]
        assert plugin.configure(*tensors) == 0
        assert plugin.workspace(*tensors) == 0
        assert plugin.on_shape_change(*layer.tensors()) == 0
        assert run(plugin, layer) == 0
        plugin.close()
    assert host.launch()[0] == before


def test_every_suited_variant_is_a_tactic(host) -> None:
    """A group of 64 KB: too much for a warp, and no clusters on sm_80."""
    layer = Layer((2, 8, 64, 64), {}, Type.FLOAT)
    plugin = layer.create(host)
    tensors = [[fixed(t) for t in tensors] for tensors in layer.tensors()]
    assert plugin.configure(*tensors) == 0
    wanted = {"block", "team", "split"}
    assert {VARIANTS[t - 1] for t in plugin.tactics()} == wanted
    assert plugin.clone().tactics() == plugin.tactics()
    for tactic in plugin.tactics():
        _, choice, _ = launched(host, layer, tactic)
        assert choice["variant"] == VARIANTS[tactic - 1]
    host.device(H100)
    assert plugin.configure(*tensors) == 0
    assert {VARIANTS[t - 1] for t in plugin.tactics()} == wanted | {"cluster"}
    plugin.close()


def test_a_tactic_that_does_not_suit_the_sizes_of_the_moment_gives_way(host) -> None:
    small, large = Layer((2, 8, 4, 4)), Layer((2, 8, 64, 64))
    assert launched(host, small, VARIANTS.index("warp") + 1)[1]["variant"] == "warp"
    assert launched(host, large, VARIANTS.index("warp") + 1)[1] == launched(host, large)[1]


def test_a_copy_has_the_tactic(host) -> None:
    layer = Layer((2, 8, 64, 64))
    plugin = layer.create(host)
    assert plugin.set_tactic(VARIANTS.index("split") + 1) == 0
    for copy in (plugin.clone(), plugin.attach(Context())):
        assert copy.on_shape_change(*layer.tensors()) == 0
        assert run(copy, layer) == 0
        assert VARIANTS[host.launch()[2].variant] == "split"
        copy.close()
    plugin.close()


def test_more_teams_than_there_are_counters_for_are_not_formed(host) -> None:
    """No GPU that there is has so many multiprocessors."""
    host.device(SMALL | {"multiprocessors": 1 << 14})
    layer = Layer((64, 64, 64, 64), {"num_groups": 64})
    plugin = layer.create(host)
    assert plugin.configure(*([fixed(t) for t in tensors] for tensors in layer.tensors())) == 0
    assert "team" not in {VARIANTS[t - 1] for t in plugin.tactics()}
    plugin.close()
    team = VARIANTS.index("team")
    asked = struct(CProblem, launched(host, layer)[0]), struct(CDevice, SMALL | {"multiprocessors": 1 << 14})
    choice = CChoice()
    assert host.c.gn_select(*map(ctypes.byref, asked), team, ctypes.byref(choice), None, ctypes.c_size_t(0)) == 0
    assert choice.counters > 32 * 1024, "a team was no choice anyway"
    assert launched(host, layer, team + 1)[1]["counters"] <= 32 * 1024


def test_tactics_that_do_not_exist_are_refused(host, capfd) -> None:
    plugin = Layer((2, 8, 4, 4)).create(host)
    assert plugin.set_tactic(len(VARIANTS)) == 0
    assert plugin.set_tactic(len(VARIANTS) + 1) != 0
    assert plugin.set_tactic(-1) != 0
    assert "there is no tactic 6, only 0 to 5" in capfd.readouterr().err
    assert plugin.number("getValidTactics", ctypes.c_void_p(None), ctypes.c_int32(3)) != 0
    plugin.close()


def test_building_without_a_gpu_leaves_the_choice_to_where_the_engine_runs(host) -> None:
    layer = Layer((2, 8, 64, 64))
    tensors = [[fixed(t) for t in tensors] for tensors in layer.tensors()]
    host.device(None)
    plugin = layer.create(host)
    assert plugin.configure(*tensors) == 0
    assert plugin.tactics() == []
    assert plugin.workspace(*tensors) > 0
    context = Context()
    attached = plugin.attach(context)
    assert attached.on_shape_change(*layer.tensors()) != 0
    assert context.errors[0][1] == "no current GPU: none was set"
    attached.close()
    plugin.close()


def profile(layer: Layer, smallest, usual, largest):
    """The layer's tensors with (N, H, W) between these."""

    def described(desc):
        own = tuple(desc.dims.d[: desc.dims.rank])
        if own != layer.shape:
            return fixed(desc)
        bounds = [(n, layer.channels, h, w) for n, h, w in (smallest, usual, largest)]
        return dynamic(tensor((-1, layer.channels, -1, -1), Type(desc.type), Format(desc.format)), *bounds)

    return [[described(t) for t in tensors] for tensors in layer.tensors()]


@settings(max_examples=60, deadline=None)
@given(
    channels=st.sampled_from([8, 12, 32, 320]),
    groups=st.sampled_from([1, 2, 4]),
    batch=st.integers(1, 9),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    kind=st.sampled_from([(Type.FLOAT, Format.LINEAR), (Type.HALF, Format.LINEAR), (Type.HALF, Format.HWC8)]),
    on=st.sampled_from([SMALL, H100]),
    tactic=st.integers(0, len(VARIANTS)),
)
def test_the_workspace_suffices_for_all_sizes_of_the_profile(
    channels, groups, batch, height, width, kind, on, tactic, loaded
) -> None:
    """And on another GPU than the one the engine was built on."""
    loaded.device(SMALL)
    layer = Layer((9, channels, 40, 40), {"num_groups": groups}, *kind)
    plugin = layer.create(loaded)
    described = profile(layer, (1, 1, 1), (4, 20, 20), (9, 40, 40))
    assert plugin.configure(*described) == 0
    promised = plugin.workspace(*described)
    plugin.close()
    loaded.device(on)
    now = Layer((batch, channels, height, width), {"num_groups": groups}, *kind)
    assert launched(loaded, now, tactic)[1]["workspace"] <= promised


def test_a_profile_with_sizes_that_pose_no_problem_is_refused(host, capfd) -> None:
    layer = Layer((9, 8, 40, 40))
    plugin = layer.create(host)
    described = profile(layer, (1, 1, 1), (4, 20, 20), (9, 40, 40))
    described[0][0].max.d[1] = 9
    assert plugin.configure(*described) != 0
    assert "9 channels do not divide into 2 groups" in capfd.readouterr().err
    assert plugin.workspace(*described) == 0
    plugin.close()
