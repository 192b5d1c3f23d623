"""The plugin's creators: their names, what they refuse and why, and what an engine keeps of a layer."""

import ctypes
import math

import numpy as np
import pytest

from gn_deploy.plugin.node import ATTRIBUTES, DOMAIN, OPS, VERSION
from tests.plugins.layers import Layer
from tests.plugins.vtable import GET_INTERFACE_INFO, SIZES, FieldType, InterfaceInfo, call, collection, field

FULL = {
    "num_groups": 4,
    "epsilon": 1e-6,
    "activation": "gelu_tanh",
    "channels_last": 1,
    "residual": 1,
    "modulation_scale": 1,
    "modulation_shift": 1,
    "sum": 1,
    "output_type": "int8",
    "output_scale": 0.1,
}


def test_structs_have_the_sizes_of_nvidias() -> None:
    """abi.h asserts the same of its own."""
    assert {kind: ctypes.sizeof(kind) for kind in SIZES} == SIZES


def test_the_library_offers_the_nodes_that_the_graph_writes(host) -> None:
    assert tuple(host.creators) == OPS
    for creator in host.creators.values():
        assert (creator.version, creator.namespace) == (VERSION, DOMAIN)
        assert creator.kind() == ("PLUGIN CREATOR_V3ONE", 1, 0)


def test_the_attributes_are_those_that_the_graph_writes(host) -> None:
    kinds = {int: FieldType.INT32, float: FieldType.FLOAT32, str: FieldType.CHAR}
    for creator in host.creators.values():
        assert creator.fields() == {name: kinds[type(value)] for name, value in ATTRIBUTES.items()}
        assert list(creator.fields()) == list(ATTRIBUTES)


@pytest.mark.parametrize("name", OPS)
def test_a_plugin_says_who_it_is(name, host) -> None:
    more = {"sum": int("Skip" in name), "residual": 1, "output_type": "float8e4m3fn" if "Quantize" in name else "x"}
    plugin = Layer((2, 4, 3), more).create(host)
    assert plugin.name() == (name, VERSION, DOMAIN)
    assert plugin.number("getNbOutputs") == 1 + more["sum"]
    assert plugin.clone().name() == plugin.name()
    plugin.close()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "attribute 'num_groups' is missing"),
        ({"num_groups": 0}, "attribute 'num_groups' is 0, needed 1 or more"),
        ({"num_groups": -3}, "attribute 'num_groups' is -3, needed 0 to 2147483647"),
        ({"num_groups": (1 << 40, FieldType.INT64)}, "attribute 'num_groups' is 1099511627776, needed 0 to 2147483647"),
        ({"num_groups": 8.0}, "attribute 'num_groups' must be one integer"),
        ({"num_groups": ([2, 2], FieldType.INT32)}, "attribute 'num_groups' must be one integer"),
        ({"num_groups": ([], FieldType.INT32)}, "attribute 'num_groups' must be one integer"),
        ({"epsilon": -1e-5}, "attribute 'epsilon' is -1e-05, needed a number of 0 or more"),
        ({"epsilon": math.nan}, "attribute 'epsilon' is nan, needed a number of 0 or more"),
        ({"epsilon": math.inf}, "attribute 'epsilon' is inf, needed a number of 0 or more"),
        ({"epsilon": 1}, "attribute 'epsilon' must be one float"),
        (
            {"activation": "swish"},
            "attribute 'activation' is 'swish', which is not one of none, relu, silu, hardswish, gelu, gelu_tanh, mish",
        ),
        ({"activation": "sil"}, "attribute 'activation' is 'sil', which is not one of none"),
        ({"activation": ""}, "attribute 'activation' is '', which is not one of none"),
        ({"activation": 2}, "attribute 'activation' must be a string"),
        ({"channels_last": 2}, "attribute 'channels_last' is 2, needed 0 to 1"),
        ({"residual": -1}, "attribute 'residual' is -1, needed 0 to 1"),
        ({"sum": 1}, "attribute 'sum' is 1 without a residual to add"),
        ({"sum": 1, "residual": 1}, "attributes sum=1 and output_type=x are those of SkipGroupNorm, not of GroupNorm"),
        (
            {"output_type": "int8"},
            "attributes sum=0 and output_type=int8 are those of GroupNormQuantize, not of GroupNorm",
        ),
        ({"output_type": "uint8"}, "attribute 'output_type' is 'uint8', which is not one of x, int8, float8e4m3fn"),
        ({"output_type": "int8", "output_scale": 0.0}, "attribute 'output_scale' is 0, needed a number above 0"),
        ({"groups": 8}, "attribute 'groups' is not known to version 1"),
    ],
)
def test_bad_attributes_are_told(given, message, host, capfd) -> None:
    base = {"num_groups": 8} if given and "num_groups" not in given else {}
    fields = [field(n, *v) if isinstance(v, tuple) else field(n, v) for n, v in {**base, **given}.items()]
    assert host.creators["GroupNorm"].create(fields, name="unet.norm1") is None
    assert f"gn_deploy plugin: layer 'unet.norm1': {message}" in capfd.readouterr().err


