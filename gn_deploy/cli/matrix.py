"""matrix: many models, targets and inputs as a list of jobs that goes on where it was stopped."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from gn_deploy.cli.base import MEMORY_LIMIT, Answer, Json, bar, bytes_of, check_folder, once, sized, terminal
from gn_deploy.errors import InputError


def matrix(
    models: Annotated[list[Path] | None, typer.Argument(metavar="MODEL...", help="ONNX files.")] = None,
    target: Annotated[
        list[str] | None, typer.Option("--target", "-t", metavar="TARGET", help="Lower for this; repeatable.")
    ] = None,
    runtime: Annotated[
        list[str] | None,
        typer.Option("--runtime", "-r", metavar="NAME", help="Run on this; repeatable. Default: the target's own."),
    ] = None,
    cases: Annotated[
        str | None,
        typer.Option(metavar="NAME,...", help="Families of inputs. Default: normal,offset,constant,small."),
    ] = None,
    data: Annotated[
        list[Path] | None, typer.Option("--data", metavar="PATH", help="Inputs of your own; repeatable.")
    ] = None,
    dim: Annotated[
        list[str] | None, typer.Option("--dim", metavar="NAME=SIZE", help="Size of a dynamic dimension; repeatable.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="DIR", help="Where results are kept.")] = None,
    resume: Annotated[
        Path | None, typer.Option("--resume", metavar="DIR", help="Go on with the matrix in this folder.")
    ] = None,
    retry: Annotated[
        str | None, typer.Option(metavar="VERDICT,...", help="Run these again, for example crash,timeout.")
    ] = None,
    jobs: Annotated[int | None, typer.Option("--jobs", "-j", metavar="N", help="Jobs at once. Default: 1.")] = None,
    executor: Annotated[str, typer.Option(metavar="local|ray", help="Where jobs run.")] = "local",
    address: Annotated[
        str | None, typer.Option(metavar="ray://HOST:PORT", help="A Ray cluster. Default: one is started here.")
    ] = None,
    time_limit: Annotated[
        float | None, typer.Option("--time-limit", metavar="SECONDS", help="For one request to a runtime; 600.")
    ] = None,
    memory_limit: Annotated[
        str | None,
        typer.Option("--memory-limit", metavar="SIZE", help="Of each runtime's process. Default: 8GiB; 0 for none."),
    ] = None,
    json: Json = False,
) -> Answer:
    """Judge every MODEL, lowered for every target, on every case. The same command, or --resume, goes on after a stop.

    Exit code 0 when all held, else the gravest: 1 broken, 2 bad input, 3 not available here.
    """
    from gn_deploy.matrix.files import write
    from gn_deploy.matrix.plan import make_plan
    from gn_deploy.matrix.run import resume as resume_run
    from gn_deploy.matrix.run import run
    from gn_deploy.matrix.words import show
    from gn_deploy.runtimes.isolated import Limits
    from gn_deploy.runtimes.worker import TIME_LIMIT

    console = terminal(json)
    sizes = once("--dim", map(sized, dim or ()))
    memory = bytes_of("--memory-limit", memory_limit or MEMORY_LIMIT)
    options: dict[str, Any] = {
        "limits": Limits(TIME_LIMIT if time_limit is None else time_limit, memory),
        "executor": executor,
        "address": address,
        "jobs": jobs,
        "retry": _listed(retry),
    }
    if resume is not None:
        if models or target or runtime or cases or data or dim or out:
            raise InputError("--resume goes on with what was asked for then", "leave out models, targets and cases")
        out = resume
        with bar(console, "jobs") as progress:
            report = resume_run(resume, progress=progress, **options)
    else:
        if out is None:
            raise InputError("no folder was given", "add --out DIR, where results are kept, or --resume DIR")
        check_folder(out)
        with console.status("reading every model"):
            plan = make_plan(
                models or (),
                target or (),
                runtimes=runtime or (),
                families=_listed(cases),
                data=data or (),
                dims=sizes,
                command=shlex.join(["gn-deploy", *sys.argv[1:]]),
            )
        with bar(console, "jobs") as progress:
            report = run(plan, out, progress=progress, **options)
    show(report, console)
    for path in write(report, out, on_skip=lambda name, why: console.print(f"no {name} report: {why}")):
        console.print(f"wrote {path}")
    return Answer(report.to_dict(), report.exit_code, json)


def _listed(text: str | None) -> tuple[str, ...]:
    return tuple(word.strip() for word in (text or "").split(",") if word.strip())
