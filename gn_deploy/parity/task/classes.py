"""Metrics of classes: top-1 and top-5 with margin certificates, intersection over union of segmentations."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gn_deploy.errors import InputError
from gn_deploy.reference import F64

Array = NDArray[Any]
Bools = NDArray[np.bool_]
CLASSES = 1 << 12  # labels of a segmentation above this are not class numbers


def top_k(k: int) -> Callable[[Array, Array], F64]:
    """1 where the wanted class is among the k largest logits, else 0; NaN and infinity are never right."""

    def score(got: Array, wanted: Array) -> F64:
        label = classes(wanted, "labels")
        if _whole(got) and k == 1:
            return np.asarray(classes(got, "output") == label, np.float64)
        logits = _logits(got)
        inside = (label >= 0) & (label < logits.shape[1])
        own = np.take_along_axis(logits, np.where(inside, label, 0)[:, None], 1)
        earlier = np.arange(logits.shape[1]) < label[:, None]
        with np.errstate(invalid="ignore"):
            rank = (logits > own).sum(1) + ((logits == own) & earlier).sum(1)  # argmax takes the first of equals
        right: F64 = (inside & (rank < k) & np.isfinite(logits).all(1)).astype(np.float64)
        return right

    return score


def agreement(reference: Array, actual: Array) -> tuple[Bools, Bools]:
    """Per sample: whether the top-1 class is the same, and whether it provably has to be.

    It has to be when the reference's margin, largest minus second largest logit, is more than twice the largest
    difference of any logit: then no class can have overtaken.
    """
    if _whole(actual):
        return classes(actual, "output") == classes(reference, "output"), np.zeros(len(actual), bool)
    want, got = _logits(reference), _logits(actual)
    same = (want.argmax(1) == got.argmax(1)) & np.isfinite(got).all(1)
    best = np.sort(want, axis=1)
    margin = best[:, -1] - best[:, -2] if want.shape[1] > 1 else np.full(len(want), np.inf)
    with np.errstate(invalid="ignore"):
        certain = margin > 2 * np.abs(got - want).max(1)  # NaN certifies nothing
    return same, certain


def classes(array: Array, what: str) -> NDArray[np.int64]:
    """(N,) class numbers: given, or those of the largest of (N, classes) logits."""
    flat = array.reshape(len(array), -1)
    if flat.shape[1] > 1:
        return np.asarray(flat.argmax(1), np.int64)
    numbers = flat[:, 0]
    if not _whole(numbers) and not np.equal(np.mod(numbers, 1), 0).all():
        raise InputError(f"the {what} are not class numbers", "needed: whole numbers (samples,)")
    return numbers.astype(np.int64)


def intersections_and_unions(got: Array, wanted: Array) -> F64:
    """(N, 2, K): pixels of each class in both and in either, per sample.

    ``got`` is (N, K, ...) logits, (N, 1, ...) logits of the class 1 against 0, or a label map (N, ...); ``wanted`` is a
    label map (N, ...), or logits. What is labelled below 0 or 255 counts nowhere; NaN is no class.
    """
    guess, count = _label_map(got)
    truth = _truth(wanted, guess.shape, logits=wanted.shape == got.shape and not _whole(wanted))
    ignored = (truth < 0) | ((truth == 255) & (count <= 255))  # 255: what Pascal VOC and Cityscapes write for nothing
    largest = int(truth[~ignored].max(initial=0))
    if largest >= (count or CLASSES):
        most = f"the output has {count} classes" if count else f"at most {CLASSES} classes are counted"
        raise InputError(f"a pixel is labelled {largest}, {most}", "below 0 and 255 count nowhere")
    count = count or max(int(guess.max(initial=0)), largest) + 1
    guess, truth = (np.where(ignored, -1, a).reshape(len(a), -1) for a in (guess, truth))
    found = np.zeros((len(guess), 2, count))
    for c in range(count):
        both = ((guess == c) & (truth == c)).sum(1)
        found[:, 0, c], found[:, 1, c] = both, (guess == c).sum(1) + (truth == c).sum(1) - both
    return found


def _truth(wanted: Array, shape: tuple[int, ...], *, logits: bool) -> NDArray[np.int64]:
    if logits:
        return _label_map(wanted)[0]
    if wanted.size != math.prod(shape) or len(wanted) != shape[0]:
        raise InputError(f"labels have shape {wanted.shape}, needed {shape}", "one class number per pixel")
    if not _whole(wanted) and not np.equal(np.mod(wanted, 1), 0).all():
        raise InputError("the labels are not class numbers", "needed: whole numbers, one per pixel")
    return wanted.reshape(shape).astype(np.int64)


def mean_iou(means: F64) -> F64:
    """(..., 2 K) mean pixels in both and in either -> the mean over the classes that occur of both / either."""
    both, either = np.split(means, 2, axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        each = np.where(either > 0, both / either, 0.0)
        value: F64 = each.sum(-1) / (either > 0).sum(-1)
    return value


def _label_map(array: Array) -> tuple[NDArray[np.int64], int]:
    """(N, ...) class numbers and how many classes there are; 0 when the array does not say."""
    if _whole(array):
        return array.astype(np.int64), 0
    if array.ndim < 3:
        raise InputError(f"an array of shape {array.shape} is no segmentation", "needed: (N, K, ...) logits or labels")
    broken = np.isnan(array).any(1)
    if array.shape[1] == 1:
        return np.where(broken, -2, array[:, 0] > 0), 2
    return np.where(broken, -2, array.argmax(1)), array.shape[1]


def _logits(array: Array) -> F64:
    logits = array.reshape(len(array), -1).astype(np.float64)
    if array.ndim < 2 or logits.shape[1] != array.shape[1]:
        raise InputError(f"an output of shape {array.shape} is not logits", "needed: (samples, classes)")
    return logits


def _whole(array: Array) -> bool:
    return array.dtype == bool or np.issubdtype(array.dtype, np.integer)
