"""Every subject and the reference over labelled data, batch by batch, scored by a metric."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gn_deploy.errors import GnDeployError, InputError, UnavailableError
from gn_deploy.parity.inputs import fed_to
from gn_deploy.parity.progress import Progress, Tell
from gn_deploy.parity.report import TaskVerdict
from gn_deploy.parity.status import Status
from gn_deploy.parity.subject import Subject, as_promised
from gn_deploy.parity.task.images import usual_range
from gn_deploy.parity.task.labelled import Array, Labelled
from gn_deploy.parity.task.metric import Metric
from gn_deploy.parity.task.verdict import Tally, judged
from gn_deploy.runtimes import RUNTIMES, resolve
from gn_deploy.runtimes.base import TimeLimitExceeded

if TYPE_CHECKING:
    import onnx_ir as ir

    from gn_deploy.runtimes.base import Session
    from gn_deploy.runtimes.isolated import Limits


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """What a model is for: data, a metric, and how much of it may be lost (None: only told).

    ``data_range`` is what PSNR and SSIM take the images to span; without it ``images.usual_range`` of the labels, else
    of the reference's first batch.
    """

    data: Labelled
    metric: Metric
    allowed_drop: float | None = None
    data_range: float | None = None

    def __post_init__(self) -> None:
        if self.allowed_drop is not None and self.data.labels is None and np.isinf(self.metric.exact):
            raise InputError(
                f"without labels the reference's own {self.metric.name} is infinite, nothing can be allowed to drop",
                "give labels, or take ssim",
            )


@dataclass(slots=True)
class _Running:
    """One subject under way."""

    subject: Subject
    session: "Session | None"
    tally: Tally
    status: Status = Status.PASS
    reason: str = ""

    def fails(self, error: GnDeployError) -> None:
        absent, late = isinstance(error, UnavailableError), isinstance(error, TimeLimitExceeded)
        self.status = Status.NOTRUN if absent else Status.TIMEOUT if late else Status.CRASH
        self.reason = error.message
        self.close()

    def close(self) -> None:
        if self.session is not None:
            self.session.close()
            self.session = None


def judge_task(
    reference: "ir.Model",
    oracle: "Session",
    subjects: Sequence[Subject],
    task: Task,
    *,
    limits: "Limits | None" = None,
    progress: Tell | None = None,
) -> tuple[TaskVerdict, ...]:
    """One verdict per subject, against ``oracle``: the reference on whatever runs it, fed by its own names.

    Only scores are kept, so memory does not grow with the samples' size. Where there are no labels the reference's own
    outputs are what is wanted. A built-in metric is about the first output. A runtime that is absent is NOTRUN, one
    that fails is CRASH; with ``limits`` each has a process of its own, and one that is too slow is TIMEOUT.
    Raises InputError when data, outputs and metric do not fit.
    """
    tell = progress or (lambda _: None)
    standard, running = Tally(), [_opened(subject, limits) for subject in subjects]
    spans = task.data_range
    if spans is None and task.metric.ranged and task.data.labels is not None:
        spans = usual_range(task.data.labels)
    try:
        for rows, case in task.data.batches():
            tell(Progress(f"{task.metric.name} on {len(subjects)} runtime(s)", rows.start, len(task.data)))
            count = rows.stop - rows.start
            exact = _cut(oracle.run(fed_to(reference, reference, [case])[0].feeds), count)
            chief = next(iter(exact.values()))
            own = _given(exact, task.metric)
            wanted = own if task.data.labels is None else task.data.labels[rows]
            if task.metric.ranged and spans is None:
                spans = usual_range(chief)
            options = {"data_range": spans} if task.metric.ranged else {}
            standard.rows.append(task.metric.score(own, wanted, **options))
            for one in running:
                if one.session is None:
                    continue
                try:
                    answer = one.session.run(fed_to(reference, one.subject.model, [case])[0].feeds)
                except InputError:
                    raise
                except GnDeployError as error:
                    one.fails(error)
                    continue
                got = _named_like(_cut(answer, count), exact, one.subject.label)
                one.tally.rows.append(task.metric.score(_given(got, task.metric), wanted, **options))
                if task.metric.agree is not None:
                    same, certain = task.metric.agree(chief, next(iter(got.values())))
                    one.tally.agreed += int(same.sum())
                    one.tally.certified += int(certain.sum())
    finally:
        for one in running:
            one.close()
    name = f"{task.metric.name} (data range {spans:g})" if task.metric.ranged else task.metric.name
    name += "" if task.data.labels is not None else ", reference as label"
    return tuple(_verdict(one, task, name, standard) for one in running)


def _verdict(one: _Running, task: Task, name: str, standard: Tally) -> TaskVerdict:
    if one.status is not Status.PASS:
        nothing = float("nan")
        return TaskVerdict(one.subject.label, name, nothing, nothing, nothing, 0, status=one.status, reason=one.reason)
    return judged(one.subject.label, task.metric, name, standard, one.tally, allowed_drop=task.allowed_drop)


def _opened(subject: Subject, limits: "Limits | None") -> _Running:
    running = _Running(subject, None, Tally())
    try:
        runtime = RUNTIMES.require(resolve(subject.runtime))
        probe = runtime.probe()
        if not probe.run:
            raise UnavailableError(probe.run.reason)
        running.subject, opener, _ = as_promised(subject, runtime, limits)
        running.session = opener.open(running.subject.model)
    except InputError:
        raise
    except GnDeployError as error:
        running.fails(error)
    return running


def _given(outputs: Mapping[str, Array], metric: Metric) -> Any:
    """What the metric is handed: the first output, or for a function of the user's all of them."""
    return dict(outputs) if metric.whole and len(outputs) > 1 else next(iter(outputs.values()))


def _cut(outputs: Mapping[str, Array], count: int) -> dict[str, Array]:
    for name, array in outputs.items():
        if not array.ndim or len(array) < count:
            raise InputError(
                f"output '{name}' has shape {array.shape} for {count} samples", "its first axis must count the samples"
            )
    return {name: array[:count] for name, array in outputs.items()}


def _named_like(outputs: dict[str, Array], wanted: Mapping[str, Array], label: str) -> dict[str, Array]:
    if outputs.keys() == wanted.keys():
        return {name: outputs[name] for name in wanted}
    if len(outputs) != len(wanted):
        raise InputError(f"{label} gives {len(outputs)} outputs, the reference {len(wanted)}")
    return dict(zip(wanted, outputs.values(), strict=True))
