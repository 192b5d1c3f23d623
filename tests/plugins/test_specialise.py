"""A kernel compiled for one layer takes what TensorRT passes, and computes what the library does."""

import ctypes
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gn_deploy.errors import GnDeployError, UnavailableError
from gn_deploy.plugin import nvrtc, ptx, quick, specialise
from gn_deploy.plugin.problem import DEVICES, Device, Problem
from gn_deploy.plugin.select import select
from gn_deploy.plugin.specialise import Specialised
from scripts.gpu.inputs import Inputs
from tests.plugins import cases
from tests.plugins.cases import Case
from tests.plugins.compiled import PLUGINS, compiled
from tests.plugins.emulated import (
    EMULATOR,
    INPUT,
    INSTRUMENTED,
    KERNELS,
    OUTPUT,
    Machine,
    aligned,
    emulator_objects,
    flags,
    headers,
)

H200 = DEVICES["H200"]


@pytest.mark.parametrize(
    ("problem", "variant", "dynamic", "scalars"),
    [
        (Problem(2, 320, 1024, 32, activation="silu"), "cluster", (False, False), 0),
        (Problem(2, 64, 64, 8, has_residual=1, has_sum=1, has_modulation=3), "warp", (True, False), 1),
        (Problem(2, 64, 64, 8, layout="nhwc", dtype="bfloat16", activation="mish"), "block", (True, True), 2),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_kernel_takes_what_tensorrt_passes(problem: Problem, variant: str, dynamic: Any, scalars: int) -> None:
    choice = select(problem, H200, variant).choice  # type: ignore[union-attr]
    text = needed(Specialised(problem, choice, *dynamic).compile, 90)
    found = ptx.check_parameters(text, inputs=6, scalars=scalars, outputs=1 + problem.has_sum)
    assert found.name == specialise.NAME
    assert found.cluster == (choice.slices if variant == "cluster" else 1)
    assert found.threads >= choice.threads
    assert ".local" not in text, "the arguments are known to the compiler, not an array in memory"


def needed(compile_it: Callable[..., str], *arguments: Any) -> str:
    try:
        return compile_it(*arguments)
    except UnavailableError as reason:
        pytest.skip(str(reason))


DRIVER = """
#include "../emulator/launch.h"
extern "C" const char *launched(const int64_t *grid, const void *const *in, const int32_t *n, void *const *out) {{
    gn::emulator::Shape shape;
    shape.blocks = grid[0], shape.threads = grid[1], shape.shared = grid[2], shape.cluster = grid[3];
    return gn::emulator::launch(shape, {name}, {arguments});
}}
"""
SMALL = Device(90, 4, 232448, 233472, 2048, 4 << 20, 8)
"""A few of Hopper's multiprocessors, as ``cases.DEVICES`` has them, so that small shapes need clusters."""


@pytest.mark.parametrize(
    ("case", "variant", "dynamic"),
    [
        pytest.param(
            Case(3, 2, 5, 49, parameter_dtype="float16", activation="silu", residual=True, sum=True, modulation=3),
            "block",
            {0},
            id="block, skip, modulation, batch unknown",
        ),
        pytest.param(
            Case(2, 2, 3, 333, dtype="float32", parameter_dtype="float32", activation="gelu"),
            "cluster",
            {0, 2},
            id="cluster, float32, sizes unknown",
        ),
        pytest.param(
            Case(2, 4, 3, 20, layout="nhwc", pad=4, dtype="bfloat16", parameter_dtype="float32", activation="relu"),
            "block",
            set(),
            id="channels last, padded",
        ),
    ],
)
def test_the_kernel_computes_what_the_library_does(case: Case, variant: str, dynamic: set[int]) -> None:
    inputs = cases.draw(case)
    wanted = cases.run(replace(case, variant=variant), inputs)
    assert isinstance(wanted, cases.Run)
    problem = Problem(**{**case.problem, "pitch": case.problem["pitch"]})
    larger = replace(problem, positions=problem.positions + 5 if 2 in dynamic else problem.positions)
    choice = select(larger, SMALL, variant).choice  # type: ignore[union-attr]
    kernel = Specialised(replace(larger, samples=2), choice, 0 in dynamic, 2 in dynamic)
    slices, launch = choice.slices if variant == "cluster" else 1, quick.launch_of(larger, choice)
    grid = (launch.blocks(case.samples), choice.threads, choice.shared + 4096 * (2 in dynamic), slices)
    y, total = _emulated(kernel, case, inputs, grid)
    same = [(y, wanted.y), (total, wanted.sum)]
    for ours, theirs in same if case.sum else same[:1]:
        np.testing.assert_array_equal(_bits(ours), _bits(theirs))


def _bits(array: Any) -> Any:
    return np.ascontiguousarray(array).view(f"u{array.itemsize}")


def _emulated(kernel: Specialised, case: Case, inputs: Inputs, grid: tuple[int, ...]) -> tuple[Any, Any]:
    arguments = [f"in[{n}]" for n in range(6)] + [f"n[{n}]" for n in range(len(kernel.scalars))]
    arguments += [f"out[{n}]" for n in range(len(kernel.outputs))]
    source = kernel.source() + DRIVER.format(name=specialise.NAME, arguments=", ".join(arguments))
    include = (f"-I{KERNELS}", f"-I{EMULATOR}", INSTRUMENTED, "-O1", "-c")
    made = compiled("quick", [source], *flags(), *include, reads=headers(KERNELS, EMULATOR))
    library = compiled("libquick", [made, *emulator_objects()], "-shared", "-Wl,-z,defs", "-Wl,-Bsymbolic")
    machine = Machine(library)
    machine.device(cases.DEVICES["hopper"])
    machine.schedule("random", 1)
    kind = cases.TYPES[case.dtype]
    held: dict[str, tuple[Any, int]] = {}
    for name in ("x", "residual", "y", "sum")[: None if case.sum else 3]:
        held[name] = (
            cases._tensor(case, kind, 0, case.problem["pitch"]),
            INPUT if name in ("x", "residual") else OUTPUT,
        )
        values = getattr(inputs, name, None)
        if values is not None:
            held[name][0][:] = np.nan
            cases._view(case, held[name][0])[:] = values
    for name in ("scale", "bias", "modulation_scale", "modulation_shift"):
        values = getattr(inputs, name)
        held[name] = (aligned(1 if values is None else values.size, cases.TYPES[case.parameter_dtype]), INPUT)
        if values is not None:
            held[name][0][:] = values.ravel()
    known = {"samples": case.samples, "positions": case.positions}
    addresses = [held[name][0].ctypes.data for name in specialise.INPUTS]
    outputs = [held[name][0].ctypes.data for name in kernel.outputs]
    given = (
        (ctypes.c_int64 * 4)(*grid),
        (ctypes.c_void_p * 6)(*addresses),
        (ctypes.c_int32 * 2)(*[known[name] for name in kernel.scalars]),
        (ctypes.c_void_p * 2)(*outputs),
    )
    machine.c.launched.restype = ctypes.c_char_p
    with machine.buffers(**held):
        wrong = machine.c.launched(*given)
    assert not wrong, wrong
    views = [np.array(cases._view(case, held[name][0])) for name in kernel.outputs]
    return views[0], views[1] if case.sum else None


def test_a_compiler_that_cannot_be_used_is_an_error_before_tensorrt_sees_it(monkeypatch: pytest.MonkeyPatch) -> None:
    needed(lambda: str(nvrtc.version()))
    problem = Problem(1, 8, 16, 2)
    choice = select(problem, H200, "block").choice  # type: ignore[union-attr]
    monkeypatch.setattr(Specialised, "scalars", property(lambda self: ("samples",)))
    source = Specialised(problem, choice).source().replace("int32_t samples", "int64_t samples")
    monkeypatch.setattr(Specialised, "source", lambda self: source)
    with pytest.raises(GnDeployError, match=r"takes \(u64.*TensorRT passes \(u64, u64, u64, u64, u64, u64, u32, u64\)"):
        Specialised(problem, choice).compile(80)


def test_sources_stand_where_the_package_says() -> None:
    assert specialise.KERNELS.resolve() == (PLUGINS / "kernels").resolve()
