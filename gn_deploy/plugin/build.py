"""Building the plugin's library: every source compiled side by side, and only when it has changed, then linked."""

import hashlib
import os
import re
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from gn_deploy import __version__
from gn_deploy.errors import InputError, UnavailableError
from gn_deploy.graph.atomic import atomic, check_place
from gn_deploy.plugin import toolchain
from gn_deploy.plugin.location import SOURCES, cache_folder, default_output, headers, sources_digest, units
from gn_deploy.plugin.toolchain import Toolchain

ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)
"""Turing, Ampere, Ada, Hopper, Blackwell; 8.7, 10.3, 12.1 and other relatives run the code of the one before them."""
OLDEST = 75
"""The first with what the kernels ask for (cluster barriers apart, which only 9.0 and later have)."""
_KEPT = 400  # objects in the cache: some ten builds

Tell = Callable[[int, int, str], None]
"""Called with how many files are done, of how many, and the name of the last."""


@dataclass(frozen=True, slots=True)
class Built:
    """A library written to disk; of ``compiled`` objects, ``cached`` were there already."""

    path: Path
    size: int
    """Bytes."""
    architectures: tuple[int, ...]
    toolchain: Toolchain
    headers: Path | None
    """Folder of NVIDIA's TensorRT headers; None when the project's own declarations were used."""
    compiled: int
    cached: int


def architecture(text: str) -> int:
    """90 for "sm_90", "90" or "9.0"; what this machine's GPU is for "native"."""
    if text == "native":
        from gn_deploy.plugin.device import query

        return int(query(0).compute_capability)
    found = re.fullmatch(r"(?:sm_|compute_)?(\d{2,3})|(\d{1,2})\.(\d)", text)
    if found is None:
        raise InputError(f"--arch {text} is not a GPU architecture", "for example --arch sm_90, or --arch native")
    number = int(found[1] or found[2] + found[3])
    if number < OLDEST:
        raise InputError(f"--arch {text}: the kernels need sm_{OLDEST} or later", f"TensorRT 10 needs sm_{OLDEST} too")
    return number


def build(
    output: Path | None = None,
    *,
    architectures: Sequence[int] = (),
    tensorrt_root: Path | None = None,
    jobs: int | None = None,
    tell: Tell = lambda done, total, name: None,
) -> Built:
    """Writes the library, atomically, to ``output`` or to where everybody looks for it.

    ``architectures`` as 10 * major + minor; all of ARCHITECTURES that the compiler knows when empty. PTX for the last
    of them is added, for GPUs to come. ``tensorrt_root`` holds NVIDIA's headers; TENSORRT_ROOT is looked at too.
    Raises UnavailableError without a compiler or when it refuses a source, InputError for an architecture it lacks.
    """
    tools = toolchain.find()
    wanted = _wanted(tools, architectures)
    include = _tensorrt_headers(tensorrt_root)
    path = default_output() if output is None else output
    if output is None:
        path.parent.mkdir(parents=True, exist_ok=True)
    check_place(path)
    objects = cache_folder() / "objects"
    objects.mkdir(parents=True, exist_ok=True)

    sources = units()
    commands = [_command(tools, source, wanted, include) for source in sources]
    keys = [_key(tools, source, command) for source, command in zip(sources, commands, strict=True)]
    places = [objects / f"{source.stem}-{key}.o" for source, key in zip(sources, keys, strict=True)]
    missing = [i for i, place in enumerate(places) if not place.is_file()]
    done = len(sources) - len(missing)
    tell(done, len(sources) + 1, "")
    workers = min(jobs or len(os.sched_getaffinity(0)), max(len(missing), 1))
    with ThreadPoolExecutor(workers) as pool:
        running = {pool.submit(_compile, commands[i], sources[i], places[i]): sources[i] for i in missing}
        while running:
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            try:
                for future in finished:
                    source = running.pop(future)
                    future.result()
                    done += 1
                    tell(done, len(sources) + 1, source.name)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    _link(tools, places, path)
    tell(len(sources) + 1, len(sources) + 1, path.name)
    _prune(objects, keep=places)
    return Built(path, path.stat().st_size, wanted, tools, include, len(sources), len(sources) - len(missing))


def _wanted(tools: Toolchain, asked: Sequence[int]) -> tuple[int, ...]:
    known = toolchain.architectures(tools)
    unknown = sorted(set(asked) - set(known))
    if unknown:
        names = ", ".join(f"sm_{number}" for number in known)
        raise InputError(f"{tools.text} makes no code for sm_{unknown[0]}", f"it knows {names}")
    return tuple(sorted(set(asked))) or tuple(number for number in ARCHITECTURES if number in known)


