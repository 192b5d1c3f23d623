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
    JSON_HELP,
    MEMORY_LIMIT,
    Answer,
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
_MODELS = "Models"
_RUNTIMES = "Runtimes"
_INPUTS = "Inputs"
_VERDICT = "Tolerance and verdict"
_CAUSE = "Find the cause"
_TASK = "Task"
_LIMITS = "Limits"
_OUTPUT = "Output"


def parity(
    reference: Annotated[
        str, typer.Argument(metavar="A", help="The model as it was: an ONNX file or a recipe.", rich_help_panel=_MODELS)
    ],
    candidate: Annotated[
        Path, typer.Argument(metavar="B", help="The model as it is now: an ONNX file.", rich_help_panel=_MODELS)
    ],
    runtime: Annotated[
        list[str] | None,
        typer.Option(
            "--runtime",
            "-r",
            metavar="NAME[:DTYPE]",
            help="Run B here, openvino:bf16 in that precision; repeatable. Default: the ONNX standard itself.",
            rich_help_panel=_RUNTIMES,
        ),
    ] = None,
    reference_runtime: Annotated[
        str | None,
        typer.Option(
            "--reference-runtime",
            metavar="NAME",
            help="With --metric: run A's samples here. Default: in float64, exact and slow.",
            rich_help_panel=_RUNTIMES,
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="SOURCE",
            help="Your own inputs: .npz, .npy, Polygraphy .json, .pt, ONNX test data, a folder, FILE.py:FUNCTION.",
            rich_help_panel=_INPUTS,
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", metavar="N", help="Use at most the first N of your inputs.", rich_help_panel=_INPUTS),
    ] = None,
    dim: Annotated[
        list[str] | None,
        typer.Option(
            "--dim",
            metavar="NAME=SIZE,...",
            help="Size of a dynamic dimension, or several to try; repeatable.",
            rich_help_panel=_INPUTS,
        ),
    ] = None,
    sizes: Annotated[
        str | None,
        typer.Option(
            "--sizes",
            metavar="auto",
            help="Also try one sample, another batch, odd sizes, and 1 x 1.",
            rich_help_panel=_INPUTS,
        ),
    ] = None,
    redraw_affine: Annotated[
        bool,
        typer.Option(
            "--redraw-affine",
            help="Judge again with scales and biases drawn anew, equal in A and B.",
            rich_help_panel=_INPUTS,
        ),
    ] = False,
    until_confident: Annotated[
        bool,
        typer.Option(
            "--until-confident", help="Go on with fresh inputs until the verdict is settled.", rich_help_panel=_INPUTS
        ),
    ] = False,
    confidence: Annotated[
        float | None,
        typer.Option(
            "--confidence", metavar="C", help="How sure --until-confident is. Default: 0.95.", rich_help_panel=_INPUTS
        ),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            "--rate",
            metavar="R",
            help="That fewer than this share of inputs break it. Default: 0.01.",
            rich_help_panel=_INPUTS,
        ),
    ] = None,
    time_budget: Annotated[
        float | None,
        typer.Option(
            "--time-budget",
            metavar="SECONDS",
            help="Time for --until-confident to stop after.",
            rich_help_panel=_INPUTS,
        ),
    ] = None,
    probes_only: Annotated[
        bool,
        typer.Option(
            "--probes-only",
            help="Probe each GroupNorm alone, run neither network: for large models.",
            rich_help_panel=_INPUTS,
        ),
    ] = False,
    atol: Annotated[
        float | None, typer.Option(help="Absolute tolerance instead of the derived bound.", rich_help_panel=_VERDICT)
    ] = None,
    rtol: Annotated[
        float | None, typer.Option(help="Relative tolerance instead of the derived bound.", rich_help_panel=_VERDICT)
    ] = None,
    accept: Annotated[
        list[str] | None,
        typer.Option(
            "--accept",
            metavar="VERDICT",
            help="Take lowprec or unstable for held; repeatable.",
            rich_help_panel=_VERDICT,
        ),
    ] = None,
    would_notice: Annotated[
        bool,
        typer.Option(
            "--would-notice",
            help="Seed faults into copies of B, and say which this comparison would notice.",
            rich_help_panel=_VERDICT,
        ),
    ] = False,
    fault: Annotated[
        list[str] | None,
        typer.Option(
            "--fault",
            metavar="NAME",
            help="With --would-notice: only this fault; repeatable. Default: all.",
            rich_help_panel=_VERDICT,
        ),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(
            "--budget",
            metavar="SECONDS",
            help="With --would-notice: time to spend on it. Default: 600.",
            rich_help_panel=_VERDICT,
        ),
    ] = None,
    locate: Annotated[
        bool,
        typer.Option("--locate", help="Find the first value that is not what it should be.", rich_help_panel=_CAUSE),
    ] = False,
    blame: Annotated[
        bool,
        typer.Option(
            "--blame", help="The same, and which setting of the runtime is at fault for it.", rich_help_panel=_CAUSE
        ),
    ] = False,
    repro: Annotated[
        Path | None,
        typer.Option(
            "--repro",
            metavar="DIR",
            help="The same, and a small model that shows it. Default: DIR/repro of --report.",
            rich_help_panel=_CAUSE,
        ),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            metavar="METRIC",
            help=f"Judge the task too: {BUILT_IN}, MODULE:FUNCTION or FILE.py:FUNCTION. Needs --data.",
            rich_help_panel=_TASK,
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Array of the labels in --data, or an .npy file.", rich_help_panel=_TASK),
    ] = None,
    allowed_drop: Annotated[
        str | None,
        typer.Option(
            "--allowed-drop", metavar="DROP", help="How much of the metric may be lost: 0.5%.", rich_help_panel=_TASK
        ),
    ] = None,
    data_range: Annotated[
        float | None,
        typer.Option(
            "--data-range", metavar="R", help="What images span, for psnr and ssim: 1 or 255.", rich_help_panel=_TASK
        ),
    ] = None,
    time_limit: Annotated[
        float | None,
        typer.Option(
            "--time-limit",
            metavar="SECONDS",
            help="For opening a model, and for each run. Default: 600.",
            rich_help_panel=_LIMITS,
        ),
    ] = None,
    memory_limit: Annotated[
        str | None,
        typer.Option(
            "--memory-limit",
            metavar="SIZE",
            help="Of each runtime's process. Default: 8GiB; 0 for none.",
            rich_help_panel=_LIMITS,
        ),
    ] = None,
    in_process: Annotated[
        bool,
        typer.Option(
            "--in-process",
            help="Run the runtimes in this process, without limits: to debug them.",
            rich_help_panel=_LIMITS,
        ),
    ] = False,
    report: Annotated[
        Path | None,
        typer.Option(
            "--report",
            metavar="DIR",
            help="Write report.html, report.json and junit.xml here.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help=JSON_HELP, rich_help_panel=_OUTPUT)] = False,
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
