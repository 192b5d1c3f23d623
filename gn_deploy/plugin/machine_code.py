"""What a compiled kernel asks of the hardware, read from NVRTC's log and nvdisasm's listing."""

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from heapq import heappop, heappush
from itertools import takewhile

from gn_deploy.errors import GnDeployError, UnavailableError
from gn_deploy.plugin import toolchain
from gn_deploy.plugin.nvrtc import Compiled, nvidia_files

PACKAGE = "nvidia-cuda-nvdisasm"
_LINE = re.compile(
    r"/\*[0-9a-f]{4,}\*/\s+(?:\{\s*)?(?P<guard>@!?U?P[T\d]+\s+)?(?P<opcode>[A-Z][\w.]*)(?P<operands>[^;]*);"
)
_LABEL = re.compile(r"^(\.L\w+):", re.MULTILINE)
_TARGET = re.compile(r"\.L_?\w+")
_WIDTHS = {"U8": 8, "S8": 8, "U16": 16, "S16": 16, "64": 64, "128": 128, "256": 256}


@dataclass(frozen=True, slots=True)
class Instruction:
    """One line of SASS; ``opcode`` with its modifiers, ``targets`` the places it may jump to, in instructions."""

    opcode: str
    operands: str
    guarded: bool
    targets: tuple[int, ...]

    @property
    def operation(self) -> str:
        """Without its modifiers."""
        return self.opcode.partition(".")[0]

    @property
    def leaves(self) -> bool:
        """The kernel may end here."""
        return self.operation == "EXIT"

    @property
    def ends(self) -> bool:
        """What stands next is not executed next: an unconditional jump or exit."""
        if self.guarded or self.operation not in ("BRA", "JMP", "BRX", "EXIT", "RET", "KILL"):
            return False
        conditional = self.operation != "BRX" and "," in self.operands.partition("`")[0]
        return not conditional

    @property
    def bits(self) -> int:
        """Moved by a thread, where this is a load or a store."""
        return next((_WIDTHS[m] for m in self.opcode.split(".") if m in _WIDTHS), 32)


@dataclass(frozen=True)
class MachineCode:
    """One kernel as the hardware sees it.

    1. ``registers`` of a thread, ``stack`` bytes of a thread, ``spills`` bytes stored to and loaded from it.
    2. ``size`` is the bytes of the cubin.
    """

    registers: int
    stack: int
    spills: int
    size: int
    instructions: tuple[Instruction, ...]

    @cached_property
    def opcodes(self) -> Counter[str]:
        """How often each operation stands in the code, without its modifiers."""
        return Counter(i.operation for i in self.instructions)

    def accesses(self, operation: str, bits: int) -> int:
        """How many loads (LDG) or stores (STG) of global memory move ``bits`` bits at a time."""
        return sum(i.operation == operation and i.bits == bits for i in self.instructions)

    def path(self, loads: int, stores: int, additions: int = 0) -> int:
        """Instructions of the cheapest way through the code that does all of the work.

        Work is: that many 128-bit loads and stores of global memory, and that many float32 additions at least before
        the first shuffle, where statistics are taken. So nothing is left out that a thread with a full tile executes,
        and nothing is counted that only others need. Raises ``GnDeployError`` where there is no such way.
        """
        seen = set()
        waiting = [(0, 0, 0, 0, 0, False)]
        while waiting:
            cost, at, loaded, stored, added, shuffled = state = heappop(waiting)
            if at < 0 and (loaded, stored, shuffled or added >= additions) == (loads, stores, True):
                return cost
            if at < 0 or state[1:] in seen or loaded > loads or stored > stores:
                continue
            seen.add(state[1:])
            block = self._blocks[at]
            added = min(additions, added + (0 if shuffled else block.additions))
            if block.shuffles and added < additions:
                continue
            done = (loaded + block.loads, stored + block.stores, added, shuffled or block.shuffles)
            for follower in block.followers:
                heappush(waiting, (cost + block.cost, follower, *done))
        raise GnDeployError(
            f"no way through the code has {loads} loads, {stores} stores of 128 bits, {additions} additions"
        )

    @cached_property
    def _blocks(self) -> "dict[int, _Block]":
        code = self.instructions
        heads = {0, *(t for i in code for t in i.targets)} | {n + 1 for n, i in enumerate(code) if i.ends or i.leaves}
        heads |= {n + 1 for n, i in enumerate(code) if i.targets}
        blocks = {}
        for head in sorted(heads - {len(code)}):
            tail = next(n for n in range(head, len(code)) if n + 1 in heads or n + 1 == len(code))
            inside, last = code[head : tail + 1], code[tail]
            followers = [*last.targets, *([-1] if last.leaves else []), *([] if last.ends else [tail + 1])]
            blocks[head] = _Block(
                cost=len(inside),
                loads=sum(i.bits == 128 and i.operation == "LDG" for i in inside),
                stores=sum(i.bits == 128 and i.operation == "STG" for i in inside),
                additions=sum(i.operation == "FADD" for i in takewhile(lambda i: i.operation != "SHFL", inside)),
                shuffles=any(i.operation == "SHFL" for i in inside),
                followers=tuple(f for f in followers if f < len(code)),
            )
        return blocks


