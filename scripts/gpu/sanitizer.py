"""compute-sanitizer over a sample of the checks: memory, races between threads of a block, barriers."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

TOOLS = ("memcheck", "racecheck", "synccheck")
ERRORS = 99  # exit code that it is told to give for errors of its own finding
SAMPLE = "scripts.gpu.sanitized"
LAST = 5  # lines kept of what it said
ROOT = Path(__file__).parents[2]


def sanitize(program: Path, library: Path, tool: str, limit: float) -> dict[str, Any]:
    """{"status": "clean" | "errors" | "failed" | "timed out", "errors": how many, "seconds", "said": last lines}.

    "failed": the sample itself did not end well, or the tool refused the device, which is no finding.
    """
    command = [str(program), "--tool", tool, "--error-exitcode", str(ERRORS)]
    command += [sys.executable, "-m", SAMPLE, str(library.resolve())]
    path = os.pathsep.join(p for p in (str(ROOT), os.environ.get("PYTHONPATH")) if p)
    begun = time.monotonic()
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=limit, env={**os.environ, "PYTHONPATH": path}, cwd=ROOT
        )
    except subprocess.TimeoutExpired:
        return {"status": "timed out", "errors": None, "seconds": round(limit, 1), "said": []}
    except OSError as error:
        return {"status": "failed", "errors": None, "seconds": 0.0, "said": [str(error)]}
    said = (done.stdout + done.stderr).strip().splitlines()
    seconds = round(time.monotonic() - begun, 1)
    return status(done.returncode, said) | {"seconds": seconds, "said": said[-LAST:]}


def status(code: int, said: list[str]) -> dict[str, Any]:
    """From the exit code and the lines; racecheck counts hazards, the others errors."""
    counts = [int(n) for line in said for n in re.findall(r"(?:ERROR|RACECHECK) SUMMARY: (\d+) (?:error|hazard)", line)]
    if any(counts):
        return {"status": "errors", "errors": sum(counts)}
    if code == 0 and counts:
        return {"status": "clean", "errors": 0}
    return {"status": "errors" if code == ERRORS else "failed", "errors": None}
