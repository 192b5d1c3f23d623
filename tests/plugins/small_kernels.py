"""The small kernels of small_kernels.cpp and their bugs, in the order of its enumeration."""

import re
from pathlib import Path

SMALL = Path(__file__).with_suffix(".cpp")
KERNEL = ("centre", "cluster_centre", "team_centre", "sums")
BUGS = tuple(re.findall(r"\bk(\w+),", SMALL.read_text().split("enum Bug {")[1].split("};")[0]))
