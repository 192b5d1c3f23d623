"""demo: a trained model from PyTorch to ONNX, four runtimes and a TensorRT engine, with a verdict and a report."""

import re
import shlex
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gn_deploy.cli.base import Answer, Json, check_folder, save_report, terminal
from gn_deploy.errors import ExitCode, UnavailableError

if TYPE_CHECKING:
    import onnx_ir as ir
    from rich.console import Console
    from rich.table import Table

    from gn_deploy.exporters.recipe import Recipe
    from gn_deploy.forms.base import GroupNormSite
    from gn_deploy.parity.harness import Subject
    from gn_deploy.parity.report import BuiltEngine, TaskVerdict
    from gn_deploy.passes.lower import SiteDecision
    from gn_deploy.runtimes.base import BuildResult, Session

DIGITS = "models/digits_resnet.py"
TARGETS = ("ort-cpu", "openvino", "tensorrt-rtx")
_HASH = re.compile(r"^__my(l|elin)_|_0x[0-9a-f]{16,}")
"""What a kernel's name holds beside its ops."""
Say = Callable[[str], None]


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for everything that is made.")] = Path(
        "gn-deploy-demo"
    ),
    recipe: Annotated[str, typer.Option("--recipe", metavar="RECIPE", help="The model to take along.")] = DIGITS,
    json: Json = False,
) -> Answer:
    """Do everything once, on a real model: export, inspect, lower, build, run everywhere, judge, report."""
    from gn_deploy import api
    from gn_deploy.exporters.recipe import load_recipe
    from gn_deploy.parity.export import example_cases
    from gn_deploy.parity.harness import judge
    from gn_deploy.reports.summary import plural, size
    from gn_deploy.reports.text import show
    from gn_deploy.runtimes import RUNTIMES

    console = terminal(json)
    check_folder(out)
    out.mkdir(parents=True, exist_ok=True)
    with _step(console, "recipe") as say:
        made = load_recipe(_beside_the_package(recipe))
        weights = sum(p.numel() for p in made.module.parameters())
        say(f"{made.title} {weights:,} parameters")
    source = out / f"{made.name}.onnx"
    with _step(console, "export") as say:
        opset = api.export(made, out=source).model.opset_imports.get("")
        say(f"{source}, opset {opset}, checked against the module")
    with _step(console, "inspect") as say:
        seen = api.inspect(source)
        model, sites = seen.model, seen.sites
        say(f"{plural(len(sites), 'GroupNorm')}, written as {_forms(s.form for s in sites)}")
    lowered: dict[str, ir.Model] = {}
    for target in TARGETS:
        path = out / f"{made.name}.{target}.onnx"
        with _step(console, f"lower {target}") as say:
            result = api.lower(source, target, out=path)
            lowered[target] = result.model
            say(f"{path}, {_decided(result.decisions)}")
    engine: BuildResult | None = None
    with _step(console, "build tensorrt-rtx", optional=True) as say:
        file = out / f"{made.name}.tensorrt-rtx.onnx"
        engine = api.build(file, out / f"{made.name}.engine", shapes=_profiles(made, model))
        say(f"{engine.path}, {size(engine.size)}, {plural(len(engine.kernels), 'kernel')}")
    subjects = _subjects(made, model, lowered)
    oracle = RUNTIMES.require("onnx-reference").open(model, precision="float64")
    with _step(console, "judge") as say:
        report = judge(
            model,
            sites,
            subjects,
            example_cases(model, made.module, made.inputs),
            oracle=oracle,
            names=(source.name, f"{made.name} on {plural(len(subjects), 'runtime')}"),
            title=made.name,
            command=f"gn-deploy demo --recipe {recipe}",
            progress=lambda step: say(str(step)),
        )
        say(f"{plural(len(sites), 'GroupNorm')} on {plural(len(subjects), 'runtime')} against the float64 oracle")
    with _step(console, "task") as say:
        tasks = _tasks(made, model, oracle, subjects, say)
        oracle.close()
        say(f"{tasks[0].metric} over {tasks[0].samples} test samples" if tasks else "the recipe has no test data")
    report = replace(report, tasks=tuple(tasks), engines=(_told(engine),) if engine else ())
    console.print()
    show(report, console)
    if engine:
        console.print(_kernels(engine, api.find(lowered["tensorrt-rtx"])))
    console.print()
    save_report(report, out, console)
    next_ = shlex.join([*_program(), "inspect", str(source), "--target", "tensorrt-rtx"])
    console.print(f"\nNext:  {next_}    then one of your own models", soft_wrap=True)
    files = sorted(p.name for p in out.iterdir())
    document = {"out": str(out), "files": files, "report": report.to_dict()}
    return Answer(document, ExitCode.OK if report.held else ExitCode.PARITY_BROKEN, json)


