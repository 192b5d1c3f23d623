"""What the kernels ask of the hardware, read from their machine code: a number that grows here is time on every GPU."""

import fcntl
import hashlib
import json
import re
from base64 import b64decode, b64encode
from itertools import takewhile

import pytest

from gn_deploy.errors import UnavailableError
from gn_deploy.plugin import machine_code, nvrtc
from gn_deploy.plugin.build import ARCHITECTURES
from gn_deploy.plugin.device import FIRST_WITH_CLUSTERS
from gn_deploy.plugin.nvrtc import Compiled
from gn_deploy.plugin.units import REGISTERS
from scripts import kernel_table
from scripts.kernel_table import HOT, LANES, Kernel, Measured
from tests.plugins.compiled import FOLDER

DEFAULT = {
    ("NCHW block, cluster", "F16"): (80, 90),
    ("NCHW block, cluster", "F32"): (90,),
    ("NCHW team", "F16"): (80, 90),
    ("NCHW warp", "F16"): (86,),
    ("NCHW split, 2nd", "F16"): (90,),
    ("NHWC block, cluster", "F16"): (80, 90),
    ("NHWC team", "F16"): (90,),
}
"""What every run compiles; all others are slow."""
MOST = 15.0
"""Instructions an element, SiLU in 16 bit: at 15 a multiprocessor issues 118 / 15 = 7.9 TB/s of an H200's 4.8."""
MOST_OF_TEAM = 17.5
"""The same once round the loop over units, with both ways of a vector to registers: each has its test, one of them a
copy to shared memory before it, and in a loop four words are cleared first. 118 / 17.5 = 6.7 TB/s."""
BEFORE_AMPERE = {"F16": 1.5, "BF16": 7.0}
"""More of them on sm_75: no asynchronous copies, and bfloat16 is rounded by integers."""
SPILLS: dict[tuple[str, str], dict[int, int]] = {
    ("NCHW block, cluster", "F16"): {90: 8},  # an address, only where a vector has two channels
    ("NCHW block, cluster", "BF16"): {86: 16, 89: 16, 90: 8},
    ("NHWC team", "F16"): {75: 48, 80: 56, 86: 56, 89: 56, 90: 88, 100: 224, 120: 224},
}
"""Bytes that a thread stores to its stack and loads again, all over the code (NVRTC 13.5); others: 0. Of the NHWC team
on sm_100 and sm_120 that is one of its ten vectors of x, loaded again by half in each pass over x."""
FIRST_ARGUMENT = 0x210
"""Where the arguments of a kernel begin in constant memory, on sm_90."""
WARP_REGISTERS = 80
"""Three blocks of eight warps: a warp has no other to wait for."""


def _cases() -> list[object]:
    return [
        pytest.param(
            kernel,
            capability,
            id=f"{kernel.name} {kernel.dtype} sm_{capability}",
            marks=[] if capability in DEFAULT.get((kernel.name, kernel.dtype), ()) else [pytest.mark.slow],
        )
        for kernel in HOT
        for capability in ARCHITECTURES
    ]


def built(source: str, capability: int) -> Compiled:
    """Once for all processes of a test run, and again only when a source or the compiler is another."""
    try:
        machine_code.nvdisasm()
        known = repr((nvrtc.version(), source, capability))
    except UnavailableError as reason:
        pytest.skip(str(reason))
    digest = hashlib.sha256(known.encode())
    for header in sorted(kernel_table.KERNELS.glob("*.h")):
        digest.update(header.read_bytes())
    FOLDER.mkdir(exist_ok=True)
    file = FOLDER / f"cubin-{digest.hexdigest()[:16]}.json"
    with file.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not file.exists():
            made = kernel_table.build(source, capability)
            unfinished = file.with_suffix(".unfinished")
            unfinished.write_text(json.dumps({"code": b64encode(made.code).decode(), "log": made.log}))
            unfinished.rename(file)
    found = json.loads(file.read_text())
    return Compiled(b64decode(found["code"]), found["log"])


@pytest.mark.parametrize(("kernel", "capability"), _cases())
def test_a_hot_kernel_asks_no_more_than_it_may(kernel: Kernel, capability: int) -> None:
    found = kernel_table.measure(kernel, capability, built)
    code = found.code
    assert code.spills <= SPILLS.get((kernel.name, kernel.dtype), {}).get(capability, 0)
    assert code.stack <= code.spills, "nothing but spills has an address"
    most = WARP_REGISTERS if "warp" in kernel.name else REGISTERS
    assert code.registers <= most, "two blocks of 512 threads fill the register file with 64 each"
    assert code.accesses("LDG", 128) >= kernel.tiles[-1]
    assert code.accesses("STG", 128) >= kernel.tiles[-1] * kernel.writes
    assert not code.accesses("LDG", 64), "a vector is loaded whole, or element by element"
    _exchanges(kernel, capability, found)
    if ("cluster" in kernel.name or kernel.team) and kernel.dtype != "F32":
        most = MOST_OF_TEAM if kernel.team else MOST
        assert found.slope is not None
        assert found.slope < most + (BEFORE_AMPERE[kernel.dtype] if capability < 80 else 0.0)


def _exchanges(kernel: Kernel, capability: int, found: Measured) -> None:
    """Blocks that share a unit meet, and see what the others wrote."""
    opcodes = [i.opcode for i in found.code.instructions]
    if kernel.team:
        assert any(o.startswith(("ATOMG", "ATOM", "RED")) for o in opcodes), "arrivals are counted"
        assert any(o.startswith("MEMBAR") and ".GPU" in o for o in opcodes), "what was written before is seen after"
        assert any(o.startswith("LDG") and ".STRONG.GPU" in o for o in opcodes), (
            "the count is read from where all see it"
        )
    if kernel.cluster and capability >= FIRST_WITH_CLUSTERS:
        assert any(o.startswith("UCGABAR_ARV") for o in opcodes)
        assert any(o.startswith("UCGABAR_WAIT") for o in opcodes)
        assert any(o.startswith("STAS.128") for o in opcodes), "parts are sent, and nobody reads the others' memory"
        assert not any(o.startswith(("MEMBAR", "ERRBAR")) for o in opcodes), "a fence waits for all that is under way"
    if kernel.cluster and capability < FIRST_WITH_CLUSTERS:
        assert not any("CGABAR" in o or "SYNCS" in o for o in opcodes)


def test_what_is_known_before_x_is_asked_for_lies_together() -> None:
    """Arguments are cold at every launch, and come in lines of 64 bytes: what is read first needs no third one."""
    kernel, capability = HOT[0], 90
    code = machine_code.read(built(kernel.source(kernel.tiles[-1]), capability)).instructions
    before = list(takewhile(lambda i: i.operation != "LDG", code))
    places = {int(at, 16) for i in before for at in re.findall(r"c\[0x0\]\[(0x[0-9a-f]+)\]", i.operands)}
    arguments = {at for at in places if at >= FIRST_ARGUMENT}
    assert FIRST_ARGUMENT in arguments, "the address of x"
    assert len({at // 64 for at in arguments}) <= 2


def test_the_kernels_that_are_gated_are_all_of_a_kind() -> None:
    """A kernel that is renamed does not slip out of the default run."""
    assert DEFAULT.keys() <= {(kernel.name, kernel.dtype) for kernel in HOT}
    assert {kernel.dtype for kernel in HOT} == LANES.keys()
