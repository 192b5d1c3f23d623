"""Every command of every README is run, in order, in one temporary folder per page, or is listed here with a reason."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.fences import Command, commands

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / name for name in ("README.md", "models/README.md", "plugins/README.md") if (ROOT / name).exists()]
TIME_LIMIT = 300  # seconds for one command; the slowest, an export with its proof, takes 20 on two cores
NOT_RUN = {
    "./scripts/demo": "makes an environment and downloads packages",
    "./scripts/test": "runs this test",
    "git clone": "needs the network",
    "pip install": "needs the network",
    "gn-deploy plugin build": "compiles for minutes; tests/plugins builds a part of it, and all in the slow run",
    "gn-deploy plugin info": "tells of what the command before has built",
    "cmake": "as gn-deploy plugin build",
    "gn-deploy demo": "tests/models runs it",
    ".venv/bin/python scripts/train_digits.py": "rewrites the weights; tests/models checks those committed",
}
"""Beginning of a command -> why it is not run here."""


def reason(command: Command) -> str | None:
    return next((why for start, why in NOT_RUN.items() if command.text.startswith(start)), None)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_does_what_the_page_says(page: Path, tmp_path: Path) -> None:
    for name in ("models", "scripts"):
        (tmp_path / name).symlink_to(ROOT / name)
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "NO_COLOR": "1",
        "COLUMNS": "120",
    }
    for command in commands(page.read_text()):
        if reason(command) is not None:
            continue
        shell = ["bash", "-euo", "pipefail", "-c"] if command.language == "shell" else [sys.executable, "-c"]
        done = subprocess.run(
            [*shell, command.text],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIME_LIMIT,
        )
        assert done.returncode == command.exit_code, f"$ {command.text}\n{done.stdout}"
        assert command.printed(done.stdout), f"$ {command.text}\n{done.stdout}\n-- the page says --\n{command.prints}"


def test_commands_are_read_as_a_reader_does() -> None:
    page = (
        "text `$ not this`\n\n```console\n$ echo one \\\n>   two\none two\n$ false  # exit code 1\n"
        "$ ls\na...\n...\nz\n```\n\n```bash\n# a comment\ncd /tmp\n```\n\n```\nls\n```\n\n"
        "```python\nprint(1)\n```\n\n```text\n$ no\n```\n"
    )
    found = commands(page)
    assert [c.text for c in found] == [
        "echo one \\\n  two",
        "false  # exit code 1",
        "ls",
        "cd /tmp",
        "ls",
        "print(1)\n",
    ]
    assert [c.exit_code for c in found] == [0, 1, 0, 0, 0, 0]
    assert found[0].prints == "one two"
    assert found[2].printed("abc\nmiddle\nmore\nz\n")
    assert found[2].printed("a\nz")
    assert not found[2].printed("b\nz")
    assert not found[0].printed("one")
    assert found[1].printed("anything")
