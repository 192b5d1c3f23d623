"""How often a right GroupNorm is called wrong: every form on every runtime here, through the harness itself."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from gn_deploy.around.write import write
from gn_deploy.errors import GnDeployError
from gn_deploy.forms import FORMS
from gn_deploy.forms.base import DTYPES, GroupNormSite, Parameter
from gn_deploy.graph.normalize import normalize
from gn_deploy.graph.splice import Builder, Names
from gn_deploy.parity.cases import deal, hands
from gn_deploy.parity.harness import compare
from gn_deploy.parity.per_site import judge_arrays
from gn_deploy.parity.status import Status
from gn_deploy.spec import GroupNormSpec
from scripts.figures import versions
from scripts.pages import table

FORMS_HERE = {
    "native": (21, "float32 float16 bfloat16"),
    "native18": (18, "float32"),
    "instance_norm": (22, "float32 float16 bfloat16"),
    "layer_norm": (17, "float32 float16 bfloat16"),
    "primitives": (18, "float32 float16 bfloat16"),
    "statistics_affine": (18, "float32 float16 bfloat16"),
    "contrib": (17, "float32 float16"),
    "plugin": (18, "float32 float16 bfloat16"),
    "trt_plugins": (18, "float32 float16 bfloat16"),
}
"""Form -> the opset it is written in, and the dtypes it is tried in."""
RUNTIMES = ("onnx-reference", "onnxruntime", "openvino")
EVALUATED = ("contrib", "trt_plugins")
"""Forms whose nodes only onnx-reference computes here."""
ONE_PASS = ("native", "native18")
"""On ONNX Runtime's CPU provider, which inlines the one-pass body of the ONNX function."""
SHAPES = (
    ((3, 8), (1, 8)),
    ((2, 32), (1, 8)),
    ((2, 8, 1), (1, 8)),
    ((3, 8, 37), (1, 8)),
    ((1, 32, 500), (32,)),
    ((2, 8, 1, 1), (1, 8)),
    ((4, 32, 1, 1), (8, 32)),
    ((2, 24, 7, 9), (1, 8, 24)),
    ((1, 32, 13, 17), (8, 32)),
    ((3, 64, 12, 12), (1, 8, 32, 64)),
    ((1, 64, 64, 64), (8,)),
    ((1, 8, 128, 128), (1,)),
    ((2, 8, 3, 5, 7), (1, 8)),
    ((1, 32, 16, 16, 16), (1,)),
)
"""Shapes of x with the numbers of groups that each is normalized in; 1 to 131,072 values to a group."""

LARGE = 1 << 17
"""Elements from which a shape is tried in float32 only, for the time it takes."""


@dataclass(frozen=True, slots=True)
class Run:
    """One family of inputs in one GroupNorm, as the harness judged it."""

    runtime: str
    form: str
    dtype: str
    n: int
    status: Status
    ratio: float
    """Error over bound."""
    where: str = ""


def operators(dtype: str, shapes: Sequence[tuple[tuple[int, ...], tuple[int, ...]]] = SHAPES) -> list[Any]:
    """Spec and shape of everything that goes into one model; epsilon is another one now and then."""
    found = []
    for shape, counts in shapes:
        for groups in counts if dtype == "float32" or np.prod(shape) < LARGE else ():
            epsilon = (1e-5, 1e-6, 1e-3)[len(found) % 3]
            found.append((GroupNormSpec(groups, shape[1], epsilon, rank=len(shape), dtype=dtype), shape))
    return found


def model(form: str, opset: int, wanted: Sequence[tuple[GroupNormSpec, tuple[int, ...]]]) -> ir.Model:
    """One input, one GroupNorm with parameters drawn N(0,1), one output, for each of ``wanted``."""
    graph = ir.Graph([], [], nodes=[], opset_imports={"": opset}, name="all")
    made = ir.Model(graph, ir_version=10)
    rng = np.random.default_rng(0)
    for i, (spec, shape) in enumerate(wanted):
        dtype = DTYPES[spec.dtype]
        x = ir.Value(name=f"x{i}", shape=ir.Shape(shape), type=ir.TensorType(dtype))
        graph.inputs.append(x)
        drawn = rng.standard_normal((2, spec.num_channels)).astype(dtype.numpy())
        scale, bias = (Parameter(array=array) for array in drawn)
        site = GroupNormSite(spec, "alarms", f"gn{i}", x, x, scale, bias, ())
        builder = Builder(Names(made), f"gn{i}", opset)
        y = write(site, FORMS.require(form), builder)
        for value in builder.initializers:
            graph.register_initializer(value)
        graph.extend(builder.nodes)
        y.name, y.shape, y.dtype = f"y{i}", ir.Shape(shape), dtype
        graph.outputs.append(y)
        graph.opset_imports.update(dict.fromkeys(builder.domains, 1))
        made.functions.update({key: body() for key, body in builder.functions.items()})
    return normalize(made)


