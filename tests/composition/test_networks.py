"""Whole networks, as exported and as lowered by us, after the optimizers of the field: every site is still there."""

import io
from collections import Counter
from functools import cache
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest

import gn_deploy as gn
from gn_deploy.exporters.recipe import Recipe, load_recipe
from tests.composition.optimizers import OPTIMIZERS
from tests.composition.test_files import kinds
from tests.corpus.test_lowered import FORMS

MODELS = Path(__file__).parents[2] / "models"
SITES = {"digits_resnet": 9, "diffusion_unet": 41}
EXPORTERS = ("torchscript-17", "dynamo-18", "dynamo-21")
slow = pytest.mark.slow
NETWORKS = [
    *(("digits_resnet", exporter, "") for exporter in EXPORTERS[:2]),
    *(
        pytest.param("digits_resnet", exporter, form, marks=[slow] * ((i + j) % 2))  # each form from one exporter
        for i, exporter in enumerate(EXPORTERS[:2])
        for j, form in enumerate(FORMS)
    ),
    *(pytest.param("digits_resnet", "dynamo-21", form, marks=slow) for form in ("", *FORMS)),
    *(pytest.param("diffusion_unet", exporter, "", marks=slow) for exporter in EXPORTERS),
    *(pytest.param("diffusion_unet", "dynamo-18", form, marks=slow) for form in FORMS),
]
MACHINE_LAYOUT = {("torchscript-17", "ort-all")}  # no shapes are written, none can be inferred behind NCHWc Convs
NO_DEPRECATED = {("native18", "onnxsim")}  # it takes no model with a deprecated operator


@cache
def recipe(name: str) -> Recipe:
    return load_recipe(MODELS / f"{name}.py")


@cache
def exported(name: str, exporter: str) -> onnx.ModelProto:
    if exporter == "torchscript-17":
        return torchscript(recipe(name))
    module, inputs = recipe(name).module, recipe(name).inputs
    return ir.to_proto(gn.export(module, inputs, opset=int(exporter[-2:]), verify=False).model)


def torchscript(subject: Recipe) -> onnx.ModelProto:
    import torch

    file = io.BytesIO()
    names, free = list(subject.inputs), {name: {0: "batch"} for name in subject.inputs}
    torch.onnx.export(
        subject.module,
        tuple(subject.inputs.values()),
        file,
        opset_version=17,
        dynamo=False,
        input_names=names,
        dynamic_axes=free,
    )
    return onnx.load_from_string(file.getvalue())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("name", "exporter", "form"), NETWORKS)
def test_every_site_is_still_there(name: str, exporter: str, form: str) -> None:
    model = exported(name, exporter)
    if form:
        model = ir.to_proto(gn.lower(model, f"onnx+{form}", verify=False).model)
    before = kinds(model)
    assert before.total() == SITES[name]
    lost = {}
    for tool, optimize in OPTIMIZERS.items():
        if (exporter, tool) not in MACHINE_LAYOUT and (form, tool) not in NO_DEPRECATED:
            after = kinds(optimize(model))
            if after != before:
                lost[tool] = before - after
    assert not lost


@pytest.mark.parametrize(
    "tool", [t if t in ("onnxscript", "ort-extended") else pytest.param(t, marks=slow) for t in OPTIMIZERS]
)
def test_an_optimized_network_is_lowered_and_computes_the_same(tool: str) -> None:
    source = exported("digits_resnet", "dynamo-18")
    model, decisions = gn.lower(OPTIMIZERS[tool](source), "onnx+layer_norm")
    assert Counter(d.wrote for d in decisions) == {"layer_norm": 9}
    report = gn.compare(source, model, runtimes=["onnxruntime"])
    assert report.held, report.sites
