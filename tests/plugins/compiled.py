"""C++ compiled once for all processes of a test run, and again only when a source, or what it reads, changed."""

import fcntl
import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLUGINS = ROOT / "plugins"
FOLDER = Path(tempfile.gettempdir()) / "gn_deploy-compiled"


def compiled(
    name: str, sources: Sequence[Path | str], *flags: str, compiler: str = "g++", reads: Iterable[Path] = ()
) -> Path:
    """The file that ``compiler flags sources`` makes; a source may be a text. Skips the test without a compiler.

    ``reads`` are files or folders whose contents count as part of the sources.
    """
    program = shutil.which(compiler)
    if program is None:
        pytest.skip(f"{compiler} is not on PATH")
    FOLDER.mkdir(exist_ok=True)
    digest = hashlib.sha256(repr((program, flags)).encode())
    files = [source for source in sources if isinstance(source, Path)]
    for path in [*files, *(f for folder in reads for f in ([folder] if folder.is_file() else folder.rglob("*")))]:
        if path.is_file():
            digest.update(path.read_bytes())
    for source in sources:
        digest.update(source.encode() if isinstance(source, str) else b"")
    stem = f"{name}-{digest.hexdigest()[:16]}"
    made = FOLDER / stem
    with (FOLDER / f"{stem}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            texts = [FOLDER / f"{stem}-{i}.cpp" for i, s in enumerate(sources) if isinstance(s, str)]
            for path, text in zip(texts, (s for s in sources if isinstance(s, str)), strict=True):
                path.write_text(text)
            unfinished = FOLDER / f"{stem}.unfinished"
            done = subprocess.run(
                [program, *flags, *map(str, [*files, *texts]), "-o", str(unfinished)], capture_output=True, text=True
            )
            assert done.returncode == 0, done.stderr
            unfinished.rename(made)
    return made
