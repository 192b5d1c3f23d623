"""Hand-written torch, exported: found with its numbers, written as the operator; look-alikes stay, with the reason."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

import gn_deploy as gn
from gn_deploy.api import inspect
from gn_deploy.runtimes import RUNTIMES
from gn_deploy.spec import GroupNormSpec
from tests.forms.spelled import BAD, EPSILON, GOOD, C, G, H, N, Spelled, W, exported

FIXED = ("corrected_back", "wide_affine")  # a size stands in the code, so every export of it is of that size
NOTES = {"one_pass_clamped": "one pass", "one_pass_abs": "one pass"}


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
@pytest.mark.parametrize("name", GOOD)
def test_found_and_written(name: str, exporter: str) -> None:
    dynamic = exporter == "dynamo" and name not in FIXED
    model = exported(GOOD[name], exporter, dynamic)

    (site,) = gn.find(model)

    assert site.spec == GroupNormSpec(G, C, epsilon=EPSILON, rank=4)
    assert site.scale is not None
    assert site.bias is not None
    assert NOTES.get(name, "") in "; ".join(site.notes)
    lowered = gn.lower(model, "onnx+native")
    assert [d.wrote for d in lowered.decisions] == ["native"], lowered.decisions
    left = {node.op_type for node in lowered.model.graph}
    assert left <= {"GroupNormalization"}, left  # nothing of it stays behind
    onnx.checker.check_model(ir.to_proto(lowered.model), full_check=True)
    shape = (3, C, 5, 7) if dynamic else (N, C, H, W)
    x = torch.from_numpy(np.random.default_rng(0).normal(1.0, 2.0, shape))
    wanted = Spelled(GOOD[name]).double().eval()(x).detach().numpy()
    session = RUNTIMES.require("onnx-reference").open(lowered.model, precision="float64")
    (y,) = session.run({lowered.model.graph.inputs[0].name: x.numpy()}).values()
    # epsilon and folded parameters are float32: 2^-24 of values below 16, twice
    np.testing.assert_allclose(y, wanted, rtol=0, atol=2**-24 * 16 * 2)


@pytest.mark.parametrize("exporter", ["torchscript", pytest.param("dynamo", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", BAD)
def test_left_alone_with_the_reason(name: str, exporter: str) -> None:
    function, reason = BAD[name]
    model = exported(function, exporter, exporter == "dynamo")
    found = inspect(model)
    assert not found.sites
    assert any(reason in miss.reason for miss in found.near_misses), found.near_misses
    lowered = gn.lower(model, "onnx+native")
    assert not lowered.decisions