def _tensorrt_headers(asked: Path | None) -> Path | None:
    """The folder of NvInferRuntime.h. What the compiler finds by itself, as of a Debian package, needs none."""
    named = os.environ.get("TENSORRT_ROOT")
    root = asked or (Path(named) if named else None)
    if root is None:
        return None
    for folder in (root / "include", root / "include" / "x86_64-linux-gnu", root):
        if (folder / "NvInferRuntime.h").is_file():
            return folder.resolve()
    name = "TENSORRT_ROOT" if asked is None else "--tensorrt-root"
    raise InputError(f"{name}={root} holds no include/NvInferRuntime.h", "leave it out: NVIDIA's headers are optional")


def _command(tools: Toolchain, source: Path, wanted: Sequence[int], include: Path | None) -> list[str]:
    flags = ["-std=c++17", "-O3", "-DNDEBUG"]
    if source.suffix == ".cu":
        code = [f"-gencode=arch=compute_{n},code=sm_{n}" for n in wanted]
        code.append(f"-gencode=arch=compute_{wanted[-1]},code=compute_{wanted[-1]}")
        host = ["-ccbin", str(tools.host), "-Xcompiler=-fPIC"]
        return [str(tools.nvcc), *flags, *code, *host]
    command = [str(tools.host), *flags, "-fPIC", "-isystem", str(tools.toolkit / "include")]
    if source.parent.name == "tensorrt":
        command.append("-fvisibility=hidden")  # the functions of gn.h stay visible: exports.map lets them out
        if include is not None:
            command += ["-isystem", str(include)]
    if source.name == "about.cpp":
        facts = {"GN_DEPLOY_VERSION": __version__, "GN_SOURCES": sources_digest(), "GN_COMPILER": tools.text}
        command += [f'-D{name}="{value}"' for name, value in facts.items()]
    return command


def _key(tools: Toolchain, source: Path, command: Sequence[str]) -> str:
    """Of everything an object depends on; the folder of the sources is not part of it."""
    digest = hashlib.sha256(f"{tools.release} {list(command)}\0{source.name}\0".encode() + source.read_bytes())
    for header in headers():
        if source.parent.name == "tensorrt" or header.parent.name != "tensorrt":
            digest.update(header.read_bytes())
    return digest.hexdigest()[:24]


def _compile(command: Sequence[str], source: Path, place: Path) -> None:
    with TemporaryDirectory(prefix="gn-deploy-", dir=place.parent) as folder:
        made = Path(folder, place.name)
        _run([*command, "-c", str(source), "-o", str(made)], source.name)
        os.replace(made, place)


def _link(tools: Toolchain, objects: Sequence[Path], path: Path) -> None:
    """CUDA's runtime is linked statically: the library depends on no version of it that a host may have loaded."""
    places = [tools.toolkit / folder / "libcudart_static.a" for folder in toolchain.LIBRARIES]
    runtime = next((place for place in places if place.is_file()), None)
    if runtime is None:
        raise UnavailableError(f"{tools.text} has no libcudart_static.a", toolchain.INSTALL)
    exports = SOURCES / "tensorrt" / "exports.map"
    with TemporaryDirectory(prefix="gn-deploy-") as folder:
        made = Path(folder, path.name)
        options = ["-shared", "-s", f"-Wl,--version-script={exports}", "-Wl,--no-undefined", "-Wl,--as-needed"]
        options.append("-Wl,-Bsymbolic")  # another build of it in the same process keeps to itself
        libraries = [str(runtime), "-ldl", "-lrt", "-lpthread"]
        _run([str(tools.host), *options, *map(str, objects), *libraries, "-o", str(made)], path.name)
        with atomic(path) as (file,):
            file.write(made.read_bytes())


def _run(command: Sequence[str], doing: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"})
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        told = next((line for line in lines if re.search(r"\b(error|fatal|unsupported|undefined)\b", line)), "")
        program = Path(command[0]).name
        raise UnavailableError(
            f"{program} cannot make {doing}: {told or (lines or [f'exit code {done.returncode}'])[-1]}",
            "another release of the compiler may do: gn-deploy plugin build takes the nvcc of CUDA_HOME first",
        )


def _prune(objects: Path, keep: Sequence[Path]) -> None:
    """The oldest objects go when there are too many."""
    for path in keep:
        os.utime(path)
    files = sorted(objects.glob("*.o"), key=lambda file: file.stat().st_mtime, reverse=True)
    for path in files[_KEPT:]:
        path.unlink(missing_ok=True)
