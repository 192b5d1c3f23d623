"""What a task metric is, the built-in ones by name, and functions of the user's own."""

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gn_deploy.errors import InputError
from gn_deploy.exporters.failure import one_line, place
from gn_deploy.parity.sources.code import code, importable, load
from gn_deploy.parity.task.classes import agreement, intersections_and_unions, mean_iou, top_k
from gn_deploy.parity.task.images import cosine, psnr, ssim
from gn_deploy.reference import F64

Array = NDArray[Any]
Outputs = Array | dict[str, Array]


def mean(means: F64) -> F64:
    """One statistic per sample, and the metric is its mean."""
    first: F64 = means[..., 0]
    return first


@dataclass(frozen=True, slots=True)
class Metric:
    """A number that says how well a model does its task; more is better.

    1. ``score(outputs, wanted)`` gives per-sample statistics, (N,) or (N, K) in float64; ``outputs`` is one array
       (N, ...) or, for ``whole``, what all outputs are. ``wanted`` are the labels, else the reference's own outputs.
    2. ``value`` makes the metric of their means over samples.
    3. ``agree`` tells for which samples two models answer alike, and for which they provably must.
    """

    name: str
    score: Callable[..., F64]
    value: Callable[[F64], F64] = mean
    agree: Callable[[Array, Array], tuple[NDArray[np.bool_], NDArray[np.bool_]]] | None = None
    share: bool = True
    """Of samples or pixels, told in percent."""
    exact: float = 1.0
    """Its value where outputs are what is wanted."""
    whole: bool = False
    ranged: bool = False
    """``score`` also takes ``data_range``."""


METRICS: dict[str, Metric] = {
    "top-1": Metric("top-1", top_k(1), agree=agreement),
    "top-5": Metric("top-5", top_k(5), agree=agreement),
    "iou": Metric("iou", intersections_and_unions, mean_iou),
    "psnr": Metric("psnr", psnr, share=False, exact=float("inf"), ranged=True),
    "ssim": Metric("ssim", ssim, share=False, ranged=True),
    "cosine": Metric("cosine", cosine, share=False),
}
_ALIASES = {"top1": "top-1", "accuracy": "top-1", "acc": "top-1", "top5": "top-5", "miou": "iou", "jaccard": "iou"}
_FORMS = "or MODULE:FUNCTION, FILE.py:FUNCTION"


def find_metric(metric: "str | Metric | Callable[..., Any]") -> Metric:
    """A built-in metric by its name, a function by ``module:function`` or ``file.py:function``, or one given.

    A function takes (outputs, labels) of a batch and returns one score per sample; see ``scored_by``.
    Raises InputError for what is none of these.
    """
    if isinstance(metric, Metric):
        return metric
    if callable(metric):
        return scored_by(metric, getattr(metric, "__name__", "metric"))
    name = metric.strip()
    known = _ALIASES.get(name.lower(), name.lower())
    if known in METRICS:
        return METRICS[known]
    if ":" not in name:
        near = difflib.get_close_matches(known, METRICS, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"one of {', '.join(METRICS)}, {_FORMS}"
        raise InputError(f"unknown metric '{metric}'", hint)
    at = code(name)
    if at is None:
        raise InputError(f"'{metric}' names no function", f"a metric is {', '.join(METRICS)}, {_FORMS}")
    with importable(at.folder):
        found = load(at, at.name, "it takes (outputs, labels) of a batch and returns one score per sample")
    if not callable(found):
        raise InputError(f"'{at.source}' has no function '{at.name}'", f"a metric is {', '.join(METRICS)}, {_FORMS}")

    def with_its_folder(outputs: Any, wanted: Any) -> Any:
        with importable(at.folder):  # for what it imports when it is called
            return found(outputs, wanted)

    return scored_by(with_its_folder, at.name)


def scored_by(function: Callable[..., Any], name: str) -> Metric:
    """``function(outputs, labels)`` as a metric: one score per sample, of which the mean is compared.

    ``outputs`` is the array of a model with one output, else a dict by output name. Where it returns one number for a
    batch of several samples it is asked again for each sample alone, for one number cannot be resampled.
    """

    def ask(outputs: Any, wanted: Any) -> Array:
        try:
            return np.asarray(function(outputs, wanted), np.float64)
        except Exception as error:  # whatever the user's code raises
            raise InputError(f"metric {name}() raised {one_line(error)}", _at(error)) from error

    def score(outputs: Any, wanted: Any) -> F64:
        samples = len(next(iter(outputs.values())) if isinstance(outputs, Mapping) else outputs)
        scores = ask(outputs, wanted)
        if scores.ndim == 0:
            each = (ask(_sample(outputs, i), _sample(wanted, i)) for i in range(samples)) if samples > 1 else [scores]
            scores = _stacked(each, name)
        if scores.shape != (samples,):
            raise InputError(
                f"metric {name}() returned shape {scores.shape} for {samples} samples",
                f"return one score per sample, shape ({samples},)",
            )
        return scores

    return Metric(name, score, share=False, whole=True)


def _stacked(each: Iterable[Array], name: str) -> Array:
    scores = list(each)
    if any(s.size != 1 for s in scores):
        raise InputError(f"metric {name}() returned more than one number for one sample", "return one score per sample")
    return np.array([s.item() for s in scores])


def _sample(values: Any, i: int) -> Any:
    return {k: v[i : i + 1] for k, v in values.items()} if isinstance(values, Mapping) else values[i : i + 1]


def _at(error: BaseException) -> str:
    where = place(error)
    return f"at {where}" if where else "it is given (outputs, labels) of a batch"
