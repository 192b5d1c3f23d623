"""PTX as TensorRT is given it: the parameters of its kernel, and the oldest driver that reads it."""

import re
from dataclasses import dataclass

from gn_deploy.errors import GnDeployError

POINTER, INT32 = "u64", "u32"
_ENTRY = re.compile(
    r"^\s*(?:\.visible|\.weak)\s+\.entry\s+(?P<name>[\w$]+)\s*\((?P<parameters>[^)]*)\)(?P<directives>[^{]*)\{",
    re.MULTILINE,
)
_PARAMETER = re.compile(
    r"\.param\s+(?:\.align\s+(?P<align>\d+)\s+)?\.(?P<type>\w+)[^,\[\]]*?[\w$]+(?P<size>\[\d+\])?\s*(?:,|$)"
)
_VERSION = re.compile(r"^\.version\s+(\d+)\.(\d+)\s*$", re.MULTILINE)
# PTX ISA, "Release Notes": the first version that knows a target. 8.0, of CUDA 12.0, has all that the kernels use but
# what clusters send: that is of 8.1, of CUDA 12.1.
_FIRST_KNOWN = {100: (8, 6), 101: (8, 6), 120: (8, 7), 103: (8, 8), 121: (8, 8), 88: (9, 0), 110: (9, 0)}
_FLOOR, _SENDS = (8, 0), (8, 1)


@dataclass(frozen=True, slots=True)
class Entry:
    """A kernel as whoever launches it must know it.

    1. ``parameters`` are PTX types in their order: "u64" a pointer, "u32" a 32-bit integer, "b8[128]" a struct.
    2. ``cluster`` blocks, 1 where none is asked for; ``threads`` of a block at most, 0 where not said.
    """

    name: str
    parameters: tuple[str, ...]
    cluster: int
    threads: int


def entry(ptx: str) -> Entry:
    """The only kernel of ``ptx``. Raises ``GnDeployError`` where there is none, or more than one."""
    found = list(_ENTRY.finditer(ptx))
    if len(found) != 1:
        raise GnDeployError(f"PTX with one kernel is needed, this has {len(found)}")
    types = (f"{p['type']}{p['size'] or ''}" for p in _PARAMETER.finditer(found[0]["parameters"].strip()))

    def directive(name: str) -> int:
        told = re.search(rf"\.{name}\s+([\d,\s]+)", found[0]["directives"])
        product = 1
        for number in told[1].split(",") if told else []:
            product *= int(number)
        return product if told else 0

    return Entry(found[0]["name"], tuple(types), directive("reqnctapercluster") or 1, directive("maxntid"))


def check_parameters(ptx: str, inputs: int, scalars: int, outputs: int) -> Entry:
    """The kernel, when TensorRT can launch it: pointers to the inputs, 32-bit integers, pointers to the outputs.

    TensorRT never looks: it passes that many arguments whatever the kernel reads. Raises ``GnDeployError`` else.
    """
    kernel = entry(ptx)
    wanted = (POINTER,) * inputs + (INT32,) * scalars + (POINTER,) * outputs
    seen = tuple("u32" if p in ("s32", "b32") else "u64" if p in ("b64", "s64") else p for p in kernel.parameters)
    if seen != wanted:
        raise GnDeployError(
            f"the kernel {kernel.name} takes ({', '.join(kernel.parameters)}), TensorRT passes ({', '.join(wanted)})",
            "compilers that add parameters of their own cannot be used here",
        )
    return kernel


def for_old_drivers(ptx: str) -> str:
    """The same, with the version of the oldest PTX that has its target, so that older drivers read it too.

    A compiler stamps its own version on what it writes, and a driver refuses what is newer than itself, whether or
    not anything new is used.
    """
    target = re.search(r"^\.target\s+sm_(\d+)", ptx, re.MULTILINE)
    stamped = _VERSION.search(ptx)
    if target is None or stamped is None:
        raise GnDeployError("this is no PTX: .version or .target is missing")
    floor = _SENDS if "st.async" in ptx else _FLOOR
    needed = max(floor, _FIRST_KNOWN.get(int(target[1]), floor))
    lower = min(needed, (int(stamped[1]), int(stamped[2])))
    return _VERSION.sub(f".version {lower[0]}.{lower[1]}", ptx, count=1)
