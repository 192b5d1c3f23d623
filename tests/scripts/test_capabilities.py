"""The tables of README.md are the ones the code would write today."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_readme_shows_what_the_forms_and_targets_say() -> None:
    done = subprocess.run([sys.executable, ROOT / "scripts" / "capabilities.py", "--check"], check=False)
    assert done.returncode == 0, "run scripts/capabilities.py"
