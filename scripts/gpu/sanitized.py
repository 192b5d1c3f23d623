"""The sample that compute-sanitizer watches: a few checks on every variant, without torch.

python -m scripts.gpu.sanitized LIBRARY
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gn_deploy.plugin.binding import VARIANTS, Library
from scripts.gpu import checks
from scripts.gpu.memory import DriverMemory
from scripts.gpu.sample import MANY, ODD, PLAIN, WIDE, Check

SAMPLE: tuple[Check, ...] = (
    replace(PLAIN, residual=True, sum=True, modulation=3),
    replace(PLAIN, residual=True, sum=True, modulation=3, layout="nhwc"),
    replace(WIDE, dtype="float32"),
    replace(WIDE, dtype="bfloat16", layout="nhwc"),
    replace(MANY, shape=(9, 64, 12, 12)),  # more units than teams on an H200
    replace(ODD[1], residual=True, shift=1),
    replace(ODD[3], layout="nhwc"),
    replace(PLAIN, output_dtype="int8"),
)
"""Small: racecheck slows a kernel down a hundred times."""


def run(library: Library, device: Any, memory: checks.Memory, variants: Sequence[str] = VARIANTS) -> list[str]:
    """Faults, "variant: check: what"."""
    found = []
    for asked in SAMPLE:
        given = checks.draw(asked)
        oracle = checks.expected(asked, given)
        for variant in variants:
            answer = checks.run(asked, variant, library, device, memory, given=given, oracle=oracle)
            found += [f"{variant}: {asked.key}: {fault}" for fault in answer.get("faults", [])]
    return found


def main(arguments: list[str]) -> int:
    library = Library(Path(arguments[0]))
    memory = DriverMemory()  # first: it makes the context that the library then finds
    faults = run(library, library.query_device(0), memory)
    print("\n".join(faults) or "no faults")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
