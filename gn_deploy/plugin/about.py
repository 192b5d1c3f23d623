"""What a built library of the plugin is: told by the file itself, which is not loaded for it."""

import json
from dataclasses import dataclass
from pathlib import Path

from gn_deploy.decision import Rejected
from gn_deploy.errors import InputError
from gn_deploy.plugin import elf
from gn_deploy.plugin.location import library, sources_digest

OUTDATED = "from other sources than those here: gn-deploy plugin build"
_MARK = b"gn_deploy plugin {"
_ENTRIES = ("getCreators", "setLoggerFinder")


@dataclass(frozen=True, slots=True)
class Creator:
    """How TensorRT finds one of the plugins in the library."""

    name: str
    version: str
    namespace: str


@dataclass(frozen=True, slots=True)
class About:
    """1. ``architectures`` are compute capabilities with machine code, ``ptx`` those with code for later GPUs.
    2. ``headers`` says whose declarations of TensorRT's interface were used. 3. ``needed`` are linked libraries."""

    path: Path
    size: int
    """Bytes."""
    version: str
    """Of gn_deploy."""
    sources: str
    """``sources_digest`` of what it was built from."""
    compiler: str
    headers: str
    creators: tuple[Creator, ...]
    architectures: tuple[int, ...]
    ptx: tuple[int, ...]
    needed: tuple[str, ...]
    exports: tuple[str, ...]

    @property
    def outdated(self) -> bool:
        """Whether it was built from other sources than those that are here. CMake does not tell from which it built."""
        return self.sources not in ("unknown", sources_digest())

    @property
    def built_for(self) -> str:
        """ "sm_80, sm_90, PTX 9.0"."""
        names = [f"sm_{number}" for number in self.architectures]
        return ", ".join(names + [f"PTX {number // 10}.{number % 10}" for number in self.ptx]) or "no GPU"


def about(path: Path) -> About:
    """Raises InputError when it cannot be read or is not a library of this project."""
    if not path.is_file():
        raise InputError(f"no such file: '{path}'", "gn-deploy plugin build writes one")
    data = path.read_bytes()
    try:
        file = elf.read(data)
    except InputError as error:
        raise InputError(f"'{path}' is {error.message}", "gn-deploy plugin build writes one") from error
    begin = data.find(_MARK)
    missing = [name for name in _ENTRIES if name not in file.exports]
    if begin < 0 or missing:
        why = f"does not export {missing[0]}" if missing else "says nothing of gn_deploy"
        raise InputError(f"'{path}' is not gn_deploy's plugin library: it {why}", "gn-deploy plugin build writes one")
    begin += len(_MARK) - 1
    told = json.loads(data[begin : data.index(b"\0", begin)])
    return About(
        path,
        len(data),
        told["version"],
        told["sources"],
        told["compiler"],
        told["headers"],
        tuple(Creator(**creator) for creator in told["creators"]),
        file.machine_code,
        file.ptx,
        file.needed,
        file.exports,
    )


@dataclass(frozen=True, slots=True)
class Found:
    """The library that would be loaded, None where there is none, and in words which, or why none."""

    about: About | None
    told: str


def found() -> Found:
    """For ``doctor``, which reports what is wrong and does not fail over it."""
    path = library()
    if isinstance(path, Rejected):
        return Found(None, path.reason)
    try:
        here = about(path)
    except InputError as error:
        return Found(None, error.message)
    return Found(here, f"built for {here.built_for}" + (f", {OUTDATED}" if here.outdated else ""))