@contextmanager
def _step(console: "Console", name: str, *, optional: bool = False) -> "Iterator[Say]":
    """A spinner while a step runs, and one line when it is done: what was said last, and the seconds it took.

    An ``optional`` step that this machine cannot do says why, and the demo goes on.
    """
    from rich.text import Text

    from gn_deploy.reports.text import plain

    began = time.perf_counter()
    mark, words = Text("✓ ", style="green"), ""
    with console.status(Text(name)) as status:

        def say(text: str) -> None:
            nonlocal words
            words = plain(text)
            status.update(Text(f"{name}  {words}"))

        try:
            yield say
        except UnavailableError as error:
            if not optional:
                raise
            mark = Text("– ", style="yellow")
            say(f"not here: {error.message}")
    seconds = f"{time.perf_counter() - began:5.1f} s"
    console.print(Text.assemble(mark, f"{name:<20}", (seconds, "dim"), f"  {words}"), soft_wrap=True)


def _program() -> list[str]:
    """What to type to run this program: its name where the shell finds it, else its path, as in a fresh clone."""
    if shutil.which("gn-deploy"):
        return ["gn-deploy"]
    installed = Path(sys.executable).with_name("gn-deploy")
    if not installed.is_file():
        return [sys.executable, "-m", "gn_deploy"]
    here = Path.cwd()
    return [str(installed.relative_to(here) if installed.is_relative_to(here) else installed)]


def _beside_the_package(recipe: str) -> str:
    """The recipe of a clone when it is not found from the working directory."""
    clone = Path(__file__).parents[2] / recipe
    return str(clone) if not Path(recipe).exists() and clone.is_file() else recipe


def _forms(forms: "Iterator[str]") -> str:
    return ", ".join(f"{count} {form}" for form, count in Counter(forms).most_common())


def _decided(decisions: "Sequence[SiteDecision]") -> str:
    written = _forms(d.wrote for d in decisions if d.wrote)
    already = _forms(d.form for d in decisions if d.decision and not d.wrote)
    refused = sum(not d.decision for d in decisions)
    said = (f"{written} written and checked" if written else "", f"{already} kept" if already else "")
    return ", ".join(filter(None, (*said, f"{refused} left alone" if refused else "")))


def _kernels(engine: "BuildResult", sites: "Sequence[GroupNormSite]") -> "Table":
    """Which kernels compute each GroupNorm, by the compiler's own account of where a kernel comes from."""
    from gn_deploy.reports.text import table

    alike: dict[tuple[str, str], list[str]] = {}
    for site in sites:
        norm = {str(node.name) for node in site.bare.nodes}
        whole = next(layer for layer in site.layers if not layer.operands)
        after = {str(node.name) for node in whole.nodes} - norm
        own = [k for k in engine.kernels if norm & set(k.origin)]
        fused = any(after <= set(k.origin) for k in own)
        activation = f"{whole.spec.activation}, {'fused' if fused else 'not fused'}" if after else ""
        names = ", ".join(_HASH.sub("", k.name) for k in own)
        alike.setdefault((names, activation), []).append(site.module or site.name)
    lines = [[str(len(same)), kernels, act, same[0]] for (kernels, act), same in alike.items()]
    return table("\nWhat TensorRT made of the GroupNorms", (">count", "kernels", "activation", "such as"), lines)


def _subjects(recipe: "Recipe", model: "ir.Model", lowered: "dict[str, ir.Model]") -> "list[Subject]":
    from gn_deploy.exporters.recipe import recipe_subject
    from gn_deploy.parity.harness import Subject
    from gn_deploy.runtimes.torch_eager import TorchModel

    return [
        Subject("torch", "torch", TorchModel(*recipe_subject(recipe))),
        Subject("onnx-reference", "onnx-reference", model),
        Subject("onnxruntime", "onnxruntime", lowered["ort-cpu"]),
        Subject("openvino", "openvino", lowered["openvino"]),
    ]


def _profiles(recipe: "Recipe", model: "ir.Model") -> dict[str, tuple[tuple[int, ...], ...]]:
    """Smallest, usual and largest sizes of every input: those of the recipe's example, the batch from 1 to 64."""
    from gn_deploy.parity.cases import input_specs

    profiles = {}
    for spec in input_specs(model):
        usual = tuple(recipe.inputs[spec.name].shape)
        batches = (1, usual[0], 64) if isinstance(spec.shape[0], str) else (usual[0],) * 3
        profiles[spec.name] = tuple((batch, *usual[1:]) for batch in batches)
    return profiles


def _tasks(
    recipe: "Recipe", model: "ir.Model", oracle: "Session", subjects: "Sequence[Subject]", say: Say
) -> "list[TaskVerdict]":
    """Top-1 over all of the recipe's test data, every runtime against the float64 oracle; [] without test data."""
    from gn_deploy.parity.cases import input_specs
    from gn_deploy.parity.task.labelled import read_labelled
    from gn_deploy.parity.task.metric import METRICS
    from gn_deploy.parity.task.run import Task, judge_task
    from gn_deploy.runtimes import RUNTIMES, resolve

    if recipe.test_data is None:
        return []
    here = [s for s in subjects if RUNTIMES.require(resolve(s.runtime)).probe().run]
    inputs, labels = recipe.test_data()
    data = read_labelled(inputs, input_specs(model), labels)
    return list(judge_task(model, oracle, here, Task(data, METRICS["top-1"]), progress=lambda step: say(str(step))))


def _told(engine: "BuildResult") -> "BuiltEngine":
    from gn_deploy.parity.report import BuiltEngine

    return BuiltEngine(engine.runtime, engine.version, engine.size, engine.kernels)
