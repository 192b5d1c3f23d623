"""Blocks of real networks as torch exports them: every site says what stands around it, and keeps its numbers."""

import io
import warnings
from functools import cache

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

import gn_deploy as gn
from gn_deploy.runtimes import RUNTIMES
from gn_deploy.spec import Activation
from tests.around.modules import BLOCKS, CHANNELS, GROUPS

EXPORTERS = {"torchscript 17": (False, 17), "dynamo 18": (True, 18), "dynamo 21": (True, 21)}
QUICK = ("resnet scale_shift", "skip, sum an output", "nhwc, silu inside", "ldm")
CASES = [
    pytest.param(name, exporter, marks=[] if name in QUICK and exporter != "dynamo 18" else pytest.mark.slow)
    for name in BLOCKS
    for exporter in EXPORTERS
]


@cache
def exported(name: str, exporter: str) -> tuple[onnx.ModelProto, torch.nn.Module]:
    block, (dynamo, opset) = BLOCKS[name], EXPORTERS[exporter]
    torch.manual_seed(0)
    module = block.module().eval()
    for parameter in module.parameters():
        parameter.data = torch.randn_like(parameter) / 2 + 0.5 * (parameter.ndim == 1)
    names = list(block.dynamic) + [f"in{i}" for i in range(len(block.dynamic), len(block.inputs))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            shapes = tuple(dict.fromkeys(block.dynamic.get(n, {}), torch.export.Dim.DYNAMIC) for n in names)
            options = {"dynamo": True, "dynamic_shapes": shapes, "verbose": False}
            program = torch.onnx.export(module, block.inputs, opset_version=opset, input_names=names, **options)
            assert program is not None
            return program.model_proto, module
        held = io.BytesIO()
        options = {"dynamo": False, "dynamic_axes": block.dynamic}
        torch.onnx.export(module, block.inputs, held, opset_version=opset, input_names=names, **options)
    return onnx.load_from_string(held.getvalue()), module


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "exporter"), CASES)
def test_a_block(name: str, exporter: str) -> None:
    proto, module = exported(name, exporter)
    block = BLOCKS[name]
    sites = gn.find(proto)
    assert [s.spec.around for s in sites] == list(block.around)
    assert {(s.spec.num_groups, s.spec.num_channels) for s in sites} == {(GROUPS, CHANNELS)}
    with torch.no_grad():
        truth = module.double()(*(v.double() for v in block.inputs))
    wanted = [truth] if isinstance(truth, torch.Tensor) else list(truth)
    for form in ("contrib", "instance_norm", "layer_norm"):
        lowered, decisions = gn.lower(proto, f"onnx+{form}")
        assert [d.wrote or d.form for d in decisions] == [form] * len(sites), [d.decision.reason for d in decisions]
        onnx.checker.check_model(ir.to_proto(lowered))
        again = ir.from_proto(ir.to_proto(lowered))
        feeds = {str(v.name): a.double().numpy() for v, a in zip(again.graph.inputs, block.inputs, strict=True)}
        actual = RUNTIMES.require("onnx-reference").open(again, precision="float64").run(feeds)
        for value, told in zip(actual.values(), wanted, strict=True):
            np.testing.assert_allclose(value, told.numpy(), rtol=2e-5, atol=2e-5)
        if form == "contrib":
            fused = [n for n in again.graph.all_nodes() if n.domain == "com.microsoft"]
            for node, site in zip(fused, sites, strict=True):
                ada = site.spec.scale_shift
                assert (node.op_type == "SkipGroupNorm") == (site.spec.residual and not ada)
                assert node.attributes["activation"].as_int() == (site.spec.activation is Activation.SILU and not ada)
        assert not any(d.wrote for d in gn.lower(lowered, f"onnx+{form}").decisions)
