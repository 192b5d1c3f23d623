"""Kernels compiled for one layer, as an engine keeps them: launched by the driver alone, without TensorRT."""

from typing import Any

import pytest

from gn_deploy.decision import Rejected
from gn_deploy.errors import UnavailableError
from gn_deploy.plugin import nvrtc
from gn_deploy.plugin.node import INPUTS
from gn_deploy.plugin.problem import Device, Problem
from gn_deploy.plugin.quick import FITTING, launch_of
from gn_deploy.plugin.select import select
from gn_deploy.plugin.specialise import Specialised
from scripts.gpu.cases import Case
from scripts.gpu.driver import Module
from scripts.gpu.machine import CudaMachine
from scripts.gpu.verify import error_over_bound
from tests.gpu.launched import Layer

pytestmark = pytest.mark.gpu

CASES = (
    Case("", (2, 320, 64, 64)),
    Case("", (2, 320, 64, 64), "skip+sum", "float32"),
    Case("", (2, 1280, 16, 16), "film"),
    Case("", (2, 640, 32, 32), dtype="bfloat16", layout="nhwc"),
    Case("", (2, 320, 64, 64), "skip", layout="nhwc"),
    Case("", (8, 2048, 7, 7), "gn"),
    Case("", (2, 64, 7, 10), "relu"),
)
SHARED = 48 << 10  # bytes that a kernel may be launched with when nobody asks for more


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("variant", FITTING)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.key)
def test_a_kernel_of_the_layers_own(case: Case, variant: str, dynamic: bool, machine: CudaMachine, gpu: Any) -> None:
    try:
        nvrtc.version()
    except UnavailableError as error:
        pytest.skip(error.message)
    device = Device(**{name: getattr(machine.device, name) for name in Device.__dataclass_fields__})
    problem = Problem(**case.problem())
    found = select(problem, device, variant)
    if isinstance(found, Rejected):
        pytest.skip(found.reason)
    choice = found.choice
    if choice.shared > SHARED:
        pytest.skip(f"{choice.shared} bytes of shared memory")
    kernel = Specialised(problem, choice, dynamic, dynamic)
    module = Module(kernel.compile(device.compute_capability))
    layer = Layer(machine, gpu, case, variant)
    addresses = layer.addresses[0]
    inputs = [getattr(addresses, name) or addresses.x for name in INPUTS]  # what is not there is never read
    scalars = [getattr(problem, name) for name in kernel.scalars]
    outputs = [getattr(addresses, name) for name in kernel.outputs]
    blocks = launch_of(problem, choice).blocks(problem.samples)
    first = None
    for _ in range(3):
        layer.poison()
        arguments = [*inputs, *scalars, *outputs]
        module.launch(kernel.name, blocks, choice.threads, machine.stream() or 0, arguments, choice.shared)
        machine.wait()
        assert error_over_bound(case, layer.operands, 0, gpu) <= 1
        first = layer.operands.y(0).clone() if first is None else first
        assert gpu.equal(layer.operands.y(0), first)
