"""Mean and variance in elementary ops: the patterns that read them, and what they must divide by."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import onnx_ir as ir

from gn_deploy.decision import Accepted, Decision, Rejected
from gn_deploy.forms.base import Applied, GroupNormSite, NearMiss, complete, dtype_name, named
from gn_deploy.forms.base_layout import SPREADING, Layout
from gn_deploy.graph.dims import product
from gn_deploy.graph.facts import Facts
from gn_deploy.graph.match import Any, Either, Match, Op, Pattern, Refused, Scalar, Through, match
from gn_deploy.graph.passing import NO_OPS, VIEW_OPS, handed_on
from gn_deploy.views import GroupView, group_views, sources

_ONE_PASS_NOTE = "the variance is taken in one pass, E[x^2] - E[x]^2: unsafe for a large mean; rewriting improves it"
_ROUNDED_NOTE = "mean or deviation is rounded to the type of the input before it is applied; rewriting improves it"
_SHAPED = " ".join(sorted(VIEW_OPS | NO_OPS))
SPREAD_OPS = VIEW_OPS | NO_OPS | set(SPREADING.split())
_SPREAD = " ".join(sorted(SPREAD_OPS))  # what exporters put around a mean or a variance; base_layout proves it harmless


def viewed(inner: Pattern) -> Through:
    """The elements of ``inner`` in another shape or a wider type."""
    return Through(_SHAPED, inner, handed_on)


def spread(inner: Pattern) -> Through:
    """A statistic in another shape, repeated for channels or elements, or in another type."""
    return Through(_SPREAD, inner, _repeated)


def _repeated(node: ir.Node, facts: Facts) -> ir.Value | None:
    return node.inputs[0] if node.op_type in SPREADING.split() else handed_on(node, facts)


def behind(value: ir.Value) -> ir.Node | None:
    """The node that computes a value, apart from its shape and type and how often it is repeated."""
    node = value.producer()
    while node is not None and node.op_type in SPREAD_OPS and node.inputs and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    return node


def _past_number(node: ir.Node, facts: Facts) -> ir.Value | None:
    """What a Mul or Div by one number applies it to; of any other op, the input."""
    a, b = [*node.inputs, None][:2]
    if node.op_type not in ("Mul", "Div") or a is None or b is None:
        return _repeated(node, facts)
    if facts.shape(b) == () or facts.scalar(b) is not None:
        return a
    return b if node.op_type == "Mul" and (facts.shape(a) == () or facts.scalar(a) is not None) else None


def _from_zero(node: ir.Node, facts: Facts) -> Decision:
    """A Clip that only keeps a variance from being negative."""
    low, high = [*node.inputs[1:], None, None][:2]
    least = node.attributes.get_float("min", -np.inf) if low is None else facts.scalar(low)
    most = node.attributes.get_float("max", np.inf) if high is None else facts.scalar(high)
    harmless = least == 0 and most is not None and most >= np.finfo(np.float32).max
    return Accepted() if harmless else Rejected(f"Clip '{node.name}' does more than keep the variance from below 0")


def _square(of: Pattern) -> Pattern:
    return Either((Op("Mul", (of, of)), Op("Pow", (of, Scalar(2.0)))))


class Mean:
    """A mean over some axes: ReduceMean, or ReduceSum divided by the number of elements or times its inverse.

    With ``squared`` it is the mean of the squares of ``of``.
    """

    def __init__(self, of: Pattern, *, squared: bool = False) -> None:
        of = viewed(of)
        inner = viewed(_square(of)) if squared else of
        self.direct = Op("ReduceMean", (inner,))
        totals = (Op("ReduceSum", (inner,)), *([Op("ReduceSumSquare", (of,))] if squared else []))
        self.total = Either(totals)
        self.count = Any()
        self.inverse = Scalar()
        sums = (Op("Div", (spread(self.total), self.count)), Op("Mul", (spread(self.total), self.inverse)))
        self.pattern = Either((self.direct, *sums))


def _less(view: Pattern, mean: Pattern) -> Pattern:
    """The view less its mean; jax2onnx puts 0 where least and greatest of a group are equal, which it is there."""
    difference = Op("Sub", (view, mean))
    constant = Op("Equal", (Op("ReduceMin", (view,)), Op("ReduceMax", (view,))))
    guard = Either((constant, Op("And", (constant, Any()))))
    return Either((difference, Op("Where", (guard, Scalar(0.0), difference))))


VIEW = Any()
_MEAN = Mean(VIEW)
MEAN = spread(_MEAN.pattern)
CENTERED = viewed(_less(viewed(VIEW), MEAN))
_OWN = Mean(VIEW)  # a variance may take the mean again, and spell it in another way
_OF_SQUARE = Mean(_less(viewed(VIEW), spread(_OWN.pattern)), squared=True)
_RAW = Mean(VIEW, squared=True)
_ONE_PASS = Op("Sub", (spread(_RAW.pattern), spread(_square(spread(_OWN.pattern)))))
_EITHER_PASS = Either((_OF_SQUARE.pattern, _ONE_PASS))
_GUARDS = (
    Op("Max", (_EITHER_PASS, Scalar(0.0))),
    Op("Clip", (_EITHER_PASS,), _from_zero),
    Op("Relu", (_EITHER_PASS,)),
    Op("Abs", (_EITHER_PASS,)),
)
_MOMENT = Either((_EITHER_PASS, *_GUARDS))
_CORRECTED = Through(f"{_SPREAD} Mul Div", _MOMENT, _past_number)
VARIANCE = spread(_CORRECTED)
EPSILON = Scalar()
_FLOORED = "epsilon is a lower bound, max(variance, epsilon), where variance + epsilon was needed"
_OUTSIDE = "epsilon is added outside the root, to the standard deviation"
_SHIFTED = Either((Op("Add", (VARIANCE, EPSILON)), Refused(Op("Max Clip", (VARIANCE, EPSILON)), _FLOORED)))
_ROOT = Either((Op("Sqrt", (spread(_SHIFTED),)), Op("Pow", (spread(_SHIFTED), Scalar(0.5)))))
_BARE = spread(Op("Sqrt", (VARIANCE,)))
STD = spread(Either((_ROOT, Refused(Op("Add", (_BARE, EPSILON)), _OUTSIDE))))
_GROUPED = Op("Reshape", (Any(), Any()))  # an RMS norm of the last axis alone is nothing like a GroupNorm
RMS = spread(Op("Sqrt", (Op("Add", (spread(Mean(_GROUPED, squared=True).pattern), Scalar())),)))
INVERSE_RMS = spread(Either((Op("Reciprocal", (RMS,)), Op("Div", (Scalar(1.0), RMS)))))
RSTD = spread(
    Either((
        Op("Reciprocal", (STD,)),
        Op("Div", (Scalar(1.0), STD)),
        Op("Pow", (spread(_SHIFTED), Scalar(-0.5))),
    ))
)


def read_statistics(
    form: str,
    pattern: Pattern,
    node: ir.Node,
    facts: Facts,
    *,
    telling: int,
    scale: Pattern | None = None,
    bias: Pattern | None = None,
) -> GroupNormSite | NearMiss | None:
    """The site whose result, or normalized value, ``node`` computes as ``pattern`` says.

    ``scale`` and ``bias`` are the parts of the pattern that hold them, when it applies any. A miss is worth a word from
    ``telling`` matched nodes on.
    """
    found = match(pattern, node.outputs[0], facts)
    name = named(node)
    if not isinstance(found, Match):
        return NearMiss(name, form, found.reason, found.progress) if found.progress >= telling else None
    proved = averaged(found, facts)
    mean = found.get(_MEAN.direct) or found[_MEAN.total]
    reduction = mean.producer()
    assert reduction is not None
    operand, epsilon = reduction.inputs[0], facts.scalar(found[EPSILON])
    axes = facts.axes(reduction)
    if not proved or operand is None or epsilon is None or axes is None:
        reason = proved.reason or f"the axes of {reduction.op_type} '{reduction.name}' are not known"
        return NearMiss(name, form, reason, len(found.nodes))
    held = tuple(None if part is None else found.get(part) for part in (scale, bias))
    notes = [_ONE_PASS_NOTE] if found.get(_ONE_PASS) is not None else []

    def applied(view: GroupView) -> Applied | Rejected:
        layout = Layout(found[VIEW], view, found.nodes, facts, held)
        decision = layout.proves(node.outputs[0])
        if not decision:
            return Rejected(decision.reason)
        if layout.rounded and _ROUNDED_NOTE not in notes:
            notes.append(_ROUNDED_NOTE)
        told = [None if value is None else layout.applied.get(value) for value in held]
        return told[0], told[1]

    views = group_views(operand, axes, facts)
    if not isinstance(views, Rejected):  # the mean may be taken of another shape of x than what is normalized
        seen = [source for source, _ in sources(found[VIEW], facts)]
        views = [v for v in views if v.source in seen] or Rejected(f"'{operand.name}' is not all that is normalized")
    site = complete(
        form,
        node,
        views,
        facts,
        epsilon=epsilon,
        stash=dtype_name(facts.dtype(operand)),
        nodes=found.nodes,
        applied=applied,
        progress=len(found.nodes),
    )
    return replace(site, notes=tuple(notes)) if isinstance(site, GroupNormSite) else site


def averaged(found: Match, facts: Facts) -> Decision:
    """Whether mean and variance are taken as they should be, apart from what over."""
    return _averages(found, facts) and _uncorrected(found, facts)


def _averages(found: Match, facts: Facts) -> Decision:
    """Whether every sum was divided by the number of elements summed."""
    for mean in (_MEAN, _OWN, _OF_SQUARE, _RAW):
        total = found.get(mean.total)
        reduction = None if total is None else total.producer()
        if reduction is None or reduction.inputs[0] is None:
            continue
        axes, shape = facts.axes(reduction), facts.shape(reduction.inputs[0])
        count, inverse = found.get(mean.count), found.get(mean.inverse)
        if axes is None or shape is None:
            return Rejected(f"the axes of {reduction.op_type} '{reduction.name}' are not known")
        elements = product(shape[i] for i in axes)
        by = count or inverse
        assert by is not None
        number = facts.scalar(by)
        if inverse is not None:
            exact = 1 / (elements.known or np.nan)
            right = number in (exact, float(np.float32(exact)))
        elif number is not None and number + 1 == elements.known:
            return Rejected(f"the variance is unbiased: a sum of {elements} squares is divided by {number:g}")
        else:
            right = number == elements.known if number is not None else facts.contents(by) == (elements,)
        if not right:
            return Rejected(f"a sum is divided by '{by.name}', which is not provably the number of elements summed")
    return Accepted()


def _uncorrected(found: Match, facts: Facts) -> Decision:
    """Whether the numbers that the variance is multiplied and divided by cancel exactly."""
    factor = Fraction(1)
    above: list[ir.Value] = []
    below: list[ir.Value] = []
    value, stop = found[_CORRECTED], found[_MOMENT]
    while value is not stop and (node := value.producer()) is not None:
        inner = _past_number(node, facts)
        assert inner is not None
        if node.op_type in ("Mul", "Div"):
            by = next(v for v in node.inputs if v is not None and v is not inner)
            number = facts.scalar(by)
            if number is None:
                (above if node.op_type == "Mul" else below).append(by)
            elif number:
                factor *= Fraction(number) if node.op_type == "Mul" else 1 / Fraction(number)
        value = inner
    for by in list(above):
        twin = next((v for v in below if facts.same(by, v)), None)
        if twin is not None:
            above.remove(by)
            below.remove(twin)
    if above or below:
        names = " and ".join(f"'{v.name}'" for v in (*above, *below))
        return Rejected(f"the variance is multiplied or divided by {names}: it may be unbiased")
    if factor != 1:
        return Rejected(f"the variance is multiplied by {factor}: it is unbiased, or scaled")
    return Accepted()
