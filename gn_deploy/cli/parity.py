"""parity: run two models on every runtime and judge each GroupNorm against the float64 oracle."""

import math
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from gn_deploy.cli.base import (
    MEMORY_LIMIT,
    Answer,
    Json,
    bar,
    bytes_of,
    check_folder,
    once,
    save_report,
    terminal,
    tried,
)
from gn_deploy.errors import InputError, UnavailableError

BUILT_IN = "top-1, top-5, iou, psnr, ssim, cosine"


def parity(
    reference: Annotated[str, typer.Argument(metavar="A", help="The model as it was: an ONNX file or a recipe.")],
    candidate: Annotated[Path, typer.Argument(metavar="B", help="The model as it is now: an ONNX file.")],
    runtime: Annotated[
        list[str] | None,
        typer.Option(
            "--runtime",
            "-r",
            metavar="NAME[:DTYPE]",
            help="Run B here, openvino:bf16 in that precision; repeatable. Default: the ONNX standard itself.",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="SOURCE",
            help="Your own inputs: .npz, .npy, Polygraphy .json, .pt, ONNX test data, a folder, FILE.py:FUNCTION.",
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="N", help="Use at most the first N of your inputs.")
    ] = None,
    dim: Annotated[
        list[str] | None,
        typer.Option(
            "--dim", metavar="NAME=SIZE,...", help="Size of a dynamic dimension, or several to try; repeatable."
        ),
    ] = None,
    sizes: Annotated[
        str | None,
        typer.Option("--sizes", metavar="auto", help="Also try one sample, another batch, odd sizes, and 1 x 1."),
    ] = None,
    redraw_affine: Annotated[
        bool, typer.Option("--redraw-affine", help="Judge again with scales and biases drawn anew, equal in A and B.")
    ] = False,
    until_confident: Annotated[
        bool, typer.Option("--until-confident", help="Go on with fresh inputs until the verdict is settled.")
    ] = False,
    confidence: Annotated[
        float | None, typer.Option("--confidence", metavar="C", help="How sure --until-confident is. Default: 0.95.")
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option("--rate", metavar="R", help="That fewer than this share of inputs break it. Default: 0.01."),
    ] = None,
    time_budget: Annotated[
        float | None, typer.Option("--time-budget", metavar="SECONDS", help="Time for --until-confident to stop after.")
    ] = None,
    atol: Annotated[float | None, typer.Option(help="Absolute tolerance instead of the derived bound.")] = None,
    rtol: Annotated[float | None, typer.Option(help="Relative tolerance instead of the derived bound.")] = None,
    probes_only: Annotated[
        bool, typer.Option("--probes-only", help="Probe each GroupNorm alone, run neither network: for large models.")
    ] = False,
    time_limit: Annotated[
        float | None,
        typer.Option("--time-limit", metavar="SECONDS", help="For opening a model, and for each run. Default: 600."),
    ] = None,
    memory_limit: Annotated[
        str | None,
        typer.Option("--memory-limit", metavar="SIZE", help="Of each runtime's process. Default: 8GiB; 0 for none."),
    ] = None,
    in_process: Annotated[
        bool, typer.Option("--in-process", help="Run the runtimes in this process, without limits: to debug them.")
    ] = False,
    locate: Annotated[
        bool, typer.Option("--locate", help="Find the first value that is not what it should be.")
    ] = False,
    blame: Annotated[
        bool, typer.Option("--blame", help="The same, and which setting of the runtime is at fault for it.")
    ] = False,
    repro: Annotated[
        Path | None,
        typer.Option(
            "--repro", metavar="DIR", help="The same, and a small model that shows it. Default: DIR/repro of --report."
        ),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            metavar="METRIC", help=f"Judge the task too: {BUILT_IN}, MODULE:FUNCTION or FILE.py:FUNCTION. Needs --data."
        ),
    ] = None,
    labels: Annotated[
        str | None, typer.Option(metavar="NAME", help="Array of the labels in --data, or an .npy file.")
    ] = None,
    allowed_drop: Annotated[
        str | None, typer.Option("--allowed-drop", metavar="DROP", help="How much of the metric may be lost: 0.5%.")
    ] = None,
    data_range: Annotated[
        float | None, typer.Option("--data-range", metavar="R", help="What images span, for psnr and ssim: 1 or 255.")
    ] = None,
    reference_runtime: Annotated[
        str | None,
        typer.Option(
            "--reference-runtime", metavar="NAME", help="Run A's samples here. Default: in float64, exact and slow."
        ),
    ] = None,
    accept: Annotated[
        list[str] | None,
        typer.Option("--accept", metavar="VERDICT", help="Take lowprec or unstable for held; repeatable."),
    ] = None,
    would_notice: Annotated[
        bool,
        typer.Option(
            "--would-notice", help="Seed faults into copies of B, and say which this comparison would notice."
        ),
    ] = False,
    fault: Annotated[
        list[str] | None,
        typer.Option("--fault", metavar="NAME", help="With --would-notice: only this fault; repeatable. Default: all."),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option("--budget", metavar="SECONDS", help="With --would-notice: time to spend on it. Default: 600."),
    ] = None,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="DIR", help="Write report.html, report.json and junit.xml here.")
    ] = None,
    json: Json = False,
) -> Answer:
    """Judge whether B computes what A computes. Exit code 0 when parity held, 1 when it broke.

    With --would-notice also 1 when a fault that changes what a GroupNorm computes on this data goes unnoticed.
    """
    from gn_deploy import api
    from gn_deploy.reports.text import show

    console = terminal(json)
    dims = once("--dim", map(tried, dim or ()))
    until = _until(until_confident, level=confidence, rate=rate, seconds=time_budget)
    runtime = _once_each(runtime or ())
    _require([*runtime, *filter(None, [reference_runtime])])
    if in_process and (time_limit is not None or memory_limit is not None):
        raise InputError("--in-process knows no limits", "leave it out to limit time and memory")
    memory = None if in_process else bytes_of("--memory-limit", memory_limit or MEMORY_LIMIT)
    if report is not None:
        check_folder(report)
    compare: Callable[..., Any] = api.compare
    if would_notice:
        from gn_deploy.rehearse import would_notice as rehearsed

        compare = partial(rehearsed, faults=fault, seconds=budget)
    elif fault or budget is not None:
        raise InputError("--fault and --budget belong to --would-notice", "add --would-notice")
    if budget is not None and not 0 <= budget < math.inf:
        raise InputError(f"--budget {budget:g} is no time", "seconds, for example --budget 60")
    if repro is not None:
        check_folder(repro)
    with bar(console, "GroupNorms") as progress:
        model, samples, known = _reference(reference, own_data=metric is not None and data is None)
        result = compare(
            model,
            candidate,
            runtimes=runtime,
            data=samples if data is None else data,
            limit=limit,
            dims=dims,
            sizes=sizes,
            until_confident=until,
            redraw_affine=redraw_affine,
            atol=atol,
            rtol=rtol,
            network=not probes_only,
            isolate=not in_process,
            time_limit=time_limit,
            memory_limit=memory,
            locate=locate,
            blame=blame,
            repro=repro or (report / "repro" if report is not None and (locate or blame) else None),
            metric=metric,
            labels=known if labels is None else labels,
            allowed_drop=allowed_drop,
            data_range=data_range,
            reference_runtime=reference_runtime,
            accept=accept or (),
            progress=progress,
        )
    typed = shlex.join(["gn-deploy", *sys.argv[1:]])
    result = replace(result, reference=reference, candidate=str(candidate), command=typed)
    show(result, console)
    if report is not None:
        save_report(result, report, console)
    return Answer(result.to_dict(), result.exit_code, json)


