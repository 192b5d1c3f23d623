"""One GroupNorm on one runtime, judged on arrays that went in and came out."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gn_deploy.errors import InputError
from gn_deploy.parity.drawing import Drawing, draw
from gn_deploy.parity.lower_precision import NOTHING, Lower, Suspicion, surest
from gn_deploy.parity.metrics import by_slot, classify, measure
from gn_deploy.parity.operands import for_oracle
from gn_deploy.parity.pairing import Pair
from gn_deploy.parity.promise import Promise
from gn_deploy.parity.region import sums_serially
from gn_deploy.parity.report import Metrics, SiteVerdict
from gn_deploy.parity.signature import ONE_PASS, Signs, signs, together
from gn_deploy.parity.status import Status, worst
from gn_deploy.parity.tolerance import Bounds, bounds
from gn_deploy.rounding import FORMATS, coarser
from gn_deploy.spec import FLOAT_DTYPES, HALF_DTYPES, GroupNormSpec

if TYPE_CHECKING:
    import onnx_ir as ir

    from gn_deploy.forms.base import GroupNormSite, Parameter

Array = NDArray[Any]
KEPT = 1000  # cases of a site that a report tells of; 2000 are held before they are thinned out
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
    note: str = ""
    """What is to be known of it whatever it says."""
    lower: Lower = NOTHING
    """What lower precisions have to do with it, when it is outside the bound."""
    signs: Signs | None = None
    """The faults that explain its whole tensor, with one broken piece of evidence for each tensor."""


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


def judge_pair(
    pair: Pair,
    values: Mapping[str, Array],
    *,
    case: str,
    hand: Sequence[str] | None = None,
    promise: Promise = Promise(),  # noqa: B008 -- immutable
    tapped: bool = False,
    override: Override | None = None,
) -> list[Evidence]:
    """A pair on the ``values`` of the candidate's own names; ``judge_arrays`` has the rules.

    A part that is written in half precision is promised in that.
    """
    x, y = values[str(pair.input.name)], values[str(pair.output.name)]
    return judge_arrays(
        x, y, pair.spec, *parameters(pair.site, values),
        case=case, hand=hand, promise=promise.within(pair.half), tapped=tapped, override=override,
        stores=low_precision_stores(pair, pair.half or y.dtype.name),
        serial=sums_serially(pair.region),
        operands={name: _known(value, values) for name, value in pair.operands.items()},
    )  # fmt: skip


def judge_arrays(
    x: Array,
    y: Array,
    spec: GroupNormSpec,
    scale: Array | None = None,
    bias: Array | None = None,
    *,
    case: str,
    hand: Sequence[str] | None = None,
    promise: Promise = Promise(),  # noqa: B008 -- immutable
    stores: int = 0,
    tapped: bool = False,
    serial: bool = False,
    override: Override | None = None,
    operands: Mapping[str, Array] | None = None,
) -> list[Evidence]:
    """``y`` as the spec's answer to ``x`` and ``operands``, which are named as a site's.

    One piece of evidence, or one per family of ``hand`` (the slots' families). The bound is that of y's dtype, or of
    the precision that was asked for when that is lower: then x and parameters, which the runtime rounded on arrival,
    are rounded to it. ``tapped`` tells that x is a copy out of a running network: in low precision the kernel may have
    read the number before it was rounded (ONNX Runtime drops pairs of casts), ``serial`` what ``region`` found out
    about sums. Only the gravest piece is drawn.
    """
    if y.ndim == spec.rank != x.ndim and y.size == x.size:  # a flattened site
        y = y.reshape(x.shape)
    if x.shape != y.shape:
        return [Evidence(case, Status.FAIL, None, f"the output has shape {y.shape}, the input {x.shape}")]
    dtype = coarser(y.dtype.name, promise.asked if promise.asked in FLOAT_DTYPES else "")
    if coarser(x.dtype.name, dtype) != x.dtype.name:  # rounded on arrival, or by a Cast that stands before the norm
        x = x.astype(dtype)
    held = spec.stash_dtype if spec.wide_affine else dtype
    scale, bias = (None if p is None else np.asarray(p).astype(held) for p in (scale, bias))
    around = for_oracle({name: a.astype(x.dtype) for name, a in (operands or {}).items()}, x, spec.channel_axis)
    unrounded = x.dtype.name if tapped and x.dtype.name in HALF_DTYPES else None
    options: dict[str, Any] = {
        "dtype": dtype,
        "arithmetic": coarser(spec.stash_dtype, "float64" if dtype == "float64" else "float32"),
        "stores": stores,
        "input_dtype": unrounded,
        "serial": serial,
    }
    if options["arithmetic"] == "float64":  # ONNX keeps epsilon in an attribute of float32, also in such a model
        options["epsilon_rounding"] = FORMATS["float32"].u
    if promise.asked == "tf32":
        options |= {"arithmetic": "tf32", "input_dtype": "tf32", "parameter_rounding": FORMATS["tf32"].u}
    limits = bounds(x, spec, scale, bias, **options, **around)
    derived = limits
    if override is not None:
        limits = override.replace(derived)
    inputs, answers, *limit = (by_slot(a, spec) for a in (x, y, limits.reference, limits.two_pass, limits.one_pass))
    suspicion = cache(lambda: Suspicion(x, y, spec, scale, bias, limits, around, options))  # costs ten bounds

    def told(evidence: Evidence, rows: Sequence[int] | slice) -> Evidence:
        suspect = override is None and evidence.status in UNSURE
        return replace(evidence, lower=suspicion().of(rows)) if suspect else evidence

    def explained(evidence: Evidence, rows: Sequence[int] | slice = slice(None)) -> Evidence:
        """That what only the user's tolerance refuses is rounding, and not another function."""
        if override is None or evidence.status not in UNSURE:
            return evidence
        all_of_it = (by_slot(a, spec)[rows] for a in (y, derived.reference, derived.two_pass, derived.one_pass))
        answer, *own = all_of_it
        right = classify(answer, Bounds(*own), dtype=dtype) is Status.PASS
        return replace(evidence, reason=_ONLY_ASKED) if right else evidence

    def signed(found: list[Evidence]) -> list[Evidence]:
        at = next((i for i, evidence in enumerate(found) if evidence.status.broken), None)
        if at is not None and found[at].reason != _ONLY_ASKED and x.size <= (SIGNED_TAPPED if hand is None else SIGNED):
            found[at] = replace(found[at], signs=signs(x, y, spec, scale, bias, limits, around))
        return found

    if hand is None:
        drawing = draw(inputs, answers, Bounds(*limit), dtype, range(len(inputs)), spec.num_groups)
        return signed([replace(told(explained(_evidence(case, y, limits, dtype, spec)), slice(None)), drawing=drawing)])
    slot = GroupNormSpec(1, inputs.shape[1])
    at = {name: [i for i, held in enumerate(hand) if held == name] for name in hand}
    own = {name: Bounds(*(array[rows] for array in limit)) for name, rows in at.items()}
    first = {name: _evidence(f"{case} {name}", answers[at[name]], own[name], dtype, slot) for name in at}
    found = {name: told(explained(evidence, at[name]), at[name]) for name, evidence in first.items()}
    name = max(found, key=lambda name: _gravity(found[name]))
    drawing = draw(inputs[at[name]], answers[at[name]], own[name], dtype, at[name], spec.num_groups)
    found[name] = replace(found[name], drawing=drawing)
    return signed(list(found.values()))


PLAIN = "normal"
"""The family on which every precision lower than promised shows."""
SIGNED, SIGNED_TAPPED = 1 << 18, 1 << 16
"""Elements of a probe and of a tapped value up to which faults are tried: sixty GroupNorms in float64, half a second
and, for the many values of a network, a tenth."""
UNSURE = (Status.FAIL, Status.NAN, Status.UNSTABLE)
"""What a lower precision may look like."""


def gather(held: list[Evidence], more: Sequence[Evidence]) -> None:
    """Add ``more`` to ``held``, of which only the gravest stays drawn: however many cases come, one drawing is kept.

    And of very many cases the gravest: a report of a million would be read by nobody.
    """
    held.extend(more)
    if len(held) > 2 * KEPT:
        gravest_first = sorted(range(len(held)), key=lambda i: _gravity(held[i]), reverse=True)
        left_out = set(gravest_first[KEPT:])
        held[:] = [e for i, e in enumerate(held) if i not in left_out or e.status is Status.NOTRUN]
    drawn = [i for i, e in enumerate(held) if e.drawing is not None]
    gravest = max(drawn, key=lambda i: _gravity(held[i]), default=None)
    for i in drawn:
        if i != gravest:
            held[i] = replace(held[i], drawing=None)


def _gravity(evidence: Evidence) -> tuple[int, float]:
    size = evidence.metrics.error_over_bound if evidence.metrics else math.inf
    return evidence.status.severity, size


def verdict(
    pair: Pair,
    runtime: str,
    evidence: Sequence[Evidence],
    override: Override | None = None,
    promise: Promise = Promise(),  # noqa: B008 -- immutable
) -> SiteVerdict:
    """The worst of all evidence, with the reasons of everything that was left out."""
    site, spec = pair.site, pair.site.spec
    evidence, precision = settled(evidence, promise)
    status = worst(e.status for e in evidence)
    told = [e for e in evidence if e.status is status]
    chief = max(told, key=lambda e: e.metrics.error_over_bound if e.metrics else math.inf, default=None)
    reasons = dict.fromkeys(
        [chief.reason if chief else "nothing to judge it on"]
        + [f"{e.case} not run: {e.reason}" for e in evidence if e.status is Status.NOTRUN and e is not chief]
        + ["its nodes are not recognised as a GroupNorm"] * (status.broken and not pair.form)
        + [pair.differs] * status.broken
        + [e.note for e in evidence]
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
        precision=precision,
        looks_like=_looks_like(status, precision, evidence),
    )


def _looks_like(status: Status, precision: str, evidence: Sequence[Evidence]) -> str:
    if status is Status.LOWPREC:
        return f"rounding to {precision}" if precision else ""
    if status is Status.UNSTABLE:
        return ONE_PASS
    return together([e.signs for e in evidence if e.signs is not None and e.status.broken])


def channels(parameter: "Parameter | None", spec: GroupNormSpec, value: Array | None = None) -> Array | None:
    """(C,) numbers of a parameter: its own array, else the ``value`` it had at run time; None when it is absent."""
    if parameter is None:
        return None
    array = parameter.array if parameter.array is not None else value
    assert array is not None, "a parameter only known at run time needs its value"
    flat = np.asarray(array).reshape(-1)
    return np.repeat(flat, spec.channels_per_group) if parameter.array is None and parameter.per_group else flat


def parameters(site: "GroupNormSite", values: Mapping[str, Array]) -> tuple[Array | None, Array | None]:
    """Scale and bias as (C,) numbers; those only known at run time are among ``values``."""
    scale, bias = (channels(p, site.spec, values.get(name_of(p)) if p else None) for p in (site.scale, site.bias))
    return scale, bias


def name_of(parameter: "Parameter | None") -> str:
    """Of the value it is at run time; "" when it has none."""
    return "" if parameter is None or parameter.value is None else str(parameter.value.name)


def _known(value: "ir.Value", values: Mapping[str, Array]) -> Array:
    name = str(value.name)
    return values[name] if name in values or value.const_value is None else value.const_value.numpy()


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


def settled(evidence: Sequence[Evidence], promise: Promise) -> tuple[list[Evidence], str]:
    """LOWPREC instead of FAIL, NAN and UNSTABLE where one lower precision, also returned, explains all of it and shows
    somewhere.

    It shows where the runtime admits it, or by its marks in the numbers. All must be explained: a wrong epsilon is
    inside the bound of bfloat16 on a usual image, but not on the family of variances as small as epsilon. Whoever is
    right on plain normal numbers computes in what was promised, whatever happens on others. And where one-pass
    arithmetic in the promised precision explains everything, no other precision is needed for an explanation.
    """
    unsure = [e for e in evidence if e.status in UNSURE]
    if any(e.status is Status.PASS and e.case.split(" ")[-1] == PLAIN for e in evidence):
        return list(evidence), ""
    promised = promise.precision
    one_pass = all(e.status is Status.UNSTABLE for e in unsure)
    shown = None if one_pass else surest([e.lower for e in unsure], promised)
    if unsure and all(promise.admitted in e.lower.explains for e in unsure):
        lower = promise.admitted
        told = f"the runtime says that it computes in {promise.admitted}, {promised} was promised"
    elif shown:
        lower = shown.precision
        told = f"the right function in {lower}, {promised} was promised: {shown.words}"
    else:
        return list(evidence), ""
    return [replace(e, status=Status.LOWPREC, reason=told) if e.status in UNSURE else e for e in evidence], lower


def _evidence(case: str, y: Array, limits: Bounds, dtype: str, spec: GroupNormSpec) -> Evidence:
    status = classify(y, limits, dtype=dtype)
    judged = np.isfinite(limits.reference) & np.isfinite(limits.two_pass)
    if status is Status.PASS and not judged.any():
        empty = not np.isfinite(limits.reference).any()
        return Evidence(case, Status.NOTRUN, reason="it holds no number" if empty else "it overflows the arithmetic")
    metrics = measure(y, limits.reference, limits.two_pass, dtype=dtype, spec=spec)
    return Evidence(case, status, metrics, _REASONS.get(status, ""))


_ONLY_ASKED = "inside the derived bound, which rounding needs on these inputs, and outside the tolerance"
_REASONS = {
    Status.UNSTABLE: "outside the bound but inside that of a one-pass variance E[x^2] - E[x]^2: unsafe arithmetic",
    Status.FAIL: "does not compute this GroupNorm",
    Status.NAN: "NaN or Inf where the reference has a number, or the other way round",
}
