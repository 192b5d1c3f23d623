"""Models in which one thing was made wrong on purpose, or a runtime does it by itself: located, blamed, cut down.

About four minutes on two cores.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx_ir as ir

from gn_deploy import api
from gn_deploy.diagnosis.closely import closely
from gn_deploy.diagnosis.deployed import Deployed, deployed
from gn_deploy.diagnosis.locate import Located, locate_run, locate_written
from gn_deploy.diagnosis.locate_site import locate_site
from gn_deploy.graph.normalize import normalize
from gn_deploy.mutation.seeding import seed
from gn_deploy.parity.cases import Case, input_specs, model_cases
from gn_deploy.parity.pairing import pair
from gn_deploy.parity.report import ParityReport
from gn_deploy.parity.subject import find_sites
from gn_deploy.spec import Activation
from scripts.figures import versions
from scripts.pages import table

MODELS = Path(__file__).parents[2] / "models"
SIZES = {
    "digits_resnet": {"batch": 2, "height": 16, "width": 16},
    "diffusion_unet": {"batch": 1, "height": 16, "width": 16},
}
NO_SETTING = "no setting: it is the model"


@dataclass(frozen=True)
class Seeded:
    """One row: ``change`` makes ``model`` wrong and says which node should be found."""

    what: str
    model: str
    change: Callable[[ir.Model], tuple[ir.Model, str]]
    runtime: str = ""
    """Empty when the model itself is wrong."""
    culprit: str = ""


@cache
def exported(name: str) -> ir.Model:
    return normalize(api.export(MODELS / f"{name}.py", verify=False).model)


def nodes(model: ir.Model, op: str) -> list[ir.Node]:
    return [n for n in model.graph if n.op_type == op]


def weight(at: int, factor: float) -> Callable[[ir.Model], tuple[ir.Model, str]]:
    """One output channel of a Conv times ``factor``."""

    def change(model: ir.Model) -> tuple[ir.Model, str]:
        node = nodes(model, "Conv")[at]
        array = node.inputs[1].const_value.numpy().copy()  # type: ignore[union-attr]
        array[3] *= factor
        node.inputs[1].const_value = ir.tensor(array, name=node.inputs[1].name)  # type: ignore[union-attr]
        return model, str(node.name)

    return change


def quantized(at: int) -> Callable[[ir.Model], tuple[ir.Model, str]]:
    """The weights of a Conv as if they had been stored in eight bits, one scale for all."""

    def change(model: ir.Model) -> tuple[ir.Model, str]:
        node = nodes(model, "Conv")[at]
        array = node.inputs[1].const_value.numpy()  # type: ignore[union-attr]
        step = float(np.abs(array).max()) / 127
        held = (np.round(array / step) * step).astype(array.dtype)
        node.inputs[1].const_value = ir.tensor(held, name=node.inputs[1].name)  # type: ignore[union-attr]
        return model, str(node.name)

    return change


def attribute(op: str, at: int, value: ir.Attr) -> Callable[[ir.Model], tuple[ir.Model, str]]:
    def change(model: ir.Model) -> tuple[ir.Model, str]:
        node = nodes(model, op)[at]
        node.attributes[value.name] = value
        return model, str(node.name)

    return change


def resized(model: ir.Model) -> tuple[ir.Model, str]:
    node = nodes(model, "Resize")[0]
    node.attributes["mode"] = ir.AttrString("mode", "linear")
    return model, str(node.name)


def dropped(op: str, at: int) -> Callable[[ir.Model], tuple[ir.Model, str]]:
    def change(model: ir.Model) -> tuple[ir.Model, str]:
        node = nodes(model, op)[at]
        name = str(node.name)
        node.outputs[0].replace_all_uses_with(node.inputs[0])  # type: ignore[arg-type]
        model.graph.remove(node, safe=True)
        return model, name

    return change


def misplaced(model: ir.Model) -> tuple[ir.Model, str]:
    """A residual that is taken one layer too late, after the first activation of its block instead of before."""
    for add in nodes(model, "Add"):
        for i, value in enumerate(add.inputs):
            producer = None if value is None else value.producer()
            if producer is not None and producer.op_type == "Relu" and not any(v.const_value for v in add.inputs if v):
                add.replace_input_with(i, producer.inputs[0])
                return model, str(add.name)
    raise AssertionError("no residual behind a Relu")


def joined(model: ir.Model) -> tuple[ir.Model, str]:
    """A skip connection joined in the other order: equal shapes, so nobody complains."""
    for node in nodes(model, "Concat"):
        a, b = node.inputs[0], node.inputs[-1]
        shapes = [list(v.shape) for v in (a, b) if v is not None and v.shape is not None]
        if len(node.inputs) == 2 and [len(s) for s in shapes] == [4, 4] and shapes[0][1] == shapes[1][1]:
            node.replace_input_with(0, b)
            node.replace_input_with(1, a)
            return model, str(node.name)
    raise AssertionError("no Concat of two equal halves")


def permuted(model: ir.Model) -> tuple[ir.Model, str]:
    site = find_sites(model)[2]
    made = seed(model, site, "groups interleaved")
    assert isinstance(made, ir.Model), made
    return made, site.module


def requantized(model: ir.Model) -> tuple[ir.Model, str]:
    """Activations quantized by one tool and, in another scale, by the next."""
    node = nodes(model, "Conv")[2]
    old = node.outputs[0]
    scales = [ir.Value(name=n, const_value=ir.tensor(np.float32(s), name=n)) for n, s in (("s0", 0.05), ("s1", 0.03))]
    zero = ir.Value(name="zero", const_value=ir.tensor(np.uint8(128), name="zero"))
    for value in (*scales, zero):
        model.graph.register_initializer(value)
    made: list[ir.Node] = []
    value = old
    for i, scale in enumerate(scales):
        for op in ("QuantizeLinear", "DequantizeLinear"):
            made.append(ir.node(op, [value, scale, zero], name=f"{op}_{i}"))
            value = made[-1].outputs[0]
            value.name = f"{op}_{i}_out"
            value.shape = old.shape
            value.type = ir.TensorType(ir.DataType.UINT8 if op == "QuantizeLinear" else ir.DataType.FLOAT)
    old.replace_all_uses_with(value)
    made[0].replace_input_with(0, old)
    model.graph.insert_after(node, made)
    return model, "DequantizeLinear_1"


def native(model: ir.Model) -> tuple[ir.Model, str]:
    lowered = normalize(api.lower(model, "onnx+native").model)
    return lowered, str(nodes(lowered, "GroupNormalization")[0].name)


def pooled(model: ir.Model) -> tuple[ir.Model, str]:
    """Padding and pooling as timm's BiT does it, behind values that are negative."""
    node = next(s for s in find_sites(model) if s.spec.activation is Activation.NONE).output.producer()
    assert node is not None
    old = node.outputs[0]
    pads = ir.Value(name="pads", const_value=ir.tensor(np.array([0, 0, 1, 1, 0, 0, 1, 1]), name="pads"))
    model.graph.register_initializer(pads)
    pad = ir.node("Pad", [old, pads], name="pad")
    pool = ir.node("MaxPool", [pad.outputs[0]], {"kernel_shape": [3, 3], "pads": [0] * 4}, name="pool")
    pad.outputs[0].name, pool.outputs[0].name = "padded", "pooled"
    pool.outputs[0].type, pool.outputs[0].shape = old.type, old.shape
    pad.outputs[0].type = old.type
    old.replace_all_uses_with(pool.outputs[0])
    pad.replace_input_with(0, old)
    model.graph.insert_after(node, [pad, pool])
    return model, "pool"


