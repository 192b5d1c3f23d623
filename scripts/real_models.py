"""Writes the table of real models in models/README.md: GroupNorms found, rewritten, proved; --check only compares.

Every recipe of the table is exported three times, as its users would, with free sizes. True is a cell only when

1. the sites found are the nn.GroupNorm calls: groups, channels, epsilon, and every number of scale and bias;
2. the same sites are found again after lowering for each target, all in the form asked for, each rewrite proved;
3. parity held: each site of each form on probes, by the ONNX standard, and the whole network on ONNX Runtime.

Needs gn-deploy[real-models]. Only the rows of recipes given as arguments are made. Half an hour for all.
"""

import argparse
import contextlib
import hashlib
import io
import logging
import os
import sys
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
from torch import nn

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # for scripts.pages

import gn_deploy as gn  # noqa: E402
from gn_deploy.errors import GnDeployError  # noqa: E402
from gn_deploy.exporters.axes import Axes, propose  # noqa: E402
from gn_deploy.exporters.failure import one_line  # noqa: E402
from gn_deploy.exporters.recipe import Recipe, load_recipe  # noqa: E402
from gn_deploy.parity.status import Status  # noqa: E402
from scripts import pages  # noqa: E402

os.environ["HF_HUB_OFFLINE"] = "1"  # weights are random: nothing is to be downloaded
MODELS = ROOT / "models"
README = MODELS / "README.md"
BLOCK = "real models"
RECIPES = {
    "sd_vae": "diffusers",
    "sd_unet": "diffusers",
    "timm_resnet50_gn": "timm",
    "timm_bit": "timm",
    "timm_poolformer": "timm",
    "wav2vec2": "transformers",
    "mask2former": "transformers",
    "deformable_detr": "transformers",
    "monai_unet3d": "monai",
    "monai_segresnet": "monai",
    "torchvision_fcos": "torchvision",
    "smp_fpn": "segmentation_models_pytorch",
}
"""Recipe -> the package that its model comes from."""
EXPORTS = {"legacy 17": (False, 17), "dynamo 18": (True, 18), "dynamo 21": (True, 21)}
"""Column -> whether dynamo exports, and the opset."""
TARGETS = {"ort-cpu": "instance_norm", "onnx+native": "native", "onnx+layer_norm": "layer_norm",
           "onnx+primitives": "primitives"}  # fmt: skip
"""Target -> the form that every site is to have."""


class Norm(NamedTuple):
    """A GroupNorm as the module calls it, and as a site says it; equal when they are the same."""

    groups: int
    channels: int
    epsilon: float
    parameters: str


def called(recipe: Recipe) -> Counter[Norm]:
    """Every call of an nn.GroupNorm in one run of the module."""
    norms: Counter[Norm] = Counter()

    def count(norm: nn.GroupNorm, *_: Any) -> None:
        numbers = digest(norm.weight.detach().numpy(), norm.bias.detach().numpy())
        norms[Norm(norm.num_groups, norm.num_channels, norm.eps, numbers)] += 1

    hooks = [m.register_forward_hook(count) for m in recipe.module.modules() if isinstance(m, nn.GroupNorm)]
    with torch.no_grad():
        recipe.module(*recipe.inputs.values())
    for hook in hooks:
        hook.remove()
    return norms


def sited(sites: "Iterable[gn.GroupNormSite]") -> Counter[Norm]:
    norms: Counter[Norm] = Counter()
    for site in sites:
        held = [None if p is None else p.array for p in (site.scale, site.bias)]
        numbers = "" if held[0] is None or held[1] is None else digest(held[0], held[1])
        norms[Norm(site.spec.num_groups, site.spec.num_channels, site.spec.epsilon, numbers)] += 1
    return norms


def digest(*arrays: np.ndarray) -> str:
    return hashlib.sha256(b"".join(np.asarray(a, np.float32).tobytes() for a in arrays)).hexdigest()


def free(recipe: Recipe) -> Axes:
    """The sizes to be left open: those the recipe names, or batch and image."""
    return recipe.dynamic if isinstance(recipe.dynamic, Mapping) else propose(recipe.inputs)


