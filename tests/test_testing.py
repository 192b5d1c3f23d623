"""``assert_parity`` as a user's test calls it."""

import inspect
import json
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import SkipTest

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from torch import nn

import gn_deploy as gn
from gn_deploy import testing
from gn_deploy.errors import InputError, UnavailableError
from gn_deploy.runtimes import RUNTIMES
from gn_deploy.testing import assert_parity
from tests.cli.conftest import model as one_norm


def saved(path: Path, **facts: Any) -> Path:
    onnx.save(one_norm(**facts), path)
    return path


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(4, 8), nn.SiLU())


IMAGES = torch.randn(2, 3, 9, 7, generator=torch.Generator().manual_seed(0))


def test_the_example_of_the_docstring(tmp_path: Path) -> None:
    _, _, block = (inspect.getdoc(testing) or "").partition("::\n")
    names: dict[str, Any] = {}
    exec(textwrap.dedent(block.partition("\nA failure is")[0]), names)
    names["test_my_model_deploys"]()
    names["test_the_file_we_ship"](tmp_path)
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert [v["runtime"] for v in report["sites"]] == [testing.EXPORT, "onnx-reference"]


def test_every_kind_of_model(tmp_path: Path) -> None:
    proto = one_norm(opset=20, op="Relu")
    path = saved(tmp_path / "model.onnx")
    program = SimpleNamespace(model=ir.load(path))  # an ONNXProgram is what has its model in this attribute
    for given in (path, str(path), onnx.load(path), ir.load(path), program):
        report = assert_parity(given)
        assert [v.runtime for v in report.runtimes] == ["onnx-reference"]
        assert len(report.sites) == 1
    assert assert_parity(proto, "onnxruntime").held  # no GroupNorm: the outputs decide


def test_a_failure_says_what_broke_and_what_to_do(tmp_path: Path) -> None:
    path = saved(tmp_path / "model.onnx", groups=4, channels=8)  # one-pass in ONNX Runtime
    with pytest.raises(AssertionError) as told:
        assert_parity(path, ["onnxruntime", "onnx-reference"], report=tmp_path / "report")
    text = str(told.value)
    assert text.startswith("Parity broken. 1 of 1 GroupNorm on 2 runtimes broken, worst: norm on onnxruntime.")
    assert "\n  unstable  norm on onnxruntime: " in text
    assert f"\nNext: Write them the way onnxruntime computes them right: gn-deploy lower {path} --target " in text
    assert text.endswith(f"The whole report: {tmp_path / 'report' / 'report.html'}")
    assert (tmp_path / "report" / "report.html").is_file()
    assert len(text.splitlines()) == 4


def test_problems_are_counted_when_they_are_many(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(testing, "SHOWN", 0)
    with pytest.raises(AssertionError, match="and 2 more"):
        assert_parity(saved(tmp_path / "b.onnx", epsilon=1e-3), reference=saved(tmp_path / "a.onnx"))


def test_another_model_is_told_from_the_reference(tmp_path: Path) -> None:
    a, b = saved(tmp_path / "a.onnx"), saved(tmp_path / "b.onnx", epsilon=1e-3)
    assert assert_parity(a, reference=onnx.load(a)).held
    with pytest.raises(AssertionError, match="epsilon"):
        assert_parity(b, reference=a)


def test_a_module_is_the_truth_of_its_file(tmp_path: Path) -> None:
    module, other = network(), network()
    gn.export(module, IMAGES, out=tmp_path / "model.onnx", verify=False)
    with torch.no_grad():
        other[1].weight[3] += 0.1
    with pytest.raises(AssertionError, match=r"Parity broken\. 1 of 1 GroupNorm"):
        assert_parity(tmp_path / "model.onnx", reference=other, inputs=IMAGES, network=False)


def test_a_wrong_export_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is exported is not taken on trust: here it is the export of a module with another epsilon."""
    wrong = network()
    wrong[1].eps = 1e-3
    exported = gn.export(wrong, IMAGES, verify=False)
    monkeypatch.setattr(testing.api, "export", lambda *_, **__: exported)
    with pytest.raises(AssertionError, match=r"fail  1 on export: .*epsilon is 0.001, the module has 1e-05"):
        assert_parity(network(), inputs=IMAGES)


def test_data_and_options_reach_the_comparison(tmp_path: Path) -> None:
    path = saved(tmp_path / "model.onnx")
    x = np.random.default_rng(0).normal(size=(40, 4, 4, 4)).astype(np.float32)
    report = assert_parity(path, data={"x": x}, metric="cosine", allowed_drop=0.01, network=False)
    assert [(t.metric, t.samples, str(t.status)) for t in report.tasks] == [("cosine, reference as label", 40, "pass")]
    with pytest.raises(AssertionError, match=r"atol=1e-12"):
        assert_parity(path, atol=1e-12)
    with pytest.raises(TypeError, match="no_such_option"):
        assert_parity(path, no_such_option=1)


def test_a_runtime_that_is_not_here_is_an_error(tmp_path: Path) -> None:
    assert not RUNTIMES.require("tensorrt").probe().run, "this test needs a machine without TensorRT"
    path = saved(tmp_path / "model.onnx")
    with pytest.raises(UnavailableError, match=r"'tensorrt' cannot run here.*missing='skip'"):
        assert_parity(path, ["onnx-reference", "tensorrt"])


def test_or_a_skip_when_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good, bad = saved(tmp_path / "a.onnx"), saved(tmp_path / "b.onnx", epsilon=1e-3)
    with pytest.raises(pytest.skip.Exception, match="'tensorrt' cannot run here"):
        assert_parity(good, ["onnx-reference", "tensorrt"], missing="skip")
    with pytest.raises(pytest.skip.Exception, match="'tensorrt' cannot run here"):
        assert_parity(bad, "tensorrt", reference=good, missing="skip")  # nothing ran
    with pytest.raises(AssertionError, match="Parity broken"):  # what ran is judged first
        assert_parity(bad, ["onnx-reference", "tensorrt"], reference=good, missing="skip")
    monkeypatch.delitem(sys.modules, "pytest")
    with pytest.raises(SkipTest, match="'trt' cannot run here"):
        assert_parity(good, "trt", missing="skip")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"model": "absent.onnx"}, "absent.onnx"),
        ({"model": network()}, "example inputs"),
        ({"model": one_norm(), "missing": "ignore"}, "missing='ignore'"),
        ({"model": one_norm(), "runtimes": "onnxruntim"}, "unknown runtime"),
        ({"model": one_norm(), "reference": one_norm(channels=6)}, "inputs"),
    ],
)
def test_arguments_that_do_not_fit(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        assert_parity(**arguments)
