"""build: compile a model into a TensorRT engine and show which kernels it became."""

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from gn_deploy.cli.base import Answer, Json, once, terminal
from gn_deploy.errors import InputError

_SIZE = "0*[1-9][0-9]{0,8}"  # 1 to 999,999,999: a TensorRT dimension is an int32


def build(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="An ONNX file.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="ENGINE", help="Where to write the engine.")],
    target: Annotated[
        str, typer.Option("--target", "-t", help="tensorrt-rtx (needs no GPU) or tensorrt.")
    ] = "tensorrt-rtx",
    compute_capability: Annotated[
        list[str] | None,
        typer.Option("--compute-capability", metavar="X.Y", help="GPU generation to build for, e.g. 8.9; repeatable."),
    ] = None,
    shapes: Annotated[
        list[str] | None,
        typer.Option(
            "--shapes", metavar="IN=MIN:OPT:MAX", help="Sizes of a dynamic input, e.g. x=1x3x32x32:4x3x32x32:8x3x32x32."
        ),
    ] = None,
    plugin: Annotated[
        str | None,
        typer.Option(
            "--plugin",
            metavar="library|quick|none",
            help="For nodes of +plugin: the library that was built (default where there is one), kernels compiled into "
            "the engine, or none: their function bodies.",
        ),
    ] = None,
    json: Json = False,
) -> Answer:
    """Compile MODEL into an engine and show which kernels it became; a GroupNorm the target gets wrong is refused."""
    from gn_deploy import api
    from gn_deploy.reports.summary import plural, size
    from gn_deploy.reports.text import table

    options: dict[str, Any] = {}
    if compute_capability:
        options["compute_capabilities"] = tuple(compute_capability)
    if shapes:
        options["shapes"] = once("--shapes", map(_profile, shapes))
    if plugin:
        options["plugin"] = plugin
    console = terminal(json)
    with console.status(f"building for {target}"):
        built = api.build(model, out, target=target, **options)
    kernels = plural(len(built.kernels), "kernel")
    console.print(
        table(
            f"{built.path}: {built.runtime} {built.version}, {size(built.size)}, {kernels}",
            (">#", "kernel", "kind", "computes"),
            [[str(i), k.name, k.kind, ", ".join(k.origin)] for i, k in enumerate(built.kernels, start=1)],
        )
    )
    if built.detail:
        console.print(built.detail)
    document = {
        "out": str(out),
        "runtime": built.runtime,
        "version": built.version,
        "size": built.size,
        "detail": built.detail,
        "kernels": [{"name": k.name, "kind": k.kind, "origin": list(k.origin)} for k in built.kernels],
    }
    return Answer(document, json=json)


def _profile(text: str) -> tuple[str, tuple[tuple[int, ...], ...]]:
    """("x", ((1, 3), (4, 3), (8, 3))) of "x=1x3:4x3:8x3"; one size stands for all three."""
    name, _, sizes = text.rpartition("=")
    found = [tuple(map(int, s.split("x"))) for s in sizes.split(":") if re.fullmatch(rf"{_SIZE}(x{_SIZE})*", s)]
    if not name or len(found) not in (1, 3) or len(found) != sizes.count(":") + 1 or len({len(f) for f in found}) != 1:
        raise InputError(
            f"--shapes {text} is not IN=MIN:OPT:MAX", "for example --shapes x=1x3x32x32:4x3x32x32:8x3x32x32"
        )
    return name, tuple(found * 3 if len(found) == 1 else found)
