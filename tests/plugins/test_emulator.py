"""The emulated GPU itself: small kernels run on it, and each of their mistakes is seen under every schedule."""

import ctypes
import math
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests.plugins.compiled import compiled
from tests.plugins.emulated import (
    COUNTERS,
    EMULATOR,
    INPUT,
    INSTRUMENTED,
    KERNELS,
    OUTPUT,
    SCHEDULES,
    WORKSPACE,
    Machine,
    aligned,
    emulator_objects,
    flags,
    headers,
    linked,
)
from tests.plugins.small_kernels import BUGS, KERNEL, SMALL


@cache
def machine() -> Machine:
    reads = headers(EMULATOR, KERNELS)
    small = compiled("small_kernels", [SMALL], *flags(), INSTRUMENTED, "-c", reads=reads)
    found = Machine(linked("libsmall_kernels", [small, *emulator_objects()]))
    found.c.small_kernel.restype = ctypes.c_char_p
    for name in ("exp2", "reciprocal", "rsqrt", "erfc"):
        getattr(found.c, f"small_{name}").restype = ctypes.c_float
    for name in ("to_f16x2", "to_bf16x2"):
        getattr(found.c, f"small_{name}").restype = ctypes.c_uint32
    return found


def run(kernel: str, bug: str = "Right", schedule: str = "in order", seed: int = 0) -> tuple[str, np.ndarray[Any, Any]]:
    """What the emulator says, and y; x is 5 units of 512 numbers, teams are two of four blocks."""
    units, elements, slices, teams, threads = 5, 512, 4, 2, 128
    x, y = aligned(units * elements + 64, "f4")[: units * elements], aligned(units * elements, "f4")  # nobody's after x
    x[:] = np.random.default_rng(0).normal(3, 1, x.size)
    workspace, counters = aligned(2 * teams * slices, "f4"), aligned(32 * teams, "u4")
    counters[:] = 0
    gpu = machine()
    gpu.schedule(schedule, seed)
    with gpu.buffers(x=(x, INPUT), y=(y, OUTPUT), workspace=(workspace, WORKSPACE), counters=(counters, COUNTERS)):
        addresses = [ctypes.c_void_p(a.ctypes.data) for a in (x, y, workspace, counters)]
        sizes = ctypes.c_int64(elements), ctypes.c_int64(units), slices, teams, threads
        told = gpu.c.small_kernel(KERNEL.index(kernel), BUGS.index(bug), *addresses, *sizes).decode()
    if not told:
        exact = x.astype("f8").reshape(units, -1)
        exact -= exact.mean(axis=1, keepdims=True)
        assert np.abs(y - exact.ravel()).max() < 1e-5  # 20 units in the last place of x
        assert not counters.any() or bug == "DirtyCounters"
    return told, y


@pytest.mark.parametrize("kernel", KERNEL)
def test_a_right_kernel_gives_the_same_bits_under_every_schedule(kernel: str) -> None:
    told, first = run(kernel)
    assert told == ""
    for schedule in SCHEDULES:
        for seed in range(3 if schedule in ("random", "skewed") else 1):
            told, again = run(kernel, "Right", schedule, seed)
            assert told == ""
            assert again.tobytes() == first.tobytes()


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(
    ("kernel", "bug", "told"),
    [
        ("centre", "NoBarrier", "race: "),
        ("centre", "NoSecondBarrier", "race: "),
        ("centre", "DivergentBarrier", "while another thread of its block is at barrier (small_kernels.cpp:"),
        ("centre", "ReturnsEarly", "returns while its warp is at shuffle_xor (small_kernels.cpp:"),
        ("centre", "DivergentShuffle", "with mask 2 while its warp has 4"),
        ("centre", "ShuffleMasks", "with mask 8 while its warp has 4"),
        ("centre", "WriteBeyond", "writes 4 bytes beside its block's shared memory"),
        ("centre", "ReadBeyond", "reads 4 bytes beside its block's shared memory"),
        ("centre", "OutOfBounds", "reads 4 bytes out of bounds, at byte "),
        ("centre", "Misaligned", "is not aligned to them"),
        ("centre", "WriteInput", "writes x, an input"),
        ("centre", "WriteTwice", "a second time"),
        ("centre", "PlainPointer", "reads x by a plain pointer"),
        ("centre", "WildPointer", "touches address 0x200, which is nobody's"),
        ("cluster_centre", "NoClusterWait", "send (small_kernels.cpp:"),
        ("cluster_centre", "NoClusterArrive", "cluster_wait (small_kernels.cpp:"),
        ("cluster_centre", "EndsTooEarly", " ends before "),
        ("cluster_centre", "ForeignRank", "to block 4 of a cluster of 4"),
        ("cluster_centre", "NotOpened", "Mbarrier"),
        ("cluster_centre", "TooFewBytes", "send (small_kernels.cpp:"),
        ("cluster_centre", "TooManyBytes", "threads wait at receive (small_kernels.cpp:"),
        ("cluster_centre", "SlotOfAnother", "where something has arrived already"),
        ("cluster_centre", "NoReceive", "race: "),
        ("team_centre", "NobodyArrives", "deadlock: 1016 threads wait at barrier (small_kernels.cpp:"),
        ("team_centre", "NoArrive", "8 threads wait at pause (small_kernels.cpp:"),
        ("team_centre", "LongWay", "8 threads wait at arrived (small_kernels.cpp:"),
        ("team_centre", "NoWait", "which nobody has written"),
        ("team_centre", "NoBarrierAfterWait", "reads workspace[byte "),
        ("team_centre", "NoBarrierBeforeArrive", "race: reads workspace[byte "),
        ("team_centre", "SingleBuffer", "race: "),
        ("team_centre", "CachedLoad", "by a load that may be cached"),
        ("sums", "NoWaitForPrevious", "which the launch before may not have written yet"),
        ("sums", "WritesTooEarly", "before the launch before has ended"),
    ],
)
def test_a_mistake_is_seen_whatever_the_schedule(kernel: str, bug: str, told: str, schedule: str) -> None:
    assert told in run(kernel, bug, schedule, seed=1)[0]


