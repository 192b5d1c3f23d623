"""The plugin's library is loaded for the models and engines that ask for it, and for no others."""

from dataclasses import replace
from pathlib import Path

import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from gn_deploy.decision import Accepted
from gn_deploy.plugin.location import ENVIRONMENT
from gn_deploy.runtimes import RUNTIMES, tensorrt
from gn_deploy.runtimes.base import BuildResult
from gn_deploy.runtimes.trt_plugin import asks_for_plugin, for_model, for_plan
from tests.runtimes.small_models import group_norm, model_of

TENSORRT = RUNTIMES.require("tensorrt")


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
    assert for_model(native) == ((), "")
    assert for_model(with_node) == ((library,), "plugin libgn_deploy_plugin.so")
    assert for_plan(b"...GroupNorm...gn_deploy...") == (library,)
    assert for_plan(b"...") == ()
    monkeypatch.delenv(ENVIRONMENT)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    libraries, told = for_model(with_node)
    assert libraries == ()
    assert told == "without the plugin (not built: gn-deploy plugin build): the bodies of its nodes are compiled"
    assert for_plan(b"gn_deploy") == ()


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
    assert TENSORRT.build(with_node, out).detail == "plugin libgn_deploy_plugin.so"
    assert TENSORRT.build(with_node, out, plugins=(native,)).detail == ""
    assert [options["plugins"] for options in asked] == [(), (library,), (native,)]
