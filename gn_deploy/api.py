"""The five public verbs: find, lower, export, build, compare."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gn_deploy.errors import InputError, ParityError
from gn_deploy.targets import AUTO, WITH_ENGINES, Target

if TYPE_CHECKING:
    import onnx_ir as ir

    from gn_deploy.forms.base import GroupNormSite, NearMiss
    from gn_deploy.parity.confidence import Until
    from gn_deploy.parity.harness import After
    from gn_deploy.parity.progress import Tell
    from gn_deploy.parity.report import ParityReport
    from gn_deploy.passes.lower import SiteDecision
    from gn_deploy.runtimes.base import BuildResult

Source = Any
"""A path, a ModelProto, an onnx_ir.Model, a torch ONNXProgram, or a recipe, which is exported."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """The sites of a model, normalized, and what would become of each."""

    model: "ir.Model"
    sites: tuple["GroupNormSite", ...]
    decisions: tuple["SiteDecision", ...]
    near_misses: tuple["NearMiss", ...]


@dataclass(frozen=True, slots=True)
class Lowering:
    """A lowered model, what was decided for each site, and where it was written (None when it was not).

    Unpacks as ``model, decisions``.
    """

    model: "ir.Model"
    decisions: tuple["SiteDecision", ...]
    near_misses: tuple["NearMiss", ...]
    path: Path | None = None
    precision: str = ""
    """What became of the model's types, when the target asked for a dtype."""

    def __iter__(self) -> "Iterator[Any]":
        return iter((self.model, self.decisions))


@dataclass(frozen=True, slots=True)
class Export:
    """An exported (and, for a target, lowered) model with its proof: the comparison with the module itself."""

    model: "ir.Model"
    decisions: tuple["SiteDecision", ...]
    report: "ParityReport | None"
    path: Path | None = None


def find(source: Source) -> "list[GroupNormSite]":
    """Every Group Normalization of a model, in graph order, with what provably belongs to it around: activation,
    residual, modulation, Casts, Transposes. ``site.layers`` are the same with less and less of that.

    ``source`` is a path, a ModelProto, an onnx_ir.Model or a torch ONNXProgram, and is not changed.
    Raises InputError for a file that is no valid model.
    """
    return list(_sites(source).sites)


def inspect(source: Source, target: str | Target = "onnx") -> Inspection:
    """What ``find`` finds, with the look-alikes that were left alone and what ``lower`` for ``target`` would do."""
    from gn_deploy.passes.lower import LowerGroupNorm

    goal = checked_target(target)
    seen = _sites(source)
    return replace(seen, decisions=LowerGroupNorm(goal).decide(seen.model, seen.sites))


def lower(source: Source, target: str | Target, *, out: str | Path | None = None, verify: bool = True) -> Lowering:
    """Writes every Group Normalization the way ``target`` takes it best; ``onnx+FORM`` asks for one form.

    With ``verify``, each rewrite is judged against the float64 oracle, and one that fails is not made.
    ``source`` is not changed; ``out`` is written atomically. Raises InputError for bad files and targets.
    """
    from gn_deploy.graph.io import save
    from gn_deploy.parity.rewrite import check
    from gn_deploy.passes.lower import Lowered, LowerGroupNorm

    goal = checked_target(target)
    path = _place(out)
    model = _normalized(source)
    result = LowerGroupNorm(goal, verify=check if verify else None)(model)
    assert isinstance(result, Lowered)
    precision = ""
    if goal.dtype is not None:
        from gn_deploy.passes.precision import convert

        precision = convert(model, goal.dtype)
    if path is not None:
        save(model, path)
    return Lowering(model, result.decisions, result.near_misses, path, precision)


