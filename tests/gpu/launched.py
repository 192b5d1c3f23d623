"""A layer on the device, ready to be launched, its output seen by torch."""

from collections.abc import Callable
from typing import Any

import pytest

from gn_deploy.decision import Rejected
from gn_deploy.plugin.binding import CChoice, CProblem, struct
from scripts.gpu.cases import Case
from scripts.gpu.machine import CudaMachine
from scripts.gpu.operands import Operands


class Layer:
    """One case with its own workspace and counters, as each execution context of an engine has them."""

    def __init__(
        self, machine: CudaMachine, torch: Any, case: Case, variant: str | None = None, buffers: int = 1
    ) -> None:
        """Skips the test where the variant is not suited."""
        self.case, self._machine = case, machine
        self.problem = struct(CProblem, case.problem())
        selected = machine.library.select(self.problem, machine.device, variant)
        if isinstance(selected, Rejected):
            pytest.skip(f"{variant}: {selected.reason}")
        self.choice: CChoice = selected.choice
        self.variant = selected.variant
        device = machine.torch_device
        self.operands = Operands(case, torch, device, buffers)
        self.workspace = torch.empty(max(self.choice.workspace, 1), dtype=torch.uint8, device=device)
        self.counters = torch.zeros(max(self.choice.counters, 1), dtype=torch.int32, device=device)
        self.addresses = [self.operands.addresses(i, self.workspace, self.counters) for i in range(buffers)]
        machine.wait()

    def launch(self, i: int = 0) -> None:
        """On torch's current stream."""
        self._machine.library.enqueue(self.problem, self.choice, self.addresses[i], self._machine.stream())

    def launches(self) -> list[Callable[[], None]]:
        return [lambda i=i: self.launch(i) for i in range(len(self.addresses))]

    def poison(self, i: int = 0) -> None:
        self.operands.outputs[i].fill_(0xFF)

    def bits(self, i: int = 0) -> Any:
        return self.operands.outputs[i].clone()
