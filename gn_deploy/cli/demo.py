"""demo: a trained model from PyTorch to ONNX, four runtimes and a TensorRT engine, with a verdict and a report."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gn_deploy.cli.base import Answer, Json, save_report, terminal
from gn_deploy.errors import ExitCode, UnavailableError

if TYPE_CHECKING:
    import onnx_ir as ir
    from rich.console import Console

    from gn_deploy.exporters.recipe import Recipe
    from gn_deploy.parity.cases import Case
    from gn_deploy.parity.harness import Subject
    from gn_deploy.parity.report import TaskVerdict
    from gn_deploy.passes.lower import SiteDecision
    from gn_deploy.runtimes.base import BuildResult, Session

DIGITS = "models/digits_resnet.py"
TARGETS = ("ort-cpu", "openvino", "tensorrt-rtx")
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
    from gn_deploy.parity.harness import judge
    from gn_deploy.reports.summary import plural, size
    from gn_deploy.reports.text import show
    from gn_deploy.runtimes import RUNTIMES

    console = terminal(json)
    out.mkdir(parents=True, exist_ok=True)
    with _step(console, "recipe") as say:
        made = load_recipe(_beside_the_package(recipe))
        weights = sum(p.numel() for p in made.module.parameters())
        say(f"{made.title} {weights:,} parameters")
    source = out / f"{made.name}.onnx"
    with _step(console, "export") as say:
        model = api.export(made, out=source).model
        say(f"{source}, opset {model.opset_imports.get('')}, checked against the module")
    with _step(console, "inspect") as say:
        sites = api.find(source)
        say(f"{plural(len(sites), 'GroupNorm')}, written as {_forms(s.form for s in sites)}")
    lowered: dict[str, ir.Model] = {}
    for target in TARGETS:
        path = out / f"{made.name}.{target}.onnx"
        with _step(console, f"lower {target}") as say:
            result = api.lower(source, target, out=path)
            lowered[target] = result.model
            say(f"{path}, {_decided(result.decisions)}, every rewritten site checked")
    engine: BuildResult | None = None
    with _step(console, "build tensorrt-rtx") as say:
        try:
            engine = api.build(out / f"{made.name}.tensorrt-rtx.onnx", out / f"{made.name}.engine")
            say(f"{engine.path}, {size(engine.size)}, {_fused(engine, len(sites))}")
        except UnavailableError as error:
            say(f"not built: {error.message}")
    subjects = _subjects(made, model, lowered)
    oracle = RUNTIMES.require("onnx-reference").open(model, precision="float64")
    with _step(console, "judge") as say:
        report = judge(
            model,
            sites,
            subjects,
            _cases(made, model),
            oracle=oracle,
            names=(source.name, f"{made.name} on {plural(len(subjects), 'runtime')}"),
            title=made.name,
            command=f"gn-deploy demo --recipe {recipe}",
            progress=say,
        )
        say(f"{plural(len(sites), 'GroupNorm')} on {plural(len(subjects), 'runtime')} against the float64 oracle")
    with _step(console, "task") as say:
        tasks = _tasks(made, oracle, subjects)
        say(f"{tasks[0].metric} over {tasks[0].samples} test samples" if tasks else "the recipe has no test data")
    report = replace(report, tasks=tuple(tasks), engines=(_plain(engine),) if engine else ())
    console.print()
    show(report, console)
    console.print()
    save_report(report, out, console)
    console.print(f"\nNext, your own model:  gn-deploy lower MODEL.onnx --target ort-cpu -o {out}/lowered.onnx")
    files = sorted(p.name for p in out.iterdir())
    document = {"out": str(out), "files": files, "report": report.to_dict()}
    return Answer(document, ExitCode.OK if report.held else ExitCode.PARITY_BROKEN, json)


@contextmanager
def _step(console: "Console", name: str) -> "Iterator[Say]":
    """A spinner while a step runs, and one line when it is done: what was said last, and the seconds it took."""
    from rich.text import Text

    from gn_deploy.reports.text import plain

    began = time.perf_counter()
    words: list[str] = [""]
    with console.status(Text(name)) as status:

        def say(text: str) -> None:
            words.append(plain(text))
            status.update(Text(f"{name}  {words[-1]}"))

        yield say
    seconds = f"{time.perf_counter() - began:5.1f} s"
    console.print(Text.assemble(("✓ ", "green"), f"{name:<20}", (seconds, "dim"), f"  {words[-1]}"), soft_wrap=True)


def _beside_the_package(recipe: str) -> str:
    """The recipe of a clone when it is not found from the working directory."""
    clone = Path(__file__).parents[2] / recipe
    return str(clone) if not Path(recipe).exists() and clone.is_file() else recipe


def _forms(forms: "Iterator[str]") -> str:
    return ", ".join(f"{count} {form}" for form, count in Counter(forms).most_common())


def _decided(decisions: "Sequence[SiteDecision]") -> str:
    kept = sum(d.wrote is None for d in decisions)
    written = _forms(d.wrote for d in decisions if d.wrote)
    return "; ".join(filter(None, (written, f"{kept} as they were" if kept else "")))


def _fused(engine: "BuildResult", sites: int) -> str:
    norms = sum("norm" in k.kind.lower() or "norm" in k.name.lower() for k in engine.kernels)
    return f"{len(engine.kernels)} kernels, {norms} of them for {sites} GroupNorms"


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


def _cases(recipe: "Recipe", model: "ir.Model") -> "list[Case]":
    """The input families at the sizes of the recipe's example, and the example itself."""
    from gn_deploy.parity.cases import Case, input_specs, model_cases

    specs = input_specs(model)
    example = {name: tensor.numpy() for name, tensor in recipe.inputs.items()}
    sizes = {dim: size for s in specs for dim, size in zip(s.shape, example[s.name].shape, strict=True)}
    drawn = model_cases(specs, dims={dim: size for dim, size in sizes.items() if isinstance(dim, str)})
    return [*drawn, Case("example", example, "example", conditioned=True)]


def _tasks(recipe: "Recipe", oracle: "Session", subjects: "Sequence[Subject]") -> "list[TaskVerdict]":
    """Top-1 over all of the recipe's test data, every runtime against the float64 oracle; [] without test data."""
    from gn_deploy.parity.task import judge_task
    from gn_deploy.runtimes import RUNTIMES, resolve

    if recipe.test_data is None:
        return []
    feeds, labels = recipe.test_data()

    def logits(session: "Session") -> Any:
        return next(iter(session.run(feeds).values()))

    exact, verdicts = logits(oracle), []
    for subject in subjects:
        runtime = RUNTIMES.require(resolve(subject.runtime))
        if runtime.probe().run:
            session = runtime.open(subject.model)
            verdicts.append(judge_task(subject.label, exact, logits(session), labels))
            session.close()
    return verdicts


def _plain(engine: "BuildResult") -> dict[str, Any]:
    kernels = [asdict(k) for k in engine.kernels]
    return {"runtime": engine.runtime, "version": engine.version, "size": engine.size, "kernels": kernels}
