"""A task as the user asks for it: metric, data and labels by name, checked against the models before anything runs."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gn_deploy.errors import InputError
from gn_deploy.parity.cases import input_specs
from gn_deploy.parity.oracle import open_oracle
from gn_deploy.parity.progress import Tell
from gn_deploy.parity.report import TaskVerdict
from gn_deploy.parity.subject import Subject, as_promised
from gn_deploy.parity.task.labelled import LABELS, read_labelled
from gn_deploy.parity.task.metric import find_metric
from gn_deploy.parity.task.run import Task, judge_task
from gn_deploy.parity.task.verdict import parse_drop
from gn_deploy.runtimes import RUNTIMES, resolve

if TYPE_CHECKING:
    import onnx_ir as ir

    from gn_deploy.parity.task.labelled import Array
    from gn_deploy.parity.task.metric import Metric
    from gn_deploy.runtimes.isolated import Limits


def asked(
    reference: "ir.Model",
    candidate: "ir.Model | None",
    *,
    metric: "str | Metric | Callable[..., Any] | None",
    data: Any,
    limit: int | None = None,
    labels: "str | Path | Array | None" = None,
    allowed_drop: float | str | None = None,
    data_range: float | None = None,
    reference_runtime: str | None = None,
    settling: bool = False,
) -> Task | None:
    """The task; None when no metric is asked for. Raises InputError for what does not fit.

    ``settling`` tells that inputs are asked for until a verdict is settled, which the first batch of a task never does.
    """
    if metric is None:
        extra = {"labels": labels, "allowed_drop": allowed_drop, "data_range": data_range}
        extra["reference_runtime"] = reference_runtime
        if needless := next((name for name, value in extra.items() if value is not None), None):
            raise InputError(f"{needless} without a metric", "name one, for example top-1 (--metric top-1)")
        return None
    if settling:
        raise InputError("with a metric only its first batch judges GroupNorms, which settles nothing", "run it twice")
    found = find_metric(metric)
    if data is None:
        raise InputError(
            f"metric {found.name} needs data",
            f"--data FILE.npz with an array per input and one of '{LABELS[0]}', or a recipe with test_data() as A",
        )
    if data_range is not None and not (found.ranged and data_range > 0):
        wrong = f"data_range={data_range:g} is not a range" if found.ranged else f"{found.name} has no data range"
        raise InputError(wrong, "above 0, for psnr and ssim: 1 for images in 0..1, 255 for bytes")
    labelled = read_labelled(data, input_specs(reference), labels, limit=limit)
    sizes = [s.shape[0] for s in input_specs(candidate) if s.shape] if candidate is not None else []
    if not labelled.fixed and (fixed := next((size for size in sizes if isinstance(size, int)), 0)):
        labelled = replace(labelled, batch=fixed, fixed=True)
    drop = None if allowed_drop is None else parse_drop(allowed_drop)
    return Task(labelled, found, drop, data_range)


def judge_asked(
    reference: "ir.Model",
    subjects: Sequence[Subject],
    task: Task,
    *,
    runtime: str | None = None,
    limits: "Limits | None" = None,
    progress: Tell | None = None,
) -> tuple[TaskVerdict, ...]:
    """``judge_task`` with the reference on ``runtime``; on none it is the float64 oracle, exact and slow."""
    if runtime is None:
        session = open_oracle(reference)
    else:
        subject, opener, _ = as_promised(
            Subject("reference", runtime, reference), RUNTIMES.require(resolve(runtime)), limits
        )
        session = opener.open(subject.model)
    try:
        return judge_task(reference, session, subjects, task, limits=limits, progress=progress)
    finally:
        session.close()
