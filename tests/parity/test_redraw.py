"""Scale and bias drawn anew: equal in both models whatever their forms, so misplaced ones show in fresh networks."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import gn_deploy as gn
from gn_deploy.parity.harness import compare
from gn_deploy.parity.redraw import redraw
from gn_deploy.parity.status import Status
from gn_deploy.sites import find
from tests.parity.spellings import CHANNELS, GROUPS, RIGHT, Graph, Spelling, alone, native, network, with_dynamic_scale

ONES, ZEROS = np.ones(CHANNELS, np.float32), np.zeros(CHANNELS, np.float32)
FRESH = native(scale=ONES, bias=ZEROS)
FORMS = ("native", "instance_norm", "layer_norm", "primitives", "statistics_affine")


def parameters(model: ir.Model) -> list[tuple[list[float], list[float]]]:
    return [(s.scale.array.tolist(), s.bias.array.tolist()) for s in find(model).sites]  # type: ignore[union-attr]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gets_the_same_numbers(form: str) -> None:
    fresh = network(FRESH)
    lowered = gn.lower(fresh, f"onnx+{form}").model
    before = ir.to_proto(fresh).SerializeToString(), ir.to_proto(lowered).SerializeToString()
    drawn = redraw(fresh, lowered)
    assert (drawn.sites, drawn.left_out) == (("n_norm1", "n_norm2"), {})
    assert parameters(drawn.reference) == parameters(drawn.candidate)
    (first, offset), (second, _) = parameters(drawn.reference)
    assert first != second
    assert len(set(first)) == CHANNELS
    assert min(map(abs, offset)) > 0
    assert (ir.to_proto(fresh).SerializeToString(), ir.to_proto(lowered).SerializeToString()) == before
    report = compare(fresh, lowered, redrawn=True)
    assert report.held
    assert any(case.startswith("redrawn normal") for case in report.sites[0].cases)
    assert report.notes == ("scale and bias of 2 of 2 GroupNorms were drawn anew as well",)


def test_trained_parameters_are_drawn_anew_as_well() -> None:
    for spelling in RIGHT.values():
        drawn = redraw(network(native()), network(spelling))
        assert len(drawn.sites) == 2
        assert parameters(drawn.reference) == parameters(drawn.candidate)


def moved(by: int) -> Spelling:
    """Mul and Add by parameters that are first moved on by some channels; ``by`` 0 is right."""

    def write(g: Graph, x: str, y: str) -> None:
        order = g.constant(np.roll(np.arange(CHANNELS), by))
        flat = g.add("Reshape", [x, g.constant(np.array([0, GROUPS, -1]))])
        ones, zeros = g.constant(np.ones(GROUPS, np.float32)), g.constant(np.zeros(GROUPS, np.float32))
        z = g.add("InstanceNormalization", [flat, ones, zeros], epsilon=1e-5)
        z = g.add("Reshape", [z, g.add("Shape", [x])])
        for op, name in (("Mul", "weight"), ("Add", "bias")):
            row = g.add("Reshape", [g.add("Gather", [name, order]), g.constant(np.array([-1, 1, 1]))])
            z = g.add(op, [z, row], y if op == "Add" else "")

    return write


def named(spelling: Spelling) -> ir.Model:
    """One GroupNorm whose parameters are called weight and bias, 1 and 0."""

    def write(g: Graph, x: str, y: str) -> None:
        g.initializers += [onnx.numpy_helper.from_array(a, n) for a, n in ((ONES, "weight"), (ZEROS, "bias"))]
        spelling(g, x, y)

    return alone(write)


def op(g: Graph, x: str, y: str) -> None:
    g.add("GroupNormalization", [x, "weight", "bias"], y, num_groups=GROUPS, epsilon=1e-5)


def test_moved_parameters_are_only_seen_when_they_are_drawn_anew() -> None:
    assert compare(named(op), named(moved(0)), redrawn=True).held
    assert compare(named(op), named(moved(1))).held
    report = compare(named(op), named(moved(1)), redrawn=True)
    assert not report.held
    assert report.sites[0].status is Status.FAIL
    assert report.sites[0].case.startswith("redrawn ")
    assert report.outputs[0].status is Status.FAIL
    assert report.runtimes[0].status is Status.FAIL


def test_parameters_of_several_sites_come_apart() -> None:
    """Exporters write the ones and zeros of a fresh network once."""
    model = network(FRESH)
    first, second = (n for n in model.graph if n.op_type == "GroupNormalization")
    for i in (1, 2):
        second.replace_input_with(i, first.inputs[i])
    drawn = redraw(model, gn.lower(model, "onnx+instance_norm").model)
    assert len(drawn.sites) == 2
    one, two = parameters(drawn.reference)
    assert one != two
    assert parameters(drawn.candidate) == [one, two]


def test_one_number_per_group_stays_one_per_group() -> None:
    old = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 18]> g (float[N, 4, 3, 3] x) => (float[N, 4, 3, 3] y)'
        "<float[2] s = {1, 1}, float[2] b = {0, 0}> "
        "{ y = GroupNormalization <num_groups = 2, epsilon = 1e-5> (x, s, b) }"
    )
    model = ir.from_proto(old)
    drawn = redraw(model, gn.lower(model, "onnx+instance_norm").model)
    assert len(drawn.sites) == 1, drawn.left_out
    ((scale, _),) = parameters(drawn.candidate)
    assert scale[0] == scale[1] != scale[2] == scale[3]


def test_what_cannot_be_drawn_is_told_and_stays() -> None:
    dynamic = with_dynamic_scale(network(FRESH))
    report = compare(dynamic, dynamic, redrawn=True)
    assert report.held
    assert report.notes == (
        "scale and bias of 1 of 2 GroupNorms were drawn anew as well",
        "not drawn anew, n_norm1: scale or bias is only known at run time",
    )
    alone_dynamic = with_dynamic_scale(alone(FRESH))
    untouched = compare(alone_dynamic, alone_dynamic, redrawn=True)
    assert untouched.held
    assert not any(case.startswith("redrawn") for case in untouched.sites[0].cases)


def test_half_precision_holds_the_same_numbers(tmp_path: Path) -> None:
    fresh = network(FRESH)
    half = gn.lower(fresh, "ort-cpu:fp16").model
    drawn = redraw(fresh, half)
    assert len(drawn.sites) == 2, drawn.left_out
    assert parameters(drawn.reference) == parameters(drawn.candidate)
