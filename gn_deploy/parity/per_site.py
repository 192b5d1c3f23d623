"""One GroupNorm on one runtime, judged on arrays that went in and came out."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gn_deploy.errors import InputError
from gn_deploy.parity.drawing import Drawing, draw
from gn_deploy.parity.metrics import by_slot, classify, measure
from gn_deploy.parity.operands import for_oracle
from gn_deploy.parity.pairing import Pair
from gn_deploy.parity.report import Metrics, SiteVerdict
from gn_deploy.parity.status import Status, worst
from gn_deploy.parity.tolerance import FORMATS, Bounds, bounds
from gn_deploy.spec import HALF_DTYPES, GroupNormSpec

if TYPE_CHECKING:
    from gn_deploy.forms.base import Parameter

Array = NDArray[Any]
_POINTWISE = frozenset(("Add", "Sub", "Mul", "Div"))


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one case says about one site."""

    case: str
    status: Status
    metrics: Metrics | None = None
    reason: str = ""
    drawing: Drawing | None = None
    """Of the gravest evidence only: see ``gather``."""


@dataclass(frozen=True, slots=True)
class Override:
    """The user's own tolerance instead of the derived bound: |actual - reference| <= atol + rtol |reference|."""

    atol: float = 0.0
    rtol: float = 0.0

    def __post_init__(self) -> None:
        for name, value in (("atol", self.atol), ("rtol", self.rtol)):
            if not 0 <= value < math.inf:  # with NaN or infinity anything would pass
                raise InputError(f"{name}={value:g} is not a tolerance", "a number of 0 or more, for example 1e-5")

    def replace(self, limits: Bounds) -> Bounds:
        allowed = np.maximum(self.atol + self.rtol * np.abs(limits.reference), np.finfo(np.float64).tiny)
        return Bounds(limits.reference, allowed, allowed)

    def __str__(self) -> str:
        return f"judged by atol={self.atol:g} rtol={self.rtol:g}, as asked"


def judge_arrays(
    x: Array,
    y: Array,
    spec: GroupNormSpec,
    scale: Array | None = None,
    bias: Array | None = None,
    *,
    case: str,
    hand: Sequence[str] | None = None,
    precision: str = "",
    stores: int = 0,
    tapped: bool = False,
    override: Override | None = None,
    operands: Mapping[str, Array] | None = None,
) -> list[Evidence]:
    """``y`` as the spec's answer to ``x`` and ``operands``, which are named as a site's.

    One piece of evidence, or one per family of ``hand`` (the slots' families). ``precision`` is what the runtime
    computes in when that is lower than y's dtype: then x and parameters, which it rounded on arrival, are rounded to
    it. ``tapped`` tells that x is a copy out of a running network: in low precision the kernel may have read the number
    before it was rounded (ONNX Runtime drops pairs of casts). Only the gravest piece is drawn.
    """
    if y.ndim == spec.rank != x.ndim and y.size == x.size:  # a flattened site
        y = y.reshape(x.shape)
    if x.shape != y.shape:
        return [Evidence(case, Status.FAIL, None, f"the output has shape {y.shape}, the input {x.shape}")]
    dtype = coarser(y.dtype.name, precision or y.dtype.name)
    if coarser(x.dtype.name, dtype) != x.dtype.name:  # rounded on arrival, or by a Cast that stands before the norm
        x = x.astype(dtype)
    held = spec.stash_dtype if spec.wide_affine else dtype
    scale, bias = (None if p is None else np.asarray(p).astype(held) for p in (scale, bias))
    around = for_oracle({name: a.astype(x.dtype) for name, a in (operands or {}).items()}, x, spec.channel_axis)
    arithmetic = coarser(spec.stash_dtype, "float64" if dtype == "float64" else "float32")
    unrounded = x.dtype.name if tapped and x.dtype.name in HALF_DTYPES else None
    limits = bounds(
        x, spec, scale, bias, dtype=dtype, arithmetic=arithmetic, stores=stores, input_dtype=unrounded, **around
    )
    if override is not None:
        limits = override.replace(limits)
    inputs, answers, *limit = (by_slot(a, spec) for a in (x, y, limits.reference, limits.two_pass, limits.one_pass))
    if hand is None:
        drawing = draw(inputs, answers, Bounds(*limit), dtype, range(len(inputs)), spec.num_groups)
        return [replace(_evidence(case, y, limits, dtype, spec), drawing=drawing)]
    slot = GroupNormSpec(1, inputs.shape[1])
    at = {name: [i for i, held in enumerate(hand) if held == name] for name in hand}
    own = {name: Bounds(*(array[rows] for array in limit)) for name, rows in at.items()}
    found = {name: _evidence(f"{case} {name}", answers[at[name]], own[name], dtype, slot) for name in at}
    name = max(found, key=lambda name: _gravity(found[name]))
    drawing = draw(inputs[at[name]], answers[at[name]], own[name], dtype, at[name], spec.num_groups)
    found[name] = replace(found[name], drawing=drawing)
    return list(found.values())