ROWS = [
    Seeded("one channel of a Conv 0.1 % too large", "digits_resnet", weight(5, 1.001)),
    Seeded("a Conv's weights rounded to 8 bits", "digits_resnet", quantized(4)),
    Seeded("an activation left out", "digits_resnet", dropped("Relu", 1)),
    Seeded("a residual taken before the activation", "digits_resnet", misplaced),
    Seeded("groups interleaved", "digits_resnet", permuted),
    Seeded("epsilon 1e-3 deep inside", "diffusion_unet",
           attribute("InstanceNormalization", 20, ir.AttrFloat32("epsilon", 1e-3))),
    Seeded("Softmax over the other axis", "diffusion_unet", attribute("Softmax", 3, ir.AttrInt64("axis", -2))),
    Seeded("Resize linear instead of nearest", "diffusion_unet", resized),
    Seeded("a skip connection joined in the other order", "diffusion_unet", joined),
    Seeded("quantized twice, in two scales", "digits_resnet", requantized, "onnxruntime", "DoubleQDQPairsRemover"),
    Seeded("GroupNormalization as the standard has it", "digits_resnet", native, "onnxruntime", ""),
]  # fmt: skip
if tuple(map(int, version("onnxruntime").split(".")[:2])) < (1, 32):  # it is repaired there
    ROWS.append(Seeded("padding with 0 before a MaxPool", "digits_resnet", pooled, "onnxruntime", "Pad_Fusion"))