def export(
    source: Any,
    example_inputs: Any = None,
    *,
    target: str | Target | None = None,
    dynamic: Any = True,
    opset: int | None = None,
    out: str | Path | None = None,
    verify: bool = True,
) -> Export:
    """Exports an ``nn.Module`` with its example inputs, or a recipe (itself, its path or its name), for ``target``.

    ``dynamic`` is True (batch and spatial sizes free where the module allows it), False, or {input: {axis: name}}.
    With ``verify`` the written model is judged against the module in float64, end to end and site by site; one that
    differs raises ParityError and is not written. Weights are shared with the module, not copied.
    Raises InputError when the module cannot be exported, UnavailableError when torch is not installed.
    """
    from gn_deploy.exporters.recipe import Recipe, load_recipe
    from gn_deploy.exporters.torch import export as export_module
    from gn_deploy.graph.io import save

    goal = None if target is None else checked_target(target)
    path = _place(out)
    recipe = load_recipe(source) if isinstance(source, str | Path) else source
    if isinstance(recipe, Recipe):
        module, inputs = recipe.module, recipe.inputs if example_inputs is None else example_inputs
        dynamic = recipe.dynamic if dynamic is True else dynamic
        if path is not None and path.exists() and path.samefile(recipe.path):
            raise InputError(f"'{path}' is the recipe itself, which is never overwritten", "choose another output")
    else:
        module, inputs = recipe, example_inputs
    if inputs is None:
        raise InputError("a module cannot be exported without example inputs", "pass example_inputs=(tensor, ...)")
    model = export_module(module, inputs, dynamic=dynamic, opset=opset)
    decisions: tuple[SiteDecision, ...] = ()
    if goal is not None:
        lowered = lower(model, goal, verify=verify)
        model, decisions = lowered.model, lowered.decisions
    report = None
    if verify:
        from gn_deploy.parity.export import against_module

        report = against_module(module, inputs, model)
        if not report.held:
            raise ParityError(
                f"the exported model does not compute what the module does: {_first_broken(report)}",
                "nothing was written; verify=False (--no-verify) writes it all the same",
            )
    if path is not None:
        save(model, path)
    return Export(model, decisions, report, path)


def build(source: Source, out: str | Path, *, target: str | Target = "tensorrt-rtx", **options: Any) -> "BuildResult":
    """Builds an engine from a model file for a runtime that has engines (``tensorrt-rtx``, ``tensorrt``).

    ``options``, its own: ``compute_capabilities=("8.9",)``, ``shapes={"x": (min, opt, max)}``, ``plugin="none"``.
    Raises InputError when the model is not an ONNX file, is ``out`` itself, or spells a GroupNorm in a form that the
    runtime compiles wrongly or not at all, UnavailableError when the runtime cannot build here.
    """
    from gn_deploy.graph.io import refuse_input
    from gn_deploy.runtimes import RUNTIMES, resolve

    goal = checked_target(target)
    runtime = RUNTIMES.require(resolve(goal.runtime))
    _check_build(goal, Path(source), Path(out))
    seen = inspect(source)
    refuse_input(seen.model, (Path(out),))
    for site in seen.sites:
        taken = goal.takes(site.form, site.spec)
        if not taken:
            raise InputError(f"'{site.name}' cannot be built as it is: {taken.reason}", f"lower for {goal} first")
    return runtime.build(Path(source), Path(out), **options)


def _check_build(goal: Target, model: Path, out: Path) -> None:
    from gn_deploy.graph.atomic import check_place

    if goal.runtime not in WITH_ENGINES:
        raise InputError(f"target '{goal}' has no engines to build", f"targets that have: {', '.join(WITH_ENGINES)}")
    if goal.dtype or goal.form:
        raise InputError(
            f"an engine is built from the file as it is, '{goal}' asks for another one",
            f"first: gn-deploy lower {model} --target {goal} -o OUT.onnx",
        )
    if model.suffix == ".py":
        raise InputError(
            f"'{model}' is a recipe, an engine is built from an ONNX file",
            f"first: gn-deploy export {model} --target {goal} -o OUT.onnx",
        )
    check_place(out)


