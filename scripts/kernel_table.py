"""Writes the table of compiled kernels into plugins/README.md: registers, spills, widths, instructions of each.

    python scripts/kernel_table.py                all architectures, which takes minutes
    python scripts/kernel_table.py 80 90          these
    python scripts/kernel_table.py --check 80 90  writes nothing; 1 when the table is not what the page says

Needs no GPU: `pip install nvidia-cuda-nvrtc nvidia-cuda-nvdisasm`.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # for scripts.pages

from gn_deploy.errors import GnDeployError  # noqa: E402
from gn_deploy.plugin import nvrtc  # noqa: E402
from gn_deploy.plugin.build import ARCHITECTURES  # noqa: E402
from gn_deploy.plugin.machine_code import MachineCode, read  # noqa: E402
from gn_deploy.plugin.nvrtc import Compiled  # noqa: E402
from scripts import pages  # noqa: E402

KERNELS, README = ROOT / "plugins" / "kernels", ROOT / "plugins" / "README.md"
BLOCK = "compiled kernels"
LANES = {"F16": 8, "BF16": 8, "F32": 4}
"""Elements of a 128-bit vector."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """One instance of a kernel template of plugins/kernels.

    1. ``template`` is its C++ with {vectors} to be filled in; ``tiles`` what it is compiled with, the hot one last.
    2. ``reads``, ``writes``: 128-bit loads and stores of a vector of x, in the part that all threads execute.
    """

    name: str
    header: str
    template: str
    dtype: str
    tiles: tuple[int, ...]
    writes: int = 1
    team: bool = False
    cluster: bool = False

    def source(self, vectors: int) -> str:
        instance = self.template.format(vectors=vectors)
        return f'#include "{self.header}"\ntemplate __global__ void gn::{instance}(GN_PARAMETER gn::Arguments);\n'

    def instructions(self, code: MachineCode, vectors: int) -> int:
        """Of a thread with a full tile that has nothing special to do, and no residual; of a team for one unit."""
        return code.path(vectors, vectors * self.writes, loop=self.team)


def _resident(layout: str, exchange: str, dtype: str, epilogue: str = "kSilu") -> Kernel:
    return Kernel(
        f"{layout} {'team' if exchange == 'Team' else 'block, cluster'}",
        f"{layout.lower()}_resident.h",
        f"{layout.lower()}_resident_kernel<gn::{exchange}, GN_{dtype}, gn::{epilogue}, {{vectors}}>",
        dtype,
        (6, 10),
        team=exchange == "Team",
        cluster=exchange == "Cluster",
    )


HOT = (
    *(_resident("NCHW", "Cluster", dtype) for dtype in LANES),
    _resident("NCHW", "Team", "F16"),
    _resident("NCHW", "Team", "F32"),
    *(_resident("NHWC", "Cluster", dtype) for dtype in LANES),
    _resident("NHWC", "Team", "F16"),
    Kernel("NCHW warp", "nchw_warp.h", "nchw_warp_kernel<GN_F16, gn::kSilu, {vectors}>", "F16", (6, 8)),
    Kernel("NCHW split, 1st", "nchw_split.h", "nchw_statistics_kernel<GN_F16>", "F16", (5,), writes=0),
    Kernel("NCHW split, 2nd", "nchw_split.h", "nchw_apply_kernel<GN_F16, gn::kSilu>", "F16", (5,)),
)
"""SiLU each: two special functions an element, the most of what is common."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A kernel on an architecture; numbers are of the largest tile."""

    code: MachineCode
    whole: float | None
    """Instructions of the kernel for each element; None where the tile is too small to tell x from a residual."""
    slope: float | None
    """More instructions for each more element, from the smaller tile to the larger; None where there is one tile."""


def measure(kernel: Kernel, capability: int, build: Callable[[str, int], Compiled]) -> Measured:
    codes = [(vectors, read(build(kernel.source(vectors), capability))) for vectors in kernel.tiles]
    largest = codes[-1][1]
    if len(codes) == 1:
        return Measured(largest, None, None)
    lanes = LANES[kernel.dtype]
    few, many = (kernel.instructions(code, vectors) for vectors, code in codes)
    more = (kernel.tiles[-1] - kernel.tiles[0]) * lanes
    return Measured(largest, many / (kernel.tiles[-1] * lanes), (many - few) / more)


def build(source: str, capability: int) -> Compiled:
    return nvrtc.compile_cubin(source, capability, KERNELS)


def table(architectures: Sequence[int] = ARCHITECTURES) -> str:
    major, minor = nvrtc.version()
    header = ["kernel, SiLU", "x", "sm", "registers", "stack", "spills", "loads", "stores", "instructions", "size"]
    rows = [header]
    with ProcessPoolExecutor() as pool:  # NVRTC compiles one at a time in a process
        asked = {(k, c): pool.submit(measure, k, c, build) for k in HOT for c in architectures}
        for (kernel, capability), answer in asked.items():
            found = answer.result()
            code = found.code
            rows.append(
                [
                    f"{kernel.name}, {kernel.tiles[-1]} vectors",
                    kernel.dtype.lower(),
                    str(capability),
                    *(str(n) for n in (code.registers, code.stack, code.spills)),
                    _widths(code, "LDG"),
                    _widths(code, "STG"),
                    "-" if found.slope is None else f"{found.slope:.1f} / {found.whole:.1f}",
                    f"{code.size / 1024:.0f} KB",
                ]
            )
    return f"Compiled by NVRTC {major}.{minor}.\n\n" + pages.table(rows)


def _widths(code: MachineCode, operation: str) -> str:
    """ "20 of 128, 14 of 16 bits": how many instructions, widest first."""
    counts = [(bits, code.accesses(operation, bits)) for bits in (128, 64, 32, 16, 8)]
    return ", ".join(f"{count} x {bits}" for bits, count in counts if count) or "-"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="kernel_table.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only compare: 1 when the page says otherwise")
    known = ", ".join(map(str, ARCHITECTURES))
    told = f"of {known}; default: all, which takes minutes"
    parser.add_argument("architectures", nargs="*", type=int, metavar="ARCHITECTURE", help=told)
    asked = parser.parse_args(arguments)
    for unknown in set(asked.architectures) - set(ARCHITECTURES):  # Python 3.11: no choices for "*"
        parser.error(f"{unknown} is none of the architectures {known}")
    try:
        made = table(sorted(set(asked.architectures)) or ARCHITECTURES)
        same = pages.update(README, BLOCK, made, check=asked.check)
    except GnDeployError as error:
        print(f"kernel_table: {error}", file=sys.stderr)
        return int(error.exit_code)
    if asked.check and not same:
        print(f"kernel_table: not what {README.relative_to(ROOT)} says", file=sys.stderr)
    return int(asked.check and not same)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