def gather(held: list[Evidence], more: Sequence[Evidence]) -> None:
    """Add ``more`` to ``held``, of which only the gravest stays drawn: however many cases come, one drawing is kept."""
    held.extend(more)
    drawn = [i for i, e in enumerate(held) if e.drawing is not None]
    gravest = max(drawn, key=lambda i: _gravity(held[i]), default=None)
    for i in drawn:
        if i != gravest:
            held[i] = replace(held[i], drawing=None)


def _gravity(evidence: Evidence) -> tuple[int, float]:
    size = evidence.metrics.error_over_bound if evidence.metrics else math.inf
    return list(Status).index(evidence.status), size


def verdict(pair: Pair, runtime: str, evidence: Sequence[Evidence], override: Override | None = None) -> SiteVerdict:
    """The worst of all evidence, with the reasons of everything that was left out."""
    site, spec = pair.site, pair.site.spec
    status = worst(e.status for e in evidence)
    told = [e for e in evidence if e.status is status]
    chief = max(told, key=lambda e: e.metrics.error_over_bound if e.metrics else math.inf, default=None)
    reasons = dict.fromkeys(
        [chief.reason if chief else "nothing to judge it on"]
        + [f"{e.case} not run: {e.reason}" for e in evidence if e.status is Status.NOTRUN and e is not chief]
        + ["its nodes are not recognised as a GroupNorm"] * (status.broken and not pair.form)
        + [pair.differs] * status.broken
        + [str(override)] * (override is not None)
    )
    return SiteVerdict(
        site=site.name,
        runtime=runtime,
        status=status,
        case=chief.case if chief else "",
        metrics=chief.metrics if chief else None,
        reason="; ".join(r for r in reasons if r),
        form=pair.form,
        num_groups=spec.num_groups,
        num_channels=spec.num_channels,
        epsilon=spec.epsilon,
        dtype=spec.dtype,
        module=site.module,
        source=site.source,
        cases={e.case: e.metrics.error_over_bound for e in evidence if e.metrics},
        histogram=chief.drawing.histogram if chief and chief.drawing else (),
        group=chief.drawing.group if chief and chief.drawing else None,
    )


def channels(parameter: "Parameter | None", spec: GroupNormSpec, value: Array | None = None) -> Array | None:
    """(C,) numbers of a parameter: its own array, else the ``value`` it had at run time; None when it is absent."""
    if parameter is None:
        return None
    array = parameter.array if parameter.array is not None else value
    assert array is not None, "a parameter only known at run time needs its value"
    flat = np.asarray(array).reshape(-1)
    return np.repeat(flat, spec.channels_per_group) if parameter.array is None and parameter.per_group else flat


def is_dynamic(parameter: "Parameter | None") -> bool:
    return parameter is not None and parameter.array is None


def low_precision_stores(pair: Pair, dtype: str) -> int:
    """k of the bound: tensors the candidate stores in low precision between normalization and output.

    The ONNX function body of GroupNormalization, and any spelling with Mul and Add after it, stores two.
    """
    if dtype not in HALF_DTYPES:
        return 0
    pointwise = sum(node.op_type in _POINTWISE for node in pair.region)
    return min(max(2, pointwise - 1), 4)  # 4: subtraction, division, product, sum; the rest is about statistics


def coarser(*dtypes: str) -> str:
    """The one with the fewest bits of precision; words that are no floating-point type are passed over."""
    return max((d for d in dtypes if d in FORMATS), key=lambda dtype: FORMATS[dtype].u)


def _evidence(case: str, y: Array, limits: Bounds, dtype: str, spec: GroupNormSpec) -> Evidence:
    status = classify(y, limits, dtype=dtype)
    metrics = measure(y, limits.reference, limits.two_pass, dtype=dtype, spec=spec)
    return Evidence(case, status, metrics, _REASONS.get(status, ""))


_REASONS = {
    Status.UNSTABLE: "outside the bound but inside that of a one-pass variance E[x^2] - E[x]^2: unsafe arithmetic",
    Status.FAIL: "does not compute this GroupNorm",
    Status.NAN: "NaN or Inf where the reference has a number, or the other way round",
}
