"""plugin: build the library of gn_deploy's own TensorRT kernels, and say what a built one holds."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gn_deploy.cli.base import Answer, Json, bar, terminal

if TYPE_CHECKING:
    from gn_deploy.plugin.about import About


def build(
    arch: Annotated[
        list[str] | None,
        typer.Option(
            "--arch",
            metavar="sm_XY",
            help="GPU to compile for, e.g. sm_90, or native for this machine's; repeatable. Default: every generation "
            "since Turing, which takes longer.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Where to write it; by default into the user's cache, where 'build' and 'doctor' find it.",
        ),
    ] = None,
    tensorrt_root: Annotated[
        Path | None,
        typer.Option(
            "--tensorrt-root",
            metavar="DIR",
            help="Compile against the NvInferRuntime.h of this TensorRT; by default "
            "of TENSORRT_ROOT, else against gn_deploy's own declarations of the same interface.",
        ),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", min=1, metavar="N", help="Compilers at a time; default: one a core.")
    ] = None,
    json: Json = False,
) -> Answer:
    """Compile the plugin's library, for TensorRT 10, 11 and RTX alike. Needs nvcc, of a CUDA toolkit or from PyPI."""
    from gn_deploy.parity.progress import Progress
    from gn_deploy.plugin import build as builder
    from gn_deploy.plugin.about import about
    from gn_deploy.reports.summary import size

    console = terminal(json)
    wanted = sorted({builder.architecture(text) for text in arch or ()})
    with bar(console, "files") as show:

        def tell(done: int, total: int, name: str) -> None:
            if not name and total - done > 1:
                # measured: two minutes of one core for every generation
                console.print(f"compiling {total - done - 1} files, about a minute for each generation on two cores")
            show(Progress(name, done, total, "files"))

        built = builder.build(output, architectures=wanted, tensorrt_root=tensorrt_root, jobs=jobs, tell=tell)
    found = about(built.path)
    console.print(f"compiled {built.compiled} files with {built.toolchain.text}, {built.cached} were there already")
    console.print(f"wrote {built.path}: {size(built.size)}, {found.built_for}; interface: {found.headers}")
    return Answer(_document(found) | {"compiled": built.compiled, "cached": built.cached}, json=json)


def info(
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="A library; by default the one that would be loaded.")
    ] = None,
    json: Json = False,
) -> Answer:
    """Say what a built library holds: its plugins, for which GPUs, built from what, and what it links to."""
    from gn_deploy.decision import Rejected
    from gn_deploy.errors import UnavailableError
    from gn_deploy.plugin.about import OUTDATED, about
    from gn_deploy.plugin.location import ENVIRONMENT, default_output, library
    from gn_deploy.reports.summary import size
    from gn_deploy.reports.text import table

    path = library() if file is None else file
    if isinstance(path, Rejected):
        raise UnavailableError(
            f"no plugin library: {path.reason}", f"it is looked for at {default_output()}, or where {ENVIRONMENT} says"
        )
    found = about(path)
    rows = [
        (
            "gn_deploy",
            found.version + (f", {OUTDATED}" if found.outdated else ""),
        ),
        ("code for", found.built_for),
        ("compiler", found.compiler),
        ("interface", found.headers),
        ("size", size(found.size)),
        ("links to", ", ".join(found.needed)),
        ("exports", ", ".join(found.exports)),
    ]
    console = terminal(json)
    console.print(table(f"{path}", ("", ""), [list(row) for row in rows]))
    console.print(
        table("\nPlugins", ("name", "version", "namespace"), [[c.name, c.version, c.namespace] for c in found.creators])
    )
    return Answer(_document(found), json=json)


def _document(found: "About") -> dict[str, Any]:
    return {
        "path": str(found.path),
        "gn_deploy": found.version,
        "outdated": found.outdated,
        "architectures": [f"sm_{number}" for number in found.architectures],
        "ptx": [f"compute_{number}" for number in found.ptx],
        "compiler": found.compiler,
        "headers": found.headers,
        "size": found.size,
        "needed": list(found.needed),
        "exports": list(found.exports),
        "creators": [{"name": c.name, "version": c.version, "namespace": c.namespace} for c in found.creators],
    }
