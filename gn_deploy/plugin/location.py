"""Where the built library of the plugin is, for whoever loads it, and where its sources are, for whoever builds it."""

import hashlib
import os
from functools import cache
from pathlib import Path

from gn_deploy.decision import Rejected

ENVIRONMENT = "GN_DEPLOY_PLUGIN"
"""Names a library to use instead of the one that was built here."""
NAME = "libgn_deploy_plugin.so"
SOURCES = Path(__file__).parent / "sources"
"""A link to plugins/ in a clone, a copy of its sources in an installed package."""


def cache_folder() -> Path:
    """Where the user's cache is (XDG Base Directory Specification); it may not exist yet."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "gn_deploy"


def default_output() -> Path:
    return cache_folder() / NAME


def library() -> Path | Rejected:
    """The library to load: what GN_DEPLOY_PLUGIN names, else the newest one built without ``--output``."""
    named = os.environ.get(ENVIRONMENT)
    if named:
        path = Path(named)
        return path if path.is_file() else Rejected(f"{ENVIRONMENT} names '{named}', which is no file")
    path = default_output()
    return path if path.is_file() else Rejected("not built: gn-deploy plugin build")


@cache
def sources_digest() -> str:
    """16 hexadecimal digits that change with any source of the library: a library holds those it was built from."""
    digest = hashlib.sha256()
    for path in (*headers(), *units()):
        digest.update(f"{path.relative_to(SOURCES)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def units() -> tuple[Path, ...]:
    """Files that are compiled, those for the GPU first: they take longest, so they must not be begun last."""
    found = [path for folder in ("kernels", "tensorrt") for path in (SOURCES / folder).rglob("*")]
    return tuple(sorted((p for p in found if p.suffix in (".cu", ".cpp")), key=lambda p: (p.suffix != ".cu", p.name)))


def headers() -> tuple[Path, ...]:
    """Files that those include, and the list of what the library exports."""
    found = [path for folder in ("kernels", "tensorrt") for path in (SOURCES / folder).rglob("*")]
    return tuple(sorted(p for p in found if p.suffix in (".h", ".cuh", ".map")))
