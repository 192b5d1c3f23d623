"""The first wrong value is named: seeded faults of a model, and of runtimes that do something wrong on purpose."""

from collections.abc import Callable

import ml_dtypes  # noqa: F401  (registers bfloat16 with NumPy)
import numpy as np
import onnx_ir as ir
import pytest
from onnx import helper

from gn_deploy.diagnosis.locate import Located, locate_run, locate_written
from gn_deploy.diagnosis.stretches import row
from gn_deploy.parity.cases import input_specs, model_cases
from gn_deploy.parity.pairing import pair
from gn_deploy.parity.subject import find_sites
from gn_deploy.runtimes.onnx_reference import ONNX_REFERENCE
from tests.diagnosis.networks import OUTPUTS, Change, Fusing, Rounding, model, normal


def on(runtime: object, what: ir.Model) -> Located:
    return locate_run(what, runtime.open, normal(what), runtime="it")  # type: ignore[attr-defined]


def written(change: Change) -> Located:
    a, b = model(), model(change)
    pairs = pair(a, find_sites(a), b, find_sites(b)).pairs
    return locate_written(a, b, pairs, model_cases(input_specs(a)), runtime="standard", against="a")


def test_a_right_runtime_parts_nowhere() -> None:
    found = on(ONNX_REFERENCE, model())
    assert found.piece is None
    assert found.divergence.value == ""
    assert found.divergence.reason == "no value leaves the oracle"


def test_a_fused_pair_is_named_although_a_tap_between_hides_its_error() -> None:
    OUTPUTS.clear()
    found = on(Fusing(), model())
    assert (found.divergence.node, found.divergence.value) == ("n_pooled", "pooled")
    assert [n.op_type for n in found.piece.nodes] == ["Pad", "MaxPool"]  # type: ignore[union-attr]
    assert "Pad 'n_padded' and MaxPool 'n_pooled' run together" in found.divergence.reason
    assert "at the border" in found.divergence.looks_like
    assert found.divergence.noise_ratio > 1000
    assert max(OUTPUTS) <= 12, "few taps at a time"


@pytest.mark.parametrize(("op", "value"), [("Conv", "conv1"), ("Sigmoid", "gate"), ("MatMul", "y")])
def test_the_first_value_that_is_rounded_too_far_is_named(op: str, value: str) -> None:
    found = on(Rounding(op, "bfloat16"), model())
    assert found.divergence.value == value
    assert found.divergence.looks_like == "rounded to bfloat16"


def test_of_two_wrong_places_the_first_is_told() -> None:
    what = model()
    assert on(Rounding("Reshape", "float16"), what).divergence.value == "norm1_flat"
    assert on(Rounding("ReduceMean", "float16"), what).divergence.value == "mean"


def weight(name: str, channel: int) -> Change:
    def change(weights: dict[str, np.ndarray], nodes: list[object]) -> None:
        weights[name] = weights[name].copy()
        weights[name][channel] *= 1.01

    return change


def attribute(node: str, **changes: object) -> Change:
    def change(weights: dict[str, np.ndarray], nodes: list[object]) -> None:
        at = next(n for n in nodes if n.name == f"n_{node}")  # type: ignore[attr-defined]
        for name, value in changes.items():
            kept = [a for a in at.attribute if a.name != name]  # type: ignore[attr-defined]
            del at.attribute[:]  # type: ignore[attr-defined]
            at.attribute.extend([*kept, helper.make_attribute(name, value)])  # type: ignore[attr-defined]

    return change


def dropped(node: str) -> Change:
    def change(weights: dict[str, np.ndarray], nodes: list[object]) -> None:
        gone = next(n for n in nodes if n.name == f"n_{node}")  # type: ignore[attr-defined]
        nodes.remove(gone)
        for other in nodes:
            for i, name in enumerate(other.input):  # type: ignore[attr-defined]
                if name == gone.output[0]:  # type: ignore[attr-defined]
                    other.input[i] = gone.input[0]  # type: ignore[attr-defined]

    return change


@pytest.mark.parametrize(
    ("change", "node", "words"),
    [
        (
            weight("w2", 3),
            "n_conv2",
            "'w2' is not the reference's 'w2': 1.01 times what it should be (only channel 3 of 8)",
        ),
        (attribute("norm2_z", epsilon=1e-3), "n_norm2_z", "epsilon is 0.001, the reference has 1e-05"),
        (attribute("conv2", dilations=[2, 2], pads=[2] * 4), "n_conv2", "dilations is"),
        (dropped("relu"), "n_relu", "Relu 'n_relu' of the reference is missing"),
        (dropped("below"), "n_below", "Neg 'n_below' of the reference is missing"),
        (weight("fc", 0), "n_y", "'fc' is not the reference's 'fc'"),
    ],
    ids=["weight", "epsilon", "dilation", "activation", "sign", "classifier"],
)
def test_what_is_written_otherwise_is_named(change: Change, node: str, words: str) -> None:
    found = written(change)
    assert found.divergence.node == node
    assert found.divergence.reason.startswith(words)
    assert found.divergence.noise_ratio > 16
    assert found.piece is not None


def test_equal_models_do_not_part_and_names_do_not_matter() -> None:
    assert written(lambda weights, nodes: None).piece is None

    def renamed(weights: dict[str, np.ndarray], nodes: list[object]) -> None:
        for node in nodes:
            for names in (node.input, node.output):  # type: ignore[attr-defined]
                for i, name in enumerate(names):
                    if name not in weights and name not in ("x", "y"):
                        names[i] = f"v_{name}"

    assert written(renamed).piece is None


def test_a_name_that_means_two_things_is_not_taken_for_the_fault() -> None:
    def crossed(weights: dict[str, np.ndarray], nodes: list[object]) -> None:
        """ "size" and "silu" change names, and a weight behind them is wrong."""
        swap = {"size": "silu", "silu": "size"}
        for node in nodes:
            for names in (node.input, node.output):  # type: ignore[attr-defined]
                for i, name in enumerate(names):
                    names[i] = swap.get(name, name)
        weight("w2", 1)(weights, nodes)

    assert written(crossed).divergence.node == "n_conv2"


def test_what_is_alive_at_a_cut() -> None:
    nodes = row(model())
    at = {n.name: i for i, n in enumerate(nodes.nodes)}
    alive: Callable[[int], set[str]] = lambda i: {str(v.name) for v in nodes.alive[i]}  # noqa: E731
    assert alive(0) == {"x"}
    assert alive(at["n_padded"]) == {"below"}
    assert alive(at["n_conv2"] + 1) == {"pooled", "conv2"}
    assert alive(len(nodes.nodes)) == {"y"}
    middle = nodes.stretch(at["n_padded"], at["n_conv2"])
    assert [[v.name for v in ends] for ends in (middle.graph.inputs, middle.graph.outputs)] == [["below"], ["pooled"]]
