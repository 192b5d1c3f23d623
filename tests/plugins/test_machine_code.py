"""Small kernels whose registers, loads, spills and instructions are known by construction."""

from pathlib import Path

import pytest

from gn_deploy.errors import GnDeployError, UnavailableError
from gn_deploy.plugin import machine_code, nvrtc
from gn_deploy.plugin.machine_code import MachineCode

KERNELS = Path(__file__).parents[2] / "plugins" / "kernels"
COPY = """
#include "platform.h"
extern "C" __global__ void copy(const gn::Bits128 *x, int n, gn::Bits128 *y) {
    gn::Bits128 v[TILE];
#pragma unroll
    for (int i = 0; i < TILE; ++i) v[i] = gn::load_once(x + gn::thread() + i * 512);
    if (n > 7) {
        gn::barrier();  // so that it stays a jump
#pragma unroll
        for (int i = 0; i < TILE; ++i)
            for (int j = 0; j < 4; ++j) v[i].word[j] = v[i].word[j] * v[i].word[j];
    }
#pragma unroll
    for (int i = 0; i < TILE; ++i) gn::store(y + gn::thread() + i * 512, v[i]);
}
"""
SPILLING = """
extern "C" __global__ void __launch_bounds__(1024, 2) spill(const float *x, float *y) {
    float v[64];
#pragma unroll
    for (int i = 0; i < 64; ++i) v[i] = x[threadIdx.x + i * 1024];
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 64; ++i) y[threadIdx.x + i * 1024] = v[i] * v[63 - i];
}
"""


@pytest.fixture(scope="module", autouse=True)
def _tools() -> None:
    try:
        nvrtc.version()
        machine_code.nvdisasm()
    except UnavailableError as reason:
        pytest.skip(str(reason))


def built(source: str, capability: int = 90, *options: str) -> MachineCode:
    return machine_code.read(nvrtc.compile_cubin(source, capability, KERNELS, options))


@pytest.mark.parametrize("capability", [75, 80, 90, 120])
def test_every_load_and_store_is_counted_by_its_width(capability: int) -> None:
    code = built(COPY, capability, "-DTILE=5")
    assert [code.accesses("LDG", bits) for bits in (16, 32, 64, 128)] == [0, 0, 0, 5]
    assert [code.accesses("STG", bits) for bits in (16, 32, 64, 128)] == [0, 0, 0, 5]
    assert (code.stack, code.spills) == (0, 0)
    assert 5 * 4 < code.registers < 64, "the tile is held in registers"


def test_narrow_loads_are_seen() -> None:
    code = built('extern "C" __global__ void f(const short *x, float2 *y) { *y = make_float2(x[0], x[9]); }')
    assert (code.accesses("LDG", 16), code.accesses("LDG", 128), code.accesses("STG", 64)) == (2, 0, 1)


def test_the_cheapest_way_leaves_out_what_may_be_jumped_over() -> None:
    five, ten = built(COPY, 90, "-DTILE=5"), built(COPY, 90, "-DTILE=10")
    assert len(ten.instructions) - len(five.instructions) >= 5 * (2 + 4), "a load, a store, four multiplications"
    assert ten.path(10, 10) - five.path(5, 5) == 5 * 2, "no multiplication"


def test_a_way_that_does_not_exist_is_refused() -> None:
    with pytest.raises(GnDeployError, match="no way through the code has 6 loads"):
        built(COPY, 90, "-DTILE=5").path(6, 5)


def test_spills_and_stack_are_seen() -> None:
    code = built(SPILLING)
    assert code.registers <= 32
    assert code.spills > 0
    assert code.stack > 0
    assert code.opcodes["STL"] >= 1
    assert code.opcodes["LDL"] >= 1


def test_what_the_compiler_refuses_is_told_in_its_words() -> None:
    with pytest.raises(nvrtc.CompilationError, match=r"NVRTC: kernel.cu.*undefined_thing"):
        nvrtc.compile_ptx("__global__ void k() { undefined_thing(); }", 80, KERNELS)


