"""The plugin, a library or in the engine, is there for the models and engines that ask for it, and for no others."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from gn_deploy.decision import Accepted
from gn_deploy.errors import InputError, UnavailableError
from gn_deploy.plugin import nvrtc, quick
from gn_deploy.plugin.location import ENVIRONMENT
from gn_deploy.plugin.node import ATTRIBUTES
from gn_deploy.plugin.problem import DEVICES
from gn_deploy.plugin.specialise import Specialised
from gn_deploy.runtimes import RUNTIMES, tensorrt, trt_network
from gn_deploy.runtimes.base import BuildResult, RuntimeFailure
from gn_deploy.runtimes.trt_plugin import Loading, asks_for_plugin, for_model, for_plan
from tests.plugins import tensorrt_stand_in
from tests.runtimes.small_models import group_norm, model_of

TENSORRT = RUNTIMES.require("tensorrt")
LIBRARY = "plugin libgn_deploy_plugin.so: the engine needs it wherever it runs"


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "libgn_deploy_plugin.so"
    path.touch()
    monkeypatch.setenv(ENVIRONMENT, str(path))
    return path


@pytest.fixture
def native(tmp_path: Path) -> Path:
    path = tmp_path / "native.onnx"
    ir.save(group_norm()[0], path)
    return path


@pytest.fixture
def with_node(tmp_path: Path) -> Path:
    node = helper.make_node("GroupNorm", ["x"], ["y"], domain="gn_deploy", plugin_namespace="gn_deploy")
    path = tmp_path / "plugin.onnx"
    ir.save(model_of([node], {"x": (TensorProto.FLOAT, [1, 8, 4])}, {"y": TensorProto.FLOAT}), path)
    return path


def test_only_a_model_with_the_node_asks(native, with_node, tmp_path) -> None:
    assert not asks_for_plugin(native)
    assert asks_for_plugin(with_node)
    (tmp_path / "empty.onnx").touch()
    assert not asks_for_plugin(tmp_path / "empty.onnx")


def test_what_is_loaded_and_told(native, with_node, library, tmp_path, monkeypatch) -> None:
    assert for_model(native) == for_model(native, "none") == Loading()
    assert for_model(with_node) == for_model(with_node, "library") == Loading((library,), told=LIBRARY)
    assert for_model(with_node, "quick").quick
    assert for_model(with_node, "none") == Loading(told="without the plugin: the bodies of its nodes are compiled")
    assert for_model(with_node, "quick").libraries == for_model(with_node, "none").libraries == ()
    assert for_plan(b"...GroupNorm...gn_deploy...") == (library,)
    assert for_plan(b"...") == ()
    monkeypatch.delenv(ENVIRONMENT)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    bodies = "without the plugin (not built: gn-deploy plugin build): the bodies of its nodes are compiled"
    assert for_model(with_node) == Loading(told=bodies)
    with pytest.raises(UnavailableError, match="no plugin library: not built: gn-deploy plugin build"):
        for_model(with_node, "library")
    assert for_plan(b"gn_deploy") == ()


@pytest.mark.parametrize("plugin", ["library", "quick"])
def test_a_plugin_for_a_model_without_its_nodes_is_a_mistake(native, library, plugin: str) -> None:
    with pytest.raises(InputError, match=r"has no node of the plugin.*gn-deploy lower .* --target tensorrt\+plugin"):
        for_model(native, plugin)


def test_an_unknown_way_is_told_before_tensorrt_is_missed(with_node) -> None:
    for runtime in ("tensorrt", "tensorrt-rtx"):
        with pytest.raises(InputError, match=r"--plugin fast is not known.*library, quick, none"):
            RUNTIMES.require(runtime).build(with_node, with_node.with_suffix(".engine"), plugin="fast")


def test_rtx_takes_no_plugin(with_node) -> None:
    with pytest.raises(InputError, match=r"bodies.*--target tensorrt takes plugins"):
        RUNTIMES.require("tensorrt-rtx").build(with_node, with_node.with_suffix(".engine"), plugin="quick")


def test_a_build_loads_it_unless_told_what_to_load(native, with_node, library, monkeypatch) -> None:
    asked = []

    def built(name, model, out, time_limit, options) -> BuildResult:
        asked.append(options)
        return BuildResult(out, name, "10.9", 4)

    probe = replace(TENSORRT.probe(), run=Accepted(), build=Accepted())
    monkeypatch.setattr(type(TENSORRT), "probe", lambda self: probe)
    monkeypatch.setattr(tensorrt, "build_in_child", built)
    out = native.with_suffix(".engine")
    assert TENSORRT.build(native, out).detail == ""
    assert TENSORRT.build(with_node, out).detail == LIBRARY
    assert TENSORRT.build(with_node, out, plugins=(native,)).detail == ""
    assert TENSORRT.build(with_node, out, plugin="quick").detail.startswith("quick plugin")
    assert [options["plugins"] for options in asked] == [(), (library,), (native,), ()]
    assert [options.get("quick") for options in asked] == [False, False, None, True]


@pytest.fixture
def parsed(monkeypatch) -> Iterator[list[Any]]:
    """The kernels of a node that TensorRT's stand-in builds with the quick plugin, in place of a whole network."""
    kernels: list[Any] = []

    def build(trt, name, model, out, *, channels=64, **options) -> BuildResult:
        given = (2, channels, 4, 4), (channels,), (channels,), (1,), (1, channels), (1, channels)
        inputs = [tensorrt_stand_in.Input(tensorrt_stand_in.DataType.HALF, shape) for shape in given]
        try:
            kernels.extend(tensorrt_stand_in.build(trt, "GroupNorm", {**ATTRIBUTES, "num_groups": 8}, inputs))
        except InputError:  # TensorRT says no more of it
            raise RuntimeFailure("tensorrt 11.4 cannot build the engine") from None
        return BuildResult(out, name, "11.4", 4)

    with tensorrt_stand_in.installed():
        monkeypatch.setattr(quick, "_here", lambda: DEVICES["H200"])
        monkeypatch.setattr(nvrtc, "version", lambda: (13, 0))
        monkeypatch.setattr(Specialised, "compile", lambda self, capability: f"// sm_{capability}")
        monkeypatch.setattr(trt_network, "build", build)
        yield kernels


def test_the_quick_plugin_is_registered_before_the_model_is_parsed(parsed, with_node) -> None:
    out = with_node.with_suffix(".engine")
    with pytest.raises(AssertionError, match="no creator of GroupNorm"):
        TENSORRT.build_here(with_node, out)
    for _ in range(2):  # a second build in the same process
        TENSORRT.build_here(with_node, out, quick=True)
    assert {kernel.code for kernel in parsed} == {"// sm_90"}


def test_why_the_quick_plugin_refused_a_layer_is_told(parsed, with_node) -> None:
    out = with_node.with_suffix(".engine")
    with pytest.raises(
        RuntimeFailure, match=r"cannot build the engine: .*: 63 channels do not divide into 8"
    ):
        TENSORRT.build_here(with_node, out, quick=True, channels=63)
    TENSORRT.build_here(with_node, out, quick=True)


def test_without_nvrtc_the_quick_plugin_is_unavailable(parsed, with_node, monkeypatch) -> None:
    def absent() -> tuple[int, int]:
        raise UnavailableError("no CUDA run-time compiler", "pip install nvidia-cuda-nvrtc")

    monkeypatch.setattr(nvrtc, "version", absent)
    with pytest.raises(UnavailableError, match="pip install nvidia-cuda-nvrtc"):
        TENSORRT.build_here(with_node, with_node.with_suffix(".engine"), quick=True)
    assert parsed == []
