"""What a compiled kernel asks of the hardware, read from NVRTC's log and nvdisasm's listing."""

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property

from gn_deploy.errors import GnDeployError, UnavailableError
from gn_deploy.plugin import toolchain
from gn_deploy.plugin.nvrtc import Compiled, nvidia_files

PACKAGE = "nvidia-cuda-nvdisasm"
WORK = ("FADD", "HADD2.F32", "MUFU.EX2")
"""What statistics, float16 and SiLU take for every element: opcodes, with the modifiers that follow."""
_PIECES = 2  # blocks in which x is loaded: the last vector may have one of its own
_SINGLE = 4  # narrow loads or stores in a row that parameters and what stands beside whole vectors take, at most
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
        if "DIV" in self.opcode.split("."):  # only where lanes have parted; sm_75 names no register for it
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

    def path(self, loads: int, stores: int, work: Collection[str] = WORK, *, loop: bool = False) -> int:
        """Instructions of the way through the code that a thread goes which has a full tile and nothing else to do.

        That is the way with so many 128-bit loads and stores of global memory that does most ``work``, counted in
        instructions of these opcodes, and the cheapest of those that do as much: no pass over what is held is left
        out, and nothing stands in it that is not needed. Loads stand in two blocks at most and no store before the
        first shuffle, so no residual is read and no sum written; loops run once; code that moves single elements is
        not entered. ``loop``: once round the longest loop, and nothing before or after it. Raises ``GnDeployError``
        where there is no such way.
        """
        blocks = self._blocks(tuple(work))
        begin = _longest_loop(blocks) if loop else 0
        reduces = any(block.shuffles for block in blocks.values())
        best: dict[int, dict[tuple[int, int, int, bool], tuple[int, int]]] = {begin: {(0, 0, 0, not reduces): (0, 0)}}
        found: tuple[int, int] | None = None
        for head, block in blocks.items():
            for (loaded, stored, pieces, shuffled), (worked, cost) in best.pop(head, {}).items():
                now = shuffled or block.shuffles
                done = loaded + block.loads, stored + block.stores, pieces + (block.loads > 0), now
                so_far = worked + block.work, cost - block.cost
                scattered = block.elementwise or done[2] > _PIECES or (block.stores and not now)
                if scattered or done[0] > loads or done[1] > stores:
                    continue
                for follower in block.followers:
                    if follower > head:
                        known = best.setdefault(follower, {})
                        known[done] = max(known.get(done, so_far), so_far)
                if (begin in block.followers if loop else block.leaves) and done[:2] == (loads, stores):
                    found = max(found or so_far, so_far)
        if found is None:
            raise GnDeployError(f"no way through the code has {loads} loads and {stores} stores of 128 bits")
        return -found[1]

    def _blocks(self, work: tuple[str, ...]) -> "dict[int, _Block]":
        """In the order of the code."""
        code = self.instructions
        heads = {0, *(t for i in code for t in i.targets)} | {n + 1 for n, i in enumerate(code) if i.ends or i.leaves}
        heads |= {n + 1 for n, i in enumerate(code) if i.targets}
        blocks = {}
        for head in sorted(heads - {len(code)}):
            tail = next(n for n in range(head, len(code)) if n + 1 in heads or n + 1 == len(code))
            inside, last = code[head : tail + 1], code[tail]
            followers = [*last.targets, *([] if last.ends else [tail + 1])]
            memory = [i for i in inside if i.operation in ("LDG", "STG")]
            blocks[head] = _Block(
                cost=len(inside),
                loads=sum(i.bits == 128 and i.operation == "LDG" for i in memory),
                stores=sum(i.bits == 128 and i.operation == "STG" for i in memory),
                work=sum(i.opcode.startswith(work) for i in inside),
                elementwise=sum(i.bits < 64 for i in memory) > _SINGLE,
                shuffles=any(i.operation == "SHFL" for i in inside),
                leaves=last.leaves,
                followers=tuple(f for f in followers if f < len(code)),
            )
        return blocks


@dataclass(frozen=True, slots=True)
class _Block:
    """Instructions that are executed one after the other; ``followers`` are heads of blocks."""

    cost: int
    loads: int
    stores: int
    work: int
    elementwise: bool
    shuffles: bool
    leaves: bool
    followers: tuple[int, ...]


def _longest_loop(blocks: dict[int, _Block]) -> int:
    """Its head. A jump back is a loop only where its target leads to it: code that is rarely needed stands last."""

    def reached(begin: int) -> set[int]:
        found = {begin}
        for at, block in blocks.items():
            if at in found:
                found.update(f for f in block.followers if f > at)
        return found

    jumps = [(at + blocks[at].cost - to, to, at) for at in reached(0) for to in blocks[at].followers if to <= at]
    for _, to, at in sorted(jumps, reverse=True):
        if at in reached(to):
            return to
    raise GnDeployError("the code has no loop")


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