def _reference(name: str, own_data: bool) -> tuple[Any, Any, Any]:
    """The model to judge by; with ``own_data`` also a recipe's test data and labels."""
    from gn_deploy import api
    from gn_deploy.exporters.recipe import load_recipe

    if not name.endswith(".py"):
        return Path(name), None, None
    recipe = load_recipe(name)
    inputs, labels = recipe.test_data() if own_data and recipe.test_data else (None, None)
    return api.export(recipe).model, inputs, labels


def _require(runtimes: Sequence[str]) -> None:
    """Raises UnavailableError for a runtime that was asked for and cannot run here: it is never skipped silently."""
    from gn_deploy.runtimes import RUNTIMES, resolve

    for name in runtimes:
        probe = RUNTIMES.require(resolve(name)).probe()
        if not probe.run:
            raise UnavailableError(f"runtime '{name}' cannot run here: {probe.run.reason}")


def _once_each(runtimes: Sequence[str]) -> list[str]:
    """Each runtime once, also when it is asked for by its name and by its alias."""
    from gn_deploy.runtimes import asked_precision, resolve

    return list({(resolve(name), asked_precision(name)): name for name in reversed(runtimes)}.values())[::-1]


def _until(asked: bool, **options: float | None) -> Any:
    from gn_deploy.parity.confidence import Until

    given = {name: value for name, value in options.items() if value is not None}
    if given and not asked:
        raise InputError("--confidence, --rate and --time-budget are of --until-confident", "add it, or leave them out")
    return Until(**given) if asked else False