@dataclass(frozen=True, slots=True)
class _Block:
    """Instructions that are executed one after the other; ``followers`` are heads of blocks, -1 the end."""

    cost: int
    loads: int
    stores: int
    additions: int
    """Before the first shuffle."""
    shuffles: bool
    followers: tuple[int, ...]


def read(compiled: Compiled) -> MachineCode:
    """Of a cubin with one kernel, compiled by ``nvrtc.compile_cubin``."""

    def said(pattern: str) -> int:
        found = re.findall(pattern, compiled.log)
        if not found:
            raise GnDeployError(
                f"the compiler's log does not say {pattern!r}", "one kernel, compiled for sm_..., is needed"
            )
        return max(map(int, found))

    return MachineCode(
        registers=said(r"Used (\d+) registers"),
        stack=said(r"(\d+) bytes stack frame"),
        spills=said(r"(\d+) bytes spill stores") + said(r"(\d+) bytes spill loads"),
        size=len(compiled.code),
        instructions=tuple(_instructions(disassemble(compiled.code))),
    )


def disassemble(cubin: bytes) -> str:
    """SASS, as nvdisasm lists it."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        done = subprocess.run([nvdisasm(), "-c", file.name], capture_output=True, text=True, check=False)
    if done.returncode:
        raise GnDeployError(f"nvdisasm: {done.stderr.strip() or 'failed without a word'}", f"pip install -U {PACKAGE}")
    return done.stdout


def nvdisasm() -> str:
    """The disassembler's path: PyPI's first, as with the compiler, since an older one does not read newer code."""
    place = next(iter(nvidia_files("bin/nvdisasm")), None) or toolchain.tool("nvdisasm")
    if place is None:
        raise UnavailableError("no CUDA disassembler: nvdisasm was not found", f"pip install {PACKAGE}")
    return str(place)


def _instructions(listing: str) -> Iterator[Instruction]:
    marks = sorted(
        [(m.start(), "", m) for m in _LINE.finditer(listing)] + [(m.start(), m[1], m) for m in _LABEL.finditer(listing)]
    )
    labels: dict[str, int] = {}
    lines: list[re.Match[str]] = []
    for _, label, match in marks:
        if label:
            labels[label] = len(lines)
        else:
            lines.append(match)
    for line in lines:
        jump = line["opcode"].partition(".")[0] in ("BRA", "JMP", "BRX", "CALL")  # a CALL need not return
        targets = tuple(labels[t] for t in _TARGET.findall(line["operands"])) if jump else ()
        yield Instruction(line["opcode"], line["operands"].strip(), bool(line["guard"]), targets)
