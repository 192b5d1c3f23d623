"""What TensorRT passes to a kernel, and what old drivers read, is known before TensorRT sees any PTX."""

import shutil
import subprocess
from pathlib import Path

import pytest

from gn_deploy.errors import GnDeployError, UnavailableError
from gn_deploy.plugin import nvrtc, ptx, toolchain

KERNELS = Path(__file__).parents[2] / "plugins" / "kernels"
SIGNATURE = "const void *x, const float *w, int n, unsigned m, void *__restrict__ y"
SOURCE = """
#include "platform.h"
extern "C" __global__ void __launch_bounds__(256, 2) CLUSTER kernel(SIGNATURE) {
    gn::Bits128 *memory = reinterpret_cast<gn::Bits128 *>(gn::shared());
    gn::Mbarrier *mbarrier = reinterpret_cast<gn::Mbarrier *>(memory + 1);
    if (gn::thread() == 0) gn::open(mbarrier);
    gn::cluster_arrive();
    gn::Bits128 v = gn::load_once(static_cast<const gn::Bits128 *>(x) + gn::thread());
    v.word[0] += m + static_cast<int>(gn::load(w + n));
    gn::cluster_wait();
    if (gn::thread() == 0) gn::expect(mbarrier, 16), gn::send(v, memory, mbarrier, gn::cluster_rank());
    gn::receive(mbarrier);
    gn::store(static_cast<gn::Bits128 *>(y), *memory);
}
"""
# as Triton 3.9 ends the parameters of what it compiles: two scratch buffers that only its own launcher passes
TRITON = """
.version 8.7
.target sm_90a
.address_size 64
.visible .entry gn_kernel(
\t.param .u64 .ptr .global .align 1 gn_kernel_param_0,
\t.param .u32 gn_kernel_param_1,
\t.param .u64 .ptr .global .align 1 gn_kernel_param_2,
\t.param .u64 .ptr .global .align 1 gn_kernel_param_3,
\t.param .u64 .ptr .global .align 1 gn_kernel_param_4
)
.reqntid 128
{
\tret;
}
"""


def built(capability: int = 90, signature: str = SIGNATURE, cluster: str = "") -> str:
    try:
        source = SOURCE.replace("SIGNATURE", signature).replace("CLUSTER", cluster)
        return nvrtc.compile_ptx(source, capability, KERNELS).ptx
    except UnavailableError as reason:
        pytest.skip(str(reason))


@pytest.mark.parametrize("capability", [75, 80, 90, 100, 120])
def test_the_parameters_of_a_kernel_are_read(capability: int) -> None:
    found = ptx.entry(built(capability))
    assert found == ptx.Entry("kernel", ("u64", "u64", "u32", "u32", "u64"), cluster=1, threads=256)
    assert ptx.check_parameters(built(capability), inputs=2, scalars=2, outputs=1) == found


def test_a_cluster_is_read() -> None:
    assert ptx.entry(built(cluster="__cluster_dims__(4, 1, 1)")).cluster == 4


@pytest.mark.parametrize(
    "wrong",
    [
        SIGNATURE + ", void *extra",
        SIGNATURE.replace("int n", "long long n"),
        SIGNATURE.replace("unsigned m", "float m"),
        "const void *x, int n, const float *w, unsigned m, void *y",
        SIGNATURE.replace("const void *x", "const void *x, const void *residual"),
    ],
)
def test_a_kernel_that_takes_something_else_is_refused(wrong: str) -> None:
    text = built(signature=wrong)
    with pytest.raises(GnDeployError, match=r"kernel takes \(u64.*TensorRT passes \(u64, u64, u32, u32, u64\)"):
        ptx.check_parameters(text, inputs=2, scalars=2, outputs=1)


def test_a_struct_by_value_is_refused() -> None:
    signature = "const gn::Bits128 s, const void *x, const float *w, int n, unsigned m, void *y"
    with pytest.raises(GnDeployError, match=r"takes \(b8\[16\], u64"):
        ptx.check_parameters(built(signature=signature), inputs=2, scalars=2, outputs=1)


def test_the_hidden_parameters_of_triton_are_refused() -> None:
    assert ptx.entry(TRITON).parameters == ("u64", "u32", "u64", "u64", "u64")
    with pytest.raises(GnDeployError, match="compilers that add parameters of their own"):
        ptx.check_parameters(TRITON, inputs=1, scalars=1, outputs=1)


@pytest.mark.parametrize("text", ["", "int main() {}", TRITON + TRITON])
def test_text_without_exactly_one_kernel_is_refused(text: str) -> None:
    with pytest.raises(GnDeployError, match=r"one kernel is needed, this has \d"):
        ptx.entry(text)


def test_what_is_no_ptx_has_no_version() -> None:
    with pytest.raises(GnDeployError, match="no PTX"):
        ptx.for_old_drivers("int main() {}")


@pytest.mark.parametrize(("capability", "oldest"), [(75, "8.0"), (89, "8.0"), (90, "8.1"), (100, "8.6"), (120, "8.7")])
def test_ptx_has_the_oldest_version_that_is_enough(capability: int, oldest: str, tmp_path: Path) -> None:
    stamped = ptx.for_old_drivers(built(capability, cluster="__cluster_dims__(2)" if capability >= 90 else ""))
    assert f".version {oldest}\n" in stamped
    assert ptx.for_old_drivers(stamped) == stamped
    assert not assembled(stamped, capability, tmp_path)
    too_old = stamped.replace(f".version {oldest}", ".version 6.0")
    assert assembled(too_old, capability, tmp_path), "the assembler heeds the version"


def assembled(text: str, capability: int, folder: Path) -> str:
    """What ptxas has to say against it."""
    file = folder / "kernel.ptx"
    file.write_text(text)
    found = toolchain.tool("ptxas") or shutil.which("ptxas")
    if found is None:
        pytest.skip("there is no ptxas")
    command = [found, f"-arch=sm_{capability}", file, "-o", folder / "kernel.cubin"]
    return subprocess.run(command, capture_output=True, text=True).stderr