def located(row: Seeded, right: ir.Model, wrong: ir.Model, cases: list[Case]) -> tuple[Located, Deployed]:
    if not row.runtime:
        (one,) = deployed(["onnxruntime"])
        pairs = pair(right, find_sites(right), wrong, find_sites(wrong)).pairs
        return locate_written(right, wrong, pairs, cases, runtime="onnx-reference", against="reference"), one
    (one,) = deployed([row.runtime])
    found = locate_run(wrong, one.opened, cases, runtime=row.runtime)
    if found.piece is None:  # the network hides it, its GroupNorms by themselves do not
        report = api.compare(wrong, wrong, runtimes=[row.runtime], network=False, isolate=False)
        pairs = pair(wrong, find_sites(wrong), wrong, find_sites(wrong)).pairs
        verdict = next(v for v in report.sites if v.status.broken)
        site = next(p for p in pairs if p.site.name == verdict.site)
        found = locate_site(wrong, wrong, site, verdict, one.opened, runtime=row.runtime, against="reference")
    return found, one


def rows(chosen: list[Seeded] = ROWS) -> Iterator[list[str]]:
    for row in chosen:
        right = exported(row.model)
        wrong, expected = row.change(right.clone())
        cases = [c for c in model_cases(input_specs(right), dims=SIZES[row.model]) if c.conditioned]
        found, one = located(row, right, wrong, cases)
        with tempfile.TemporaryDirectory() as folder:
            divergence, blame = closely(
                found, one, ParityReport("", "", (), ()), at_fault=True, folder=Path(folder), tell=lambda _: None
            )
            script = next((f for f in divergence.files if f.endswith("repro.py")), "")
            command = [sys.executable, script]
            ended = subprocess.run(command, capture_output=True, check=False).returncode if script else 0
        at = expected in (divergence.node, divergence.module)
        size = len(found.piece.nodes) if found.piece is not None else 0
        culprit = blame.culprit if blame is not None else "?"
        said = culprit or (NO_SETTING if not row.runtime else "no setting: it is the kernel")
        right_culprit = culprit == row.culprit
        yield [
            row.what,
            row.model,
            f"{divergence.op_type} {divergence.module or divergence.node}",
            "yes" if at else f"NO, not {expected}",
            said if right_culprit else f"{said}, not {row.culprit}",
            "yes" if ended == 1 else "NO",
            str(size),
        ]


def section() -> str:
    head = ["made wrong", "in", "found at", "right place", "at fault", "script shows it", "nodes"]
    made = list(rows())
    wrong = [r for r in made if r[3] != "yes" or r[5] != "yes" or ", not " in r[4]]
    held = f"{len(made) - len(wrong)} of {len(made)} located, blamed and cut down as they should be."
    return "\n\n".join([table([head, *made]), held, versions("onnxruntime", "onnx", "torch")])
