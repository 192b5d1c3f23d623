"""The task metric: accuracy and agreement of top-1 classes, with a confidence bound and a certificate."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gn_deploy.errors import InputError
from gn_deploy.parity.proportion import clopper_pearson_lower
from gn_deploy.parity.report import TaskVerdict


def judge_task(
    runtime: str, reference: NDArray[Any], actual: NDArray[Any], labels: NDArray[Any] | None = None
) -> TaskVerdict:
    """Logits (N, classes) of a runtime against the reference's; labels (N,) integers, when there are any.

    Without labels both values are NaN and the metric is "agreement". A sample is certified when its top-1 margin in
    the reference is more than twice the largest difference of its logits: then no class can have overtaken.
    """
    if reference.ndim != 2 or reference.shape != actual.shape:
        raise InputError(f"logits {actual.shape} against {reference.shape}", "needed: two arrays (samples, classes)")
    if labels is not None and labels.shape != reference.shape[:1]:
        raise InputError(f"labels have shape {labels.shape}, needed {reference.shape[:1]}")
    want, got = reference.astype(np.float64), actual.astype(np.float64)
    top, top_got = want.argmax(1), got.argmax(1)
    same = (top == top_got) & np.isfinite(got).all(1)
    best = np.sort(want, axis=1)
    margin = best[:, -1] - best[:, -2] if want.shape[1] > 1 else np.full(len(want), np.inf)
    with np.errstate(invalid="ignore"):
        certified = margin > 2 * np.abs(got - want).max(1)  # NaN certifies nothing
    samples, agreed = len(want), int(same.sum())
    return TaskVerdict(
        runtime=runtime,
        metric="agreement" if labels is None else "accuracy",
        reference_value=float("nan") if labels is None else float((top == labels).mean()),
        value=float("nan") if labels is None else float(((top_got == labels) & np.isfinite(got).all(1)).mean()),
        agreement=agreed / samples if samples else float("nan"),
        samples=samples,
        agreement_lower=clopper_pearson_lower(agreed, samples),
        certified=int(certified.sum()),
    )