def test_ptx_is_text_with_one_entry_for_the_asked_architecture() -> None:
    ptx = nvrtc.compile_ptx(COPY, 86, KERNELS, ["-DTILE=2"]).ptx
    assert ".target sm_86" in ptx
    assert ptx.count(".entry") == 1
    assert ".entry copy(" in ptx


def test_all_architectures_of_the_plugin_are_known() -> None:
    assert {75, 80, 86, 89, 90, 100, 120} <= set(nvrtc.capabilities())


def test_without_the_package_the_reason_and_the_cure_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    nvrtc._library.cache_clear()
    monkeypatch.setattr(nvrtc, "_places", lambda: iter(()))
    with pytest.raises(UnavailableError, match=r"no CUDA run-time compiler.*pip install nvidia-cuda-nvrtc"):
        nvrtc.version()
    monkeypatch.setattr(machine_code, "nvidia_files", lambda pattern: [])
    monkeypatch.setattr(machine_code.toolchain, "tool", lambda name: None)
    with pytest.raises(UnavailableError, match=r"no CUDA disassembler.*pip install nvidia-cuda-nvdisasm"):
        machine_code.nvdisasm()


REDUCING = """
#include "platform.h"
extern "C" __global__ void reduce(const gn::Bits128 *x, int count, gn::Bits128 *y) {
    gn::Bits128 v[TILE];
    float sum = 0;
#pragma unroll
    for (int i = 0; i < TILE; ++i) v[i] = gn::load_once(x + gn::thread() + i * 512);
#pragma unroll
    for (int i = 0; i < TILE; ++i) {
        if (i >= count) break;
        for (int j = 0; j < 4; ++j) sum += gn::as_float(v[i].word[j]);
    }
    for (int mask = 16; mask; mask >>= 1) sum += gn::shuffle_xor(sum, mask);
#pragma unroll
    for (int i = 0; i < TILE; ++i) {
        v[i].word[0] = gn::as_bits(sum);
        gn::store(y + gn::thread() + i * 512, v[i]);
    }
}
"""


def test_no_work_is_left_out() -> None:
    code = built(REDUCING, 90, "-DTILE=8")
    shortest, all_of_it = code.path(8, 8, work=("NOTHING",)), code.path(8, 8)
    assert all_of_it - shortest >= 7 * 4, "a jump over most sums is cheaper, but not all of the work"


LOOPING = """
#include "platform.h"
extern "C" __global__ void loop(const gn::Bits128 *x, int units, gn::Bits128 *y) {
    gn::store(y + 9999, gn::load_once(x + 9999));
#pragma unroll 1
    for (int unit = 0; unit < units; ++unit) {
        gn::Bits128 v[TILE];
#pragma unroll
        for (int i = 0; i < TILE; ++i) v[i] = gn::load_once(x + unit * 10000 + i * 512);
        gn::barrier();
#pragma unroll
        for (int i = 0; i < TILE; ++i) gn::store(y + unit * 10000 + i * 512, v[i]);
    }
}
"""


def test_of_a_loop_one_round_is_counted_and_nothing_around_it() -> None:
    few, many = built(LOOPING, 90, "-DTILE=3"), built(LOOPING, 90, "-DTILE=7")
    assert 4 * 2 <= many.path(7, 7, loop=True) - few.path(3, 3, loop=True) < 4 * 4, "a load and a store, and an address"
    assert many.path(8, 8) > many.path(7, 7, loop=True), "the vector before the loop"
    with pytest.raises(GnDeployError, match="no way through the code has 8 loads"):
        many.path(8, 8, loop=True)
    with pytest.raises(GnDeployError, match="no loop"):
        built(COPY, 90, "-DTILE=5").path(5, 5, loop=True)


def test_a_jump_of_lanes_that_have_parted_need_not_be_taken() -> None:
    code = built(REDUCING, 75, "-DTILE=8")
    assert not any(i.ends for i in code.instructions if i.opcode.startswith("BRA.DIV"))
