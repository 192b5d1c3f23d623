"""The tensors of a case on the device: a ring of inputs and outputs, parameters, and what torch computes on them."""

from collections.abc import Callable
from typing import Any

from gn_deploy.plugin.binding import CBuffers
from scripts.gpu.cases import Case
from scripts.gpu.timing import Ring, ring

GAP = 256  # bytes; every tensor begins at a multiple of it, as an allocator's do


def slot_bytes(case: Case) -> tuple[int, int]:
    """Of the inputs and of the outputs of one launch; a copy of half the bytes moved fits into either."""
    tensor = _whole(case.tensor_bytes)
    return tensor * (1 + case.parts.residual), max(tensor * (1 + case.parts.sum), _whole(case.moved_bytes // 2))


def sized_ring(case: Case, l2: int, free: int) -> Ring:
    """What torch makes for itself counts too: its outputs are kept as long as the ring, and there are two torches."""
    inputs, outputs = slot_bytes(case)
    return ring(case.moved_bytes, l2, free, inputs + outputs + 2 * case.tensor_bytes * (1 + case.parts.sum))


class Operands:
    """``buffers`` times x and residual, y and sum; parameters are one set. Values are normal, never zeros."""

    def __init__(self, case: Case, torch: Any, device: str, buffers: int) -> None:
        self.case, self._torch = case, torch
        dtype = getattr(torch, case.dtype)
        inputs, outputs = slot_bytes(case)
        torch.manual_seed(0)
        self.inputs = [torch.empty(inputs, dtype=torch.uint8, device=device) for _ in range(buffers)]
        self.outputs = [torch.empty(outputs, dtype=torch.uint8, device=device) for _ in range(buffers)]
        for held in self.inputs:
            held.view(dtype).normal_()
        n, c = case.shape[:2]
        self.scale, self.bias = (torch.randn(c, device=device).to(dtype) for _ in range(2))
        self.modulation = [torch.randn(n, c, device=device).to(dtype) * 0.5 for _ in range(2 * case.parts.modulation)]

    def x(self, i: int) -> Any:
        """(N, C, ...) with the strides of the layout, as torch's functions want it."""
        return self.tensor(self.inputs[i], 0)

    def residual(self, i: int) -> Any:
        return self.tensor(self.inputs[i], 1) if self.case.parts.residual else None

    def y(self, i: int) -> Any:
        return self.tensor(self.outputs[i], 0)

    def sum(self, i: int) -> Any:
        return self.tensor(self.outputs[i], 1) if self.case.parts.sum else None

    def tensor(self, held: Any, number: int) -> Any:
        """The first or second tensor of a slot."""
        case, begin = self.case, number * _whole(self.case.tensor_bytes)
        flat = held[begin : begin + case.tensor_bytes].view(getattr(self._torch, case.dtype))
        n, c, *spatial = case.shape
        if case.layout == "nchw":
            return flat.view(n, c, *spatial)
        return flat.view(n, *spatial, c).movedim(-1, 1)

    def addresses(self, i: int, workspace: Any, counters: Any) -> CBuffers:
        parts, held = self.case.parts, {"x": self.x(i), "y": self.y(i), "scale": self.scale, "bias": self.bias}
        if parts.residual:
            held["residual"] = self.residual(i)
        if parts.sum:
            held["sum"] = self.sum(i)
        if parts.modulation:
            held["modulation_scale"], held["modulation_shift"] = self.modulation
        held |= {"workspace": workspace, "counters": counters}
        return CBuffers(**{name: tensor.data_ptr() for name, tensor in held.items()})

    def given(self, i: int) -> tuple[Any, ...]:
        """Arguments of ``in_torch(case)``."""
        return (self.x(i), self.scale, self.bias, self.residual(i), *(self.modulation or (None, None)))


def in_torch(case: Case, torch: Any) -> Callable[..., Any]:
    """The same in torch's own words: (x, scale, bias, residual, s, t) -> y, or (y, sum)."""
    functional, parts, groups = torch.nn.functional, case.parts, case.groups
    per_sample = (*case.shape[:2], *(1 for _ in case.shape[2:]))

    def layer(x: Any, scale: Any, bias: Any, residual: Any, s: Any, t: Any) -> Any:
        total = x if residual is None else x + residual
        y = functional.group_norm(total, groups, scale, bias, 1e-5)
        if s is not None:
            y = y * (1 + s.view(per_sample)) + t.view(per_sample)
        if parts.activation == "silu":
            y = functional.silu(y)
        elif parts.activation == "relu":
            y = functional.relu(y)
        return (y, total) if parts.sum else y

    return layer


def _whole(size: int) -> int:
    return -(-size // GAP) * GAP
