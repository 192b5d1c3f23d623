"""Streams, CUDA graphs, and several layers at a time."""

from typing import Any

import pytest

from gn_deploy.plugin.binding import VARIANTS
from scripts.gpu.cases import Case
from scripts.gpu.machine import CudaMachine
from scripts.gpu.verify import error_over_bound
from tests.gpu.launched import Layer

pytestmark = pytest.mark.gpu

CASE = Case("", (2, 320, 64, 64), "skip+sum")
OTHER = Case("", (4, 64, 96, 96), groups=8)
ROUNDS = 25


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_graph_replays_what_was_captured(variant: str, machine: CudaMachine, gpu: Any) -> None:
    """Team kernels too, whose launch is cooperative: with new data in the same buffers, the answer is the new one."""
    layer = Layer(machine, gpu, CASE, variant, buffers=3)
    replay = machine.record(layer.launches())
    for _ in range(3):
        for i in range(3):
            layer.operands.inputs[i].view(gpu.float16).normal_()
            layer.poison(i)
        machine.wait()
        replay()
        machine.wait()
        for i in range(3):
            assert error_over_bound(CASE, layer.operands, i, gpu) <= 1
        assert not layer.counters.any()


@pytest.mark.parametrize("variant", VARIANTS)
def test_launches_follow_their_stream(variant: str, machine: CudaMachine, gpu: Any) -> None:
    """x is written on the same stream right before, after a long wait: who does not wait reads NaN."""
    layer = Layer(machine, gpu, CASE, variant)
    x = layer.operands.inputs[0].clone()
    layer.operands.inputs[0].fill_(0xFF)
    machine.wait()
    stream = gpu.cuda.Stream()
    with gpu.cuda.stream(stream):
        gpu.cuda._sleep(50_000_000)  # tens of milliseconds
        layer.operands.inputs[0].copy_(x)
        layer.launch()
        y = layer.bits()
    stream.synchronize()
    layer.operands.outputs[0].copy_(y)
    machine.wait()
    assert error_over_bound(CASE, layer.operands, 0, gpu) <= 1


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("case", [CASE, OTHER], ids=lambda case: case.key)
def test_layers_on_streams_of_their_own_do_not_meet(case: Case, variant: str, machine: CudaMachine, gpu: Any) -> None:
    """Each with its counters and workspace, all at once, again and again: the bits are those of one alone."""
    layers = [Layer(machine, gpu, case, variant) for _ in range(4)]
    alone = []
    for layer in layers:
        layer.operands.inputs[0].view(getattr(gpu, case.dtype)).normal_()  # other data than its neighbours'
        layer.launch()
        machine.wait()
        alone.append(layer.operands.y(0).clone())
        layer.poison()
    machine.wait()
    streams = [gpu.cuda.Stream() for _ in layers]
    for _ in range(ROUNDS):
        for layer, stream in zip(layers, streams, strict=True):
            with gpu.cuda.stream(stream):
                layer.launch()
    machine.wait()
    for layer, wanted in zip(layers, alone, strict=True):
        assert gpu.equal(layer.operands.y(0), wanted)
        assert not layer.counters.any()


def test_layers_of_different_variants_share_a_stream(machine: CudaMachine, gpu: Any) -> None:
    """One workspace after the other: what one leaves in memory is nothing to the next."""
    layers = [
        Layer(machine, gpu, OTHER, variant)
        for variant in VARIANTS
        if machine.library.select(OTHER.problem(), machine.device, variant)
    ]
    assert len(layers) >= 2
    for _ in range(ROUNDS):
        for layer in layers:
            layer.launch()
    machine.wait()
    for layer in layers:
        assert error_over_bound(OTHER, layer.operands, 0, gpu) <= 1, layer.variant
