"""The recipes are what models/README.md says they are, and export to models that compute the same at other sizes."""

import re
from functools import cache
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import nn

from gn_deploy.exporters.recipe import Recipe, load_recipe
from gn_deploy.exporters.torch import export

MODELS = Path(__file__).parents[2] / "models"
NAMES = ["diffusion_unet", "digits_resnet"]
"""Those made for the tests; the others are in test_real_models."""
EXPORTED = [pytest.param("diffusion_unet", marks=pytest.mark.slow), "digits_resnet"]
"""To export the U-Net takes half a minute; models/README.md does it as well."""


@cache
def recipe(name: str) -> Recipe:
    return load_recipe(MODELS / f"{name}.py")


@cache
def exported(name: str) -> ir.Model:
    return export(recipe(name).module, recipe(name).inputs)


def norms(module: nn.Module) -> list[nn.GroupNorm]:
    return [m for m in module.modules() if isinstance(m, nn.GroupNorm)]


def rows() -> dict[str, list[str]]:
    """Cells of the README's tables by recipe."""
    table = re.findall(r"^\| `(\w+)\.py` \|(.*)\|$", (MODELS / "README.md").read_text(), re.MULTILINE)
    return {name: [cell.strip() for cell in cells.split("|")] for name, cells in table}


def accuracy() -> tuple[int, int]:
    """Right answers and images of the digits' test split."""
    digits = recipe("digits_resnet")
    assert digits.test_data is not None
    arrays, labels = digits.test_data()
    with torch.no_grad():
        answers = digits.module(torch.from_numpy(arrays["image"])).argmax(1).numpy()
    return int((answers == labels).sum()), len(labels)


def test_readme_lists_every_recipe() -> None:
    assert sorted(rows()) == sorted(path.stem for path in MODELS.glob("*.py") if path.stem != "_seeded")


@pytest.mark.parametrize("name", NAMES)
def test_readme_table_is_true(name: str) -> None:
    sites, parameters, *_ = rows()[name]
    module = recipe(name).module
    assert int(sites) == len(norms(module))
    assert int(parameters.replace(",", "")) == sum(p.numel() for p in module.parameters())


def test_digits_accuracy_is_the_stated_one() -> None:
    right, images = accuracy()
    assert images == 540
    assert right / images > 0.97
    stated, right_stated = re.findall(r"([\d.]+) % \((\d+) of 540\)", rows()["digits_resnet"][2])[0]
    # one image may fall on the other side of a boundary on another processor
    assert abs(right - int(right_stated)) <= 1
    assert f"{int(right_stated) / images:.2%}" == f"{stated}%"
    assert f"{int(right_stated) / images:.1%}".replace("%", " %") in recipe("digits_resnet").title


def test_digits_train_and_test_images_are_apart() -> None:
    import runpy

    (train, _), (test, _) = runpy.run_path(str(MODELS / "digits_resnet.py"))["split"]()
    assert len(train) + len(test) == 1797
    assert not {image.tobytes() for image in train} & {image.tobytes() for image in test}


def test_digits_weights_are_small() -> None:
    assert (MODELS / "digits_resnet.safetensors").stat().st_size < 1_000_000


def test_digits_exercise_every_rule_on_groups() -> None:
    sites = norms(recipe("digits_resnet").module)
    assert {site.num_groups for site in sites} >= {1, 8, 16, 32}
    assert any(site.num_groups == site.num_channels for site in sites)


def test_unet_has_many_sites_whose_affine_parameters_all_differ() -> None:
    sites = norms(recipe("diffusion_unet").module)
    assert len(sites) > 30
    for site in sites:
        assert site.weight.std() > 0.05
        assert site.bias.std() > 0.05


def test_unet_weights_are_the_same_each_time_and_leave_the_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    again = load_recipe(MODELS / "diffusion_unet.py").module
    assert torch.rand(1) == expected
    for ours, theirs in zip(recipe("diffusion_unet").module.parameters(), again.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", EXPORTED)
def test_exports_are_right_at_other_sizes(name: str) -> None:
    import onnxruntime

    subject = recipe(name)
    session = onnxruntime.InferenceSession(
        ir.to_proto(exported(name)).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    generator = torch.Generator().manual_seed(0)
    for batch, height, width in ((1, 16, 16), (3, 8, 20)):
        inputs = {
            key: torch.randn(batch, x.shape[1], height, width, generator=generator)
            if x.is_floating_point()
            else torch.randint(1000, (batch,), generator=generator)
            for key, x in subject.inputs.items()
        }
        with torch.no_grad():
            expected = subject.module(*inputs.values()).numpy()
        (actual,) = session.run(None, {key: x.numpy() for key, x in inputs.items()})
        # 1.4e-6 was the largest difference seen; outputs are of order 1
        np.testing.assert_allclose(actual, expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("name", EXPORTED)
def test_every_norm_of_the_module_is_in_the_export(name: str) -> None:
    scopes = [
        node.metadata_props["pkg.torch.onnx.name_scopes"]
        for node in exported(name).graph
        if node.op_type == "InstanceNormalization"
    ]
    paths = {path for path, module in recipe(name).module.named_modules() if isinstance(module, nn.GroupNorm)}
    assert {scope.split("'")[-4] for scope in scopes} == paths