def exported(recipe: Recipe, dynamo: bool, opset: int) -> Any:
    inputs, axes = recipe.inputs, free(recipe)
    arguments = (recipe.module, tuple(inputs.values()))
    with torch.no_grad(), quiet():
        if dynamo:
            shapes = tuple(axes.get(name) for name in inputs)
            model = torch.onnx.export(*arguments, opset_version=opset, dynamo=True, dynamic_shapes=shapes).model
        else:
            file = io.BytesIO()
            names = list(inputs)
            torch.onnx.export(*arguments, file, opset_version=opset, dynamo=False, input_names=names, dynamic_axes=axes)
            model = onnx.load_from_string(file.getvalue())
    return model


def cell(recipe: Recipe, wanted: Counter[Norm], dynamo: bool, opset: int) -> str:
    """``986 nodes: 52 found, lowered, held``, or what is not so."""
    try:
        model = exported(recipe, dynamo, opset)
    except Exception as error:  # whatever the exporter's layers raise
        return f"not exported: {one_line(error)}"
    nodes = len(model.graph if dynamo else model.graph.node)
    found = sited(gn.find(model))
    if found != wanted:
        return f"{nodes:,} nodes: {(found & wanted).total()} of {wanted.total()} found"
    left = [f"{target}: {why}" for target in TARGETS if (why := unlike(model, wanted, target))]
    return f"{nodes:,} nodes: {wanted.total()} found, " + ("; ".join(left) or f"lowered, {whole(recipe, model)}")


def unlike(model: Any, wanted: Counter[Norm], target: str) -> str:
    """What is wrong with the sites of the model lowered for ``target``; "" when nothing is."""
    lowered = gn.lower(model, target)
    refused = [decision.decision.reason for decision in lowered.decisions if not decision.decision]
    if refused:
        return f"{len(refused)} left, {refused[0]}"
    again = gn.find(lowered.model)
    if sited(again) != wanted or {site.form for site in again} != {TARGETS[target]}:
        return "other sites than before"
    return "" if gn.compare(model, lowered.model, network=False).held else "parity broken"


def whole(recipe: Recipe, model: Any) -> str:
    """``held`` when the whole network, lowered for ONNX Runtime, computes there what the exported one means."""

    def judged(candidate: Any) -> gn.ParityReport:
        return gn.compare(model, candidate, runtimes=["onnxruntime"], dims=sizes)

    sizes = {name: recipe.inputs[x].shape[axis] for x, axes in free(recipe).items() for axis, name in axes.items()}
    report = judged(gn.lower(model, "ort-cpu").model)
    if any(site.status.broken for site in report.sites) or not report.sites:
        return "parity broken"
    unknown = [output.reason for output in report.outputs if output.status is Status.NOTRUN]
    if unknown:
        return f"each site held ({unknown[0].split(': ')[1]})"
    if not report.held and any(output.status.broken for output in judged(model).outputs):
        return "each site held (ONNX Runtime computes the exported network wrongly, too)"
    return "held" if report.held else "parity broken"


def row(name: str) -> str:
    recipe = load_recipe(MODELS / f"{name}.py")
    wanted = called(recipe)
    package = RECIPES[name]
    cells = [f"`{name}.py`", f"{package} {version(package)}", str(wanted.total())]
    for export, (dynamo, opset) in EXPORTS.items():
        cells.append(cell(recipe, wanted, dynamo, opset))
        print(f"{name}, {export}: {cells[-1]}", file=sys.stderr)
    return f"| {' | '.join(cells)} |"


def table(shown: str, new: Mapping[str, str]) -> str:
    """The table that was shown with those rows, and the others as they were."""
    rows = {line.split("`")[1].removesuffix(".py"): line for line in shown.splitlines() if "`" in line} | new
    head = [f"| {' | '.join(['recipe', 'package', 'calls', *EXPORTS])} |", "| --- | --- | --- | --- | --- | --- |"]
    return "\n".join([*head, *(rows[n] for n in RECIPES if n in rows)])


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="real_models.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only compare: 1 when the page says otherwise")
    parser.add_argument("recipes", nargs="*", metavar="RECIPE", help="default: all, half an hour")
    asked = parser.parse_args(arguments)
    for unknown in set(asked.recipes) - RECIPES.keys():
        parser.error(f"{unknown} is none of the recipes {', '.join(RECIPES)}")
    changed = False
    for name in asked.recipes or RECIPES:
        try:
            made = table(pages.block(README.read_text(), BLOCK), {name: row(name)})
            changed |= not pages.update(README, BLOCK, made, check=asked.check)
        except GnDeployError as error:
            print(error, file=sys.stderr)
            return int(error.exit_code)
    return int(asked.check and changed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