def compare(
    a: Source,
    b: Source,
    *,
    runtimes: Sequence[str] | None = None,
    data: Any = None,
    limit: int | None = None,
    dims: Mapping[str, int | Sequence[int]] | None = None,
    sizes: str | None = None,
    until_confident: "bool | Until" = False,
    redraw_affine: bool = False,
    atol: float | None = None,
    rtol: float | None = None,
    network: bool = True,
    isolate: bool = True,
    time_limit: float | None = None,
    memory_limit: int | None = None,
    locate: bool = False,
    blame: bool = False,
    repro: str | Path | None = None,
    metric: str | Callable[..., Any] | None = None,
    labels: Any = None,
    allowed_drop: float | str | None = None,
    data_range: float | None = None,
    reference_runtime: str | None = None,
    accept: Sequence[str] = (),
    progress: "Tell | None" = None,
    after: "After | None" = None,
) -> "ParityReport":
    """Whether ``b`` still computes what ``a`` does: every GroupNorm of ``a`` is judged in ``b`` on its own input.

    1. The truth is ``a``'s specs and parameters in float64 and two passes, fed what the runtime really received.
    2. ``runtimes`` run ``b``; without any it is the two-pass evaluation of the ONNX standard, which judges what is
       written and not who runs it. One that is absent or fails is told in the report, which then has not held.
    3. ``data`` are inputs of your own, of which at most ``limit`` are used: the path of an .npz, .npy, Polygraphy .json
       or .pt file, of a folder of them or of ONNX test data, ``FILE.py:FUNCTION``, ``package.module:FUNCTION``, or
       anything that gives dicts {input: array}. They are read one by one. Without any, inputs are drawn: ``dims`` gives
       dynamic dimensions a size or several, ``sizes="auto"`` also tries one sample, another batch, odd sizes, 1 x 1.
       A size that ``a`` itself refuses is told in ``notes``; one that only ``b`` refuses breaks parity.
       ``until_confident`` (True, or an ``Until``) goes on with fresh inputs until it is settled; else it has not held.
       ``redraw_affine`` judges both models again with other scales and biases, equal in both, on copies: the 1 and 0 of
       a network that was never trained hide that they are misplaced. Sites that could not be drawn are in ``notes``.
    4. ``atol`` and ``rtol`` replace the derived bound: |b - truth| <= atol + rtol |truth|.
    5. ``progress`` is called with a ``Progress``, whose str is a line for people, before each step.
    6. ``network=False`` probes each GroupNorm alone and never runs the networks, for models too large to evaluate.
    7. Each runtime runs in a process of its own: one that crashes is told as such, and one that takes more than
       ``time_limit`` seconds (600) for one request is stopped. ``memory_limit`` is the bytes it may write to, its
       libraries included. With ``isolate=False`` it runs in this process, faster to start and easier to debug.
    8. ``locate`` finds the first value that is not what it should be: in ``b`` against ``a``, and on each runtime;
       ``blame`` also the setting of the runtime that is at fault. Into the folder ``repro`` goes a small model that
       shows it, with its inputs, what is right, and a script.
    9. With a ``metric`` (top-1, top-5, iou, psnr, ssim, cosine, ``module:function``, or a function of outputs and
       labels that gives a score per sample) ``data`` holds one row per sample, ``labels`` names its labels, and the
       loss of ``b`` on every runtime is told with a 95 % interval and judged against ``allowed_drop`` ("0.5%"). Each
       GroupNorm is then judged on the first batch. The samples of ``a`` are run by ``reference_runtime``, without one
       by the float64 oracle, which is slow.
    10. A runtime's name may carry a precision, ``openvino:bf16``: it is opened in it, and judged by it. Without one the
        promise is what ``b`` is written in, and less is the verdict "lowprec".
    11. ``accept`` names verdicts that are taken for held: "lowprec", "unstable".
    12. ``after`` is for what is done by the same standard once the comparison is made; ``would_notice`` uses it.

    Raises InputError for files, data and arguments that do not fit, and for models whose inputs or outputs differ.
    """
    from gn_deploy.diagnosis.explain import explain
    from gn_deploy.parity.cases import input_specs
    from gn_deploy.parity.confidence import Until
    from gn_deploy.parity.harness import REFERENCE_RUNTIME
    from gn_deploy.parity.harness import compare as compare_models
    from gn_deploy.parity.sizes import drawn
    from gn_deploy.parity.sources.data import Data
    from gn_deploy.parity.subject import Subject
    from gn_deploy.parity.task.asked import asked, judge_asked
    from gn_deploy.runtimes.isolated import Limits
    from gn_deploy.runtimes.worker import TIME_LIMIT

    if not isolate and (time_limit is not None or memory_limit is not None):
        raise InputError("this process cannot be limited", "leave isolate=True, or leave the limits out")
    if data is None and limit is not None:
        raise InputError("a limit is for inputs of your own, and none were given", "give data as well")
    locate = locate or blame or repro is not None
    if data is not None and (dims or sizes):
        raise InputError("inputs of your own have the sizes they have", "leave out the sizes, or the data")
    if not network and (until_confident or sizes or dims or (data is not None and metric is None)):
        raise InputError("data, sizes and confidence are of networks that run", "leave network=True (no --probes-only)")
    if locate and not network:
        raise InputError("a place is found by running the networks", "leave network=True (no --probes-only)")
    reference, candidate = _normalized(a), _normalized(b)
    chosen = tuple(runtimes or (REFERENCE_RUNTIME,))
    task = asked(
        reference, candidate, metric=metric, data=data, limit=limit, labels=labels, allowed_drop=allowed_drop,
        data_range=data_range, reference_runtime=reference_runtime, settling=bool(until_confident),
    )  # fmt: skip
    given = data if task is None else [task.data.first().feeds]
    own = None if given is None else Data(given, input_specs(reference), limit=limit)
    limits = Limits(TIME_LIMIT if time_limit is None else time_limit, memory_limit) if isolate else None
    report = compare_models(
        reference,
        candidate,
        runtimes=chosen,
        cases=own,
        dims=dims,
        sizes=sizes,
        until=Until() if until_confident is True else until_confident or None,
        redrawn=redraw_affine,
        atol=atol,
        rtol=rtol,
        network=network,
        names=(_name(a), _name(b)),
        limits=limits,
        accept=accept,
        progress=progress,
        after=after,
    )
    if own is not None:
        report = replace(report, notes=(*report.notes, *own.notes))
    if task is not None:
        subjects = [Subject(name, name, candidate) for name in chosen]
        tasks = judge_asked(reference, subjects, task, runtime=reference_runtime, limits=limits, progress=progress)
        report = replace(report, tasks=tasks)
    usual = {name: size if isinstance(size, int) else size[0] for name, size in (dims or {}).items()}
    again = None if hasattr(given, "__next__") else own  # an iterator has been read to its end
    return explain(
        report,
        reference,
        candidate,
        lambda: again or drawn(input_specs(reference), dims=usual),
        chosen,
        limits,
        locate=locate,
        at_fault=blame,
        folder=None if repro is None else Path(repro),
        tell=_words(progress),
    )


