"""Every variant on the GPU against the float64 oracle: small problems of every kind, and whole layers."""

from typing import Any

import pytest

from gn_deploy.plugin.binding import VARIANTS, CDevice, Library
from scripts.gpu import checks
from scripts.gpu.cases import CASES, MIB, Case
from scripts.gpu.machine import CudaMachine
from scripts.gpu.sample import Check, sample
from scripts.gpu.verify import error_over_bound
from tests.gpu.launched import Layer

pytestmark = pytest.mark.gpu

SLOW = 64 * MIB  # of x from which a layer is left to the benchmark: seconds of float64 on a consumer's GPU


@pytest.mark.parametrize("check", sample(), ids=lambda check: check.key)
def test_against_the_oracle(check: Check, machine: CudaMachine, library: Library, device: CDevice) -> None:
    """Right within the harness's tolerance, the same bits three times, guards, inputs and counters as they were."""
    given = checks.draw(check)
    oracle = checks.expected(check, given)
    ran = []
    for variant in VARIANTS:
        found = checks.run(check, variant, library, device, machine.memory(), given=given, oracle=oracle)
        assert not found.get("faults"), f"{variant}: {found['faults']}"
        ran += [variant] if found["ran"] else []
    assert ran


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("case", [c for c in CASES if c.tensor_bytes < SLOW], ids=lambda case: case.key)
def test_whole_layers(case: Case, variant: str, machine: CudaMachine, gpu: Any) -> None:
    layer = Layer(machine, gpu, case, variant)
    layer.poison()
    layer.launch()
    machine.wait()
    assert error_over_bound(case, layer.operands, 0, gpu) <= 1
    first = layer.bits()
    for _ in range(3):
        layer.poison()
        layer.launch()
        machine.wait()
        tensor = first[: case.tensor_bytes]
        assert gpu.equal(layer.bits()[: case.tensor_bytes], tensor), "other bits when run again"
        assert not layer.counters.any(), "counters are not left zero"


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_offsets_beyond_32_bits(layout: str, machine: CudaMachine, gpu: Any) -> None:
    """2.16 billion elements: the last sample lies beyond 2^31 of them, and beyond 2^32 bytes."""
    case = Case("", (5, 64, 2600, 2600), "silu", layout=layout, groups=8)
    assert case.tensor_bytes // 2 > 2**31
    needed = 3 * case.tensor_bytes + (8 << 30)  # x, y, and float64 temporaries of a group
    if machine.free_memory() < needed:
        pytest.skip(f"needs {needed >> 30} GiB of free GPU memory")
    layer = Layer(machine, gpu, case)
    layer.poison()
    layer.launch()
    machine.wait()
    assert error_over_bound(case, layer.operands, 0, gpu, samples=(0, 4)) <= 1
    assert not layer.operands.y(0)[1:4].isnan().any(), "not everything was written"
