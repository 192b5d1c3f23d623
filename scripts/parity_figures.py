"""Measures every figure of tests/parity/README.md and writes them between its markers.

    python scripts/parity_figures.py                     all sections
    python scripts/parity_figures.py --only faults       these sections, the others stay
    python scripts/parity_figures.py --check             writes nothing; 1 when a figure is not what the file says

Sections are the files of scripts/figures, in the order of their markers in the README. On two cores with
nothing else to do faults and alarms take two to three minutes each; the others say it in their files.
"""

import argparse
import sys
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "tests" / "parity" / "README.md"
sys.path.insert(0, str(ROOT))  # for scripts.figures, and tests for its right implementations

from gn_deploy.errors import GnDeployError  # noqa: E402
from scripts import pages  # noqa: E402


def main(arguments: list[str]) -> int:
    sections = pages.blocks(README.read_text())
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="SECTION", choices=sections, default=sections)
    parser.add_argument("--check", action="store_true", help="only compare")
    asked = parser.parse_args(arguments)
    different = []
    for name in asked.only:
        body = import_module(f"scripts.figures.{name}").section()
        try:  # as soon as it is measured
            different += [] if pages.update(README, name, body, check=asked.check) else [name]
        except GnDeployError as error:
            print(f"parity_figures: {error}", file=sys.stderr)
            return int(error.exit_code)
    if asked.check and different:
        print(f"not what {README.relative_to(ROOT)} says: {', '.join(different)}", file=sys.stderr)
    return int(asked.check and bool(different))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