def _words(progress: "Tell | None") -> "Callable[[str], None] | None":
    from gn_deploy.parity.progress import Progress

    return None if progress is None else lambda text: progress(Progress(text))


def checked_target(target: str | Target) -> Target:
    """The target, its form known to be one of ours; InputError names the nearest when it is not."""
    goal = Target.parse(target) if isinstance(target, str) else target
    if goal.form not in (None, AUTO):
        from gn_deploy.forms import FORMS

        FORMS.require(goal.form)
    return goal


def _sites(source: Source) -> Inspection:
    """The sites without what would become of them."""
    from gn_deploy.sites import find as find_sites

    model = _normalized(source)
    found = find_sites(model)
    return Inspection(model, found.sites, (), found.near_misses)


def _place(out: str | Path | None) -> Path | None:
    """Where to write, told before the work when nothing can be written there."""
    from gn_deploy.graph.atomic import check_place

    if out is None:
        return None
    check_place(Path(out))
    return Path(out)


def _first_broken(report: "ParityReport") -> str:
    for site in report.sites:
        if site.status.broken:
            return f"'{site.module or site.site}': {site.reason or f'{site.status} on {site.case}'}"
    for output in report.outputs:
        if output.status.broken:
            return f"output '{output.output}' is {output.status} on {output.case}"
    return "; ".join(r.reason for r in report.runtimes if r.reason) or "nothing could be judged"


def _name(source: Source) -> str:
    return Path(source).name if isinstance(source, str | Path) else "model"


def _normalized(source: Source) -> "ir.Model":
    """The model as it will be looked at: of a path a fresh one, else a clone, so that the caller's stays as it was."""
    from gn_deploy.exporters.recipe import Recipe, load_recipe
    from gn_deploy.graph.io import as_model
    from gn_deploy.graph.normalize import normalize
    from gn_deploy.passes.quantize import unquantized

    if isinstance(source, str | Path) and Path(source).suffix == ".py":
        source = load_recipe(source)
    if isinstance(source, Recipe):
        from gn_deploy.exporters.torch import export as export_module

        source = export_module(source.module, source.inputs, dynamic=source.dynamic)
    if isinstance(source, str | Path):
        return unquantized(normalize(as_model(source)))
    return unquantized(normalize(as_model(source).clone()))
