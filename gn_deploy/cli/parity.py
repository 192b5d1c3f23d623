"""parity: run two models on every runtime and judge each GroupNorm against the float64 oracle."""

from pathlib import Path
from typing import Annotated, Any

import typer

from gn_deploy.cli.base import Answer, Json, save_report, terminal
from gn_deploy.errors import ExitCode, InputError


def parity(
    reference: Annotated[str, typer.Argument(metavar="A", help="The model as it was: an ONNX file or a recipe.")],
    candidate: Annotated[Path, typer.Argument(metavar="B", help="The model as it is now: an ONNX file.")],
    runtime: Annotated[
        list[str] | None,
        typer.Option(
            "--runtime", "-r", metavar="NAME", help="Run B here; repeatable. Default: every runtime there is."
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="PATH", help="Your own inputs: .npz, .npy or a folder of them.")
    ] = None,
    dim: Annotated[
        list[str] | None,
        typer.Option("--dim", metavar="NAME=SIZE", help="Size of a dynamic dimension; repeatable."),
    ] = None,
    atol: Annotated[float | None, typer.Option(help="Absolute tolerance instead of the derived bound.")] = None,
    rtol: Annotated[float | None, typer.Option(help="Relative tolerance instead of the derived bound.")] = None,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="DIR", help="Write report.html, report.json and junit.xml here.")
    ] = None,
    json: Json = False,
) -> Answer:
    """Judge whether B computes what A computes. Exit code 0 when parity held, 1 when it broke."""
    from gn_deploy import api
    from gn_deploy.reports.text import show

    console = terminal(json)
    options: dict[str, Any] = {
        "runtimes": runtime,
        "data": data,
        "dims": dict(map(_size, dim or ())),
        "atol": atol,
        "rtol": rtol,
    }
    with console.status("judging every GroupNorm on every runtime"):
        result = api.compare(_source(reference), candidate, **options)
    show(result, console)
    if report is not None:
        save_report(result, report, console)
    return Answer(result.to_dict(), ExitCode.OK if result.held else ExitCode.PARITY_BROKEN, json)


def _source(text: str) -> Any:
    """A recipe for a .py file, else the path itself."""
    if not text.endswith(".py"):
        return Path(text)
    from gn_deploy.exporters.recipe import load_recipe

    return load_recipe(text)


def _size(text: str) -> tuple[str, int]:
    name, _, size = text.partition("=")
    if not name or not size.isdecimal() or int(size) < 1:
        raise InputError(f"--dim {text} is not NAME=SIZE", "for example --dim batch=4")
    return name, int(size)