def by_runtime(form: str, dtype: str, runtime: str, shapes: Any = SHAPES) -> Iterator[Run]:
    """What the harness says of ``form`` on ``runtime``; the truth is the same GroupNorm as layer_norm says it."""
    opset, _ = FORMS_HERE[form]
    wanted = operators(dtype, shapes)
    wanted = [(s, shape) for s, shape in wanted if FORMS.require(form).legal(s, opset)]
    report = compare(model("layer_norm", 17, wanted), model(form, opset, wanted), runtimes=[runtime], network=False)
    for (spec, shape), verdict in zip(wanted, report.sites, strict=True):
        n = int(np.prod(shape)) // (shape[0] * spec.num_groups)
        where = f"{shape} in {spec.num_groups} groups: {verdict.case}: {verdict.reason}"
        if not verdict.cases:  # it did not run
            yield Run(runtime, form, dtype, n, verdict.status, np.nan, where)
        for ratio in verdict.cases.values():  # the site's word is that of its worst family
            yield Run(runtime, form, dtype, n, verdict.status if ratio > 1 else Status.PASS, ratio, where)


def by_torch(dtype: str, shapes: Any = SHAPES) -> Iterator[Run]:
    """torch.nn.functional.group_norm on contiguous tensors."""
    kind = getattr(torch, dtype)
    rng = np.random.default_rng(0)
    for spec, shape in operators(dtype, shapes):
        n = int(np.prod(shape)) // (shape[0] * spec.num_groups)
        if n == 1:
            continue  # torch refuses one value per group
        scale, bias = rng.standard_normal((2, spec.num_channels)).astype(dtype)
        for x, hand in zip(deal(shape, spec), hands(shape, spec), strict=True):
            given = [torch.from_numpy(a.astype(np.float32)).to(kind) for a in (x, scale, bias)]
            y = torch.nn.functional.group_norm(given[0], spec.num_groups, given[1], given[2], spec.epsilon)
            for e in judge_arrays(x, y.float().numpy().astype(dtype), spec, scale, bias, case="probe", hand=hand):
                ratio = e.metrics.error_over_bound if e.metrics else np.nan
                yield Run("torch", "module", dtype, n, e.status, ratio, f"{shape}: {e.case}: {e.reason}")


def all_runs(shapes: Any = SHAPES) -> list[Run]:
    """One process to a core."""
    asked = [
        (form, dtype, runtime, shapes)
        for form, (_, dtypes) in FORMS_HERE.items()
        for dtype in dtypes.split()
        for runtime in (RUNTIMES if form not in EVALUATED else RUNTIMES[:1])
    ]
    asked += [("", dtype, "torch", shapes) for dtype in ("float32", "float16", "bfloat16")]
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as workers:
        return [run for runs in workers.map(_runs, asked) for run in runs]


def _runs(asked: tuple[str, str, str, Any]) -> list[Run]:
    form, dtype, runtime, shapes = asked
    try:
        return list(by_torch(dtype, shapes) if runtime == "torch" else by_runtime(form, dtype, runtime, shapes))
    except GnDeployError as error:
        return [Run(runtime, form, dtype, 0, Status.CRASH, np.nan, str(error))]


def is_refusal(run: Run) -> bool:
    """No kernel for the element type: ONNX Runtime's CPU provider has next to none for bfloat16."""
    return run.status is Status.NOTRUN and run.dtype == "bfloat16" and "no kernel" in run.where


def is_unsafe(run: Run) -> bool:
    """UNSTABLE is the right word for a variance in one pass: what it finds is no false alarm."""
    return run.status is Status.UNSTABLE and run.form in ONE_PASS and run.runtime != "openvino"


def false_alarms(runs: Iterable[Run]) -> list[Run]:
    return [r for r in runs if r.status is not Status.PASS and not is_refusal(r) and not is_unsafe(r)]


def section() -> str:
    runs = all_runs()
    rows: list[list[object]] = [
        [
            "runtime",
            "form",
            "dtypes",
            "runs",
            "false alarms",
            "largest error / bound",
            "median",
            "unstable",
            "no kernel",
        ]
    ]
    for (runtime, form), mine in _grouped(runs).items():
        rows.append([runtime, form, *_cells(mine)])
    rows.append(["**all**", "", *_cells(runs)])
    alarms = [f"{r.runtime}, {r.form}, {r.dtype}: {r.status}: {r.where}" for r in false_alarms(runs)]
    sizes = [r.n for r in runs if r.n]
    told = f"Groups hold {min(sizes):,} to {max(sizes):,} values."
    return "\n\n".join([table(rows), *alarms, told, versions("numpy", "onnx", "onnxruntime", "openvino", "torch")])


def _grouped(runs: Sequence[Run]) -> dict[tuple[str, str], list[Run]]:
    found: dict[tuple[str, str], list[Run]] = {}
    for run in sorted(runs, key=lambda r: r.runtime):
        found.setdefault((run.runtime, run.form), []).append(run)
    return found


def _cells(runs: Sequence[Run]) -> list[object]:
    """Ratios of what passed: an unsafe variance may be infinitely far off."""
    judged = [r for r in runs if not is_refusal(r)]
    ratios = [r.ratio for r in judged if r.status is Status.PASS]
    dtypes = ", ".join(dict.fromkeys(r.dtype for r in judged))
    counts = [sum(map(is_unsafe, runs)), len({r.where for r in runs if is_refusal(r)})]
    numbers = [f"{max(ratios):.2f}", f"{np.median(ratios):.2f}"] if ratios else ["-", "-"]
    return [dtypes, len(judged), len(false_alarms(runs)), *numbers, *counts]
