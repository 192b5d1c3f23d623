"""Tensors of many gigabytes of which little is touched: offsets beyond 32 bits without the memory."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from gn_deploy.decision import Rejected
from gn_deploy.plugin.binding import CChoice, Library
from tests.plugins.cases import DEVICES, Array, Case, Run, draw, emulator
from tests.plugins.contract import check
from tests.plugins.emulated import Machine, aligned

On = tuple[Library, Machine]


@contextmanager
def reserved(size: int) -> Iterator[Array]:
    """Bytes of which only those that are touched take memory."""
    _, gpu = emulator()
    address = gpu.c.gn_emulator_reserve(ctypes.c_size_t(size))
    if not address:
        pytest.skip(f"the system does not give {size >> 30} GiB of addresses")
    try:
        yield np.ctypeslib.as_array(ctypes.cast(address, ctypes.POINTER(ctypes.c_uint8)), (size,))
    finally:
        gpu.c.gn_emulator_release(ctypes.c_void_p(address), ctypes.c_size_t(size))


def launched(
    case: Case, buffers: dict[str, Any], last: int = 0, on: On | None = None
) -> tuple[CChoice, dict[str, Any]] | None:
    """Without checks of buffers, whose histories would take memory; of ``last`` units only, if any."""
    kernels, gpu = on or emulator()
    selected = kernels.select(case.problem, DEVICES[case.device], case.variant)
    if isinstance(selected, Rejected):
        return None
    choice = selected.choice
    counters = np.zeros(choice.counters, np.uint32)
    buffers = {"workspace": aligned(choice.workspace, np.uint8), "counters": counters} | buffers
    gpu.device(DEVICES[case.device])
    blocks = 1 if case.variant == "warp" else last * choice.slices
    gpu.only_blocks(choice.blocks - blocks if last else 0, choice.blocks if last else 0)
    try:
        kernels.enqueue(case.problem, choice, {n: a.ctypes.data if a.size else None for n, a in buffers.items()})
    finally:
        gpu.only_blocks(0, 0)
    return choice, buffers


def check_far_apart(variant: str, on: On | None = None) -> None:
    """Channels last, 2^29 bytes from one position of x to the next; y is int8, whose rows are not padded."""
    case = Case(1, 2, 4, 40, "nhwc", variant=variant, output_dtype="int8", pad=2**28 - 8, affine=0)
    inputs = draw(case)
    with reserved(40 << 29) as x:
        x.view(np.float16).reshape(40, -1)[:, :8] = inputs.x[0].T
        result = launched(case, {"x": x, "y": aligned(320, np.int8)}, on=on)
        assert result is not None
        choice, buffers = result
        got = buffers["y"].reshape(40, 8).T[None]
        check(case, inputs, Run(got, None, got[:0], choice, variant, ""))