def test_counters_that_are_left_are_the_caller_s_to_see() -> None:
    assert run("team_centre", "DirtyCounters")[0] == ""


def test_a_launch_beyond_the_device_is_refused() -> None:
    device = {"compute_capability": 90, "multiprocessors": 1, "registers": 65536, "shared_per_block": 1024}
    device |= {"shared": 233472, "threads": 2048, "cluster_blocks": 2, "cooperative": 1}
    gpu = machine()
    try:
        gpu.device(device)
        assert "clusters of 4 blocks, the device has at most 2" in run("cluster_centre")[0]
        assert run("team_centre")[0] == ""  # 8 blocks of 128 threads with 64 registers each are one multiprocessor
        gpu.device({**device, "registers": 32768})
        assert "8 cooperative blocks, the device holds 4 at once" in run("team_centre")[0]
        gpu.device({**device, "cooperative": 0})
        assert "cannot do" in run("team_centre")[0]
    finally:
        gpu.device({**device, "multiprocessors": 8, "shared_per_block": 232448, "cluster_blocks": 8})


def test_traffic_is_counted() -> None:
    run("centre")
    x, y, total = (machine().moved[name] for name in ("x", "y", "total"))
    assert (x.loaded, x.stored, y.loaded, y.stored) == (2 * 5 * 512 * 4, 0, 0, 5 * 512 * 4)
    assert (total.loaded, total.stored) == (2 * 5 * 512 * 4, 5 * 512 * 4)
    assert (total.loads, total.wide_loads, total.launches, total.blocks, total.barriers) == (2 * 5 * 512, 0, 1, 5, 20)


def test_formats_are_exact() -> None:
    c = machine().c
    low, high = ctypes.c_float(), ctypes.c_float()
    for bits in range(1 << 16):
        c.small_from_f16x2(bits | (bits ^ 0x8000) << 16, ctypes.byref(low), ctypes.byref(high))
        exact = np.uint16(bits).view("f2")
        assert np.array_equal(np.array([low.value, high.value]), np.array([exact, -exact], "f8"), equal_nan=True)
    draw = np.random.default_rng(0)
    halves = np.arange(0x7C00, dtype=np.uint16).view("f2").astype("f8")
    ties = ((halves[:-1] + halves[1:]) / 2).astype("f4")  # exact in float32
    numbers = np.concatenate([draw.choice(ties, 2000), ties[-3:], [65519.996, 65520]])
    numbers = np.concatenate([numbers, draw.integers(0, 0x7F800000, 4000, np.uint32).view("f4")])
    numbers = np.concatenate([numbers, np.nextafter(numbers, 0, dtype="f4"), [np.inf]]).astype("f4")
    with np.errstate(over="ignore"):
        expected = numbers.astype("f2").view("u2"), numbers.astype(ml_dtypes.bfloat16).view("u2")
    for name, lows in zip(("to_f16x2", "to_bf16x2"), expected, strict=True):
        convert = getattr(c, f"small_{name}")
        for number, bits in zip(numbers.tolist(), lows.tolist(), strict=True):
            assert convert(ctypes.c_float(number), ctypes.c_float(-number)) == bits | (bits | 0x8000) << 16
        assert convert(ctypes.c_float(np.nan), ctypes.c_float(1)) & 0xFFFF == 0x7FFF


@pytest.mark.parametrize(
    ("name", "exact", "ulps", "powers"),
    [
        ("exp2", np.exp2, 2, (-3, 6.9)),
        ("reciprocal", np.reciprocal, 1, (-120, 120)),
        ("rsqrt", lambda x: 1 / np.sqrt(x), 2, (-120, 120)),
        ("erfc", lambda x: np.array([math.erfc(v) for v in x]), 4, (-3, 3)),
    ],
)
def test_approximate_functions_err_as_much_as_they_may(name: str, exact: Any, ulps: float, powers: Any) -> None:
    x = np.exp2(np.random.default_rng(1).uniform(*powers, 4000)).astype("f4")
    got = np.array([getattr(machine().c, f"small_{name}")(ctypes.c_float(v)) for v in x.tolist()], "f4")
    right = exact(x.astype("f8"))
    error = np.abs(got - right) / np.spacing(right.astype("f4"))
    assert ulps * 0.95 < error.max() <= ulps


def test_limits_of_approximate_functions() -> None:
    c = machine().c
    assert c.small_exp2(ctypes.c_float(0)) == 1
    assert c.small_exp2(ctypes.c_float(-np.inf)) == 0 == c.small_exp2(ctypes.c_float(-127))  # subnormals are flushed
    assert c.small_exp2(ctypes.c_float(128)) == np.inf == c.small_reciprocal(ctypes.c_float(1e-39))
    assert c.small_reciprocal(ctypes.c_float(np.inf)) == 0 == c.small_reciprocal(ctypes.c_float(2e38))
    assert c.small_reciprocal(ctypes.c_float(4)) == 0.25