def test_malformed_collections_are_told(host, capfd) -> None:
    creator = host.creators["GroupNorm"]
    twice = [field("num_groups", 8), field("num_groups", 8)]
    nameless = field("num_groups", 8)
    nameless.name = None
    empty = field("num_groups", 8)
    empty.data = None
    word = field("activation", "silu")
    word.data = None
    headless = collection([])
    headless.count = 3
    headless.fields = None
    cases = [
        (None, "no attributes given"),
        (headless, "no attributes given"),
        (twice, "attribute 'num_groups' is given twice"),
        ([nameless], "an attribute has no name"),
        ([empty], "attribute 'num_groups' must be one integer"),
        ([field("num_groups", 8), word], "attribute 'activation' must be a string"),
    ]
    for fields, message in cases:
        assert creator.create(fields) is None
        assert message in capfd.readouterr().err


def test_quiet_is_quiet(host, capfd, monkeypatch) -> None:
    """ctypes' libc sees the change, since os.environ calls putenv."""
    monkeypatch.setenv("GN_DEPLOY_PLUGIN_QUIET", "1")
    assert host.creators["GroupNorm"].create([]) is None
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("kind", [FieldType.INT8, FieldType.INT16, FieldType.INT32, FieldType.INT64])
def test_integers_of_every_size_are_read(kind, host) -> None:
    plugin = host.creators["GroupNorm"].create([field("num_groups", 8, kind), field("residual", 1, kind)])
    assert plugin is not None
    assert plugin.serialized()["num_groups"] == 8
    assert plugin.serialized()["residual"] == 1
    plugin.close()


def test_words_need_no_zero_at_their_end(host) -> None:
    """TensorRT's ONNX parser writes one, its Python bindings do not."""
    word = field("activation", "hardswish")
    word.length -= 1
    plugin = host.creators["GroupNorm"].create(
        [field("num_groups", 8), word, field("epsilon", 1e-3, FieldType.FLOAT64)]
    )
    assert plugin is not None
    assert plugin.serialized()["activation"] == "hardswish"
    assert plugin.serialized()["epsilon"] == pytest.approx(1e-3, rel=1e-7)
    plugin.close()


def test_an_engine_gets_back_what_it_was_given(host) -> None:
    creator = host.creators["SkipGroupNormQuantize"]
    plugin = creator.create([field(name, value) for name, value in FULL.items()])
    assert plugin is not None
    kept = plugin.serialized()
    floats = {name: float(np.float32(value)) for name, value in FULL.items() if isinstance(value, float)}
    assert kept == {**FULL, **floats, "serialization_version": 1}

    again = creator.create(plugin.serialized_collection(), runtime=True)
    assert again is not None
    plugin.close()  # the copy stands on its own
    assert again.serialized() == kept
    assert again.text("getMetadataString") == ",".join(
        f"{name}={np.float32(value):.9g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in FULL.items()
    )
    again.close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"serialization_version": 2}, "built with fields of version 2, this library reads version 1: build it again"),
        ({"serialization_version": None}, "built with fields of version 0, this library reads version 1"),
        ({"serialization_version": 2, "dropout": 1}, "built with fields of version 2"),
        ({"output_scale": None}, "attribute 'output_scale' is missing"),
        ({"epsilon": -1.0}, "attribute 'epsilon' is -1"),
    ],
)
def test_an_engine_of_another_version_is_refused(change, message, host, capfd) -> None:
    values = {**ATTRIBUTES, "num_groups": 4, "serialization_version": 1, **change}
    fields = [field(name, value) for name, value in values.items() if value is not None]
    assert host.creators["GroupNorm"].create(fields, runtime=True) is None
    assert message in capfd.readouterr().err


def test_the_timing_cache_tells_layers_apart_by_their_attributes_alone(host) -> None:
    changes: list[dict[str, object]] = [
        {},
        {"num_groups": 1},
        {"epsilon": 1.0000001e-5},
        *({"activation": name} for name in ("relu", "silu", "gelu", "gelu_tanh")),
        *({name: 1} for name in ("channels_last", "residual", "modulation_scale", "modulation_shift")),
        {"residual": 1, "sum": 1},
        {"output_type": "int8"},
        {"output_type": "int8", "output_scale": 0.5},
    ]
    plugins = [Layer((2, 4, 5, 5), change).create(host) for change in changes]
    ids = [plugin.text("getTimingCacheID") for plugin in plugins]
    assert len(set(ids)) == len(changes)
    assert ids[0] == plugins[0].clone().text("getTimingCacheID")
    assert all("gn_deploy " in name and ", sources " in name for name in ids)  # a new library must be timed again


def test_capabilities_answer_for_themselves(host) -> None:
    plugin = Layer((2, 4, 5, 5)).create(host)
    for capability, kind in ((plugin.core, "CORE"), (plugin.build, "BUILD"), (plugin.runtime, "RUNTIME")):
        info = call(capability, GET_INTERFACE_INFO, InterfaceInfo)
        assert info.kind.decode() == f"PLUGIN_V3ONE_{kind}"
        assert info.major == (2 if kind == "BUILD" else 1)  # getAliasedInput came with 2
    assert len({plugin.core, plugin.build, plugin.runtime}) == 3
    plugin.close()
