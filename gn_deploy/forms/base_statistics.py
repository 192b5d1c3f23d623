"""Mean and variance in elementary ops: the patterns that read them, and the nodes that write them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from gn_deploy.affine import per_channel
from gn_deploy.decision import Accepted, Decision, Rejected
from gn_deploy.forms.base import (
    DTYPES,
    Applied,
    GroupNormSite,
    NearMiss,
    Parameter,
    complete,
    dtype_name,
    known_rank,
)
from gn_deploy.graph.dims import Dim, product
from gn_deploy.graph.facts import Facts
from gn_deploy.graph.match import Any, Either, Match, Op, Pattern, Scalar, Through, match
from gn_deploy.graph.splice import Builder
from gn_deploy.spec import GroupNormSpec
from gn_deploy.views import GroupView, group_views, narrows

_ONE_PASS_NOTE = "the variance is taken in one pass, E[x^2] - E[x]^2: unsafe for a large mean; rewriting improves it"
_SHAPED = "Reshape Expand Unsqueeze Squeeze Cast Identity"  # what exporters put around a mean or a variance


def _keeps(node: ir.Node, facts: Facts) -> Decision:
    rounds = node.op_type == "Cast" and narrows(node, facts)
    return Rejected(f"'{node.outputs[0].name}' is rounded by a Cast") if rounds else Accepted()


def _shaped(inner: Pattern) -> Through:
    return Through(_SHAPED, inner, _keeps)


class Mean:
    """A mean over some axes, as ReduceMean or as ReduceSum divided by the number of elements."""

    def __init__(self, of: Pattern) -> None:
        self.direct = Op("ReduceMean", (of,))
        self.total = Op("ReduceSum", (of,))
        self.count = Any()
        self.pattern = Either((self.direct, Op("Div", (_shaped(self.total), self.count))))


def _square(of: Pattern) -> Pattern:
    return Either((Op("Mul", (of, of)), Op("Pow", (of, Scalar(2.0)))))


VIEW = Any()
_MEAN = Mean(VIEW)
MEAN = _shaped(_MEAN.pattern)
CENTERED = Op("Sub", (VIEW, MEAN))
_OWN = Mean(VIEW)  # a variance may take the mean again, and spell it in another way
_OWN_MEAN = _shaped(_OWN.pattern)
_OF_SQUARE = Mean(_square(Op("Sub", (VIEW, _OWN_MEAN))))
_RAW = Mean(_square(VIEW))
_ONE_PASS = Op("Sub", (_RAW.pattern, _square(_OWN_MEAN)))
_GUARDED = Either((_ONE_PASS, Op("Max", (_ONE_PASS, Scalar(0.0))), Op("Relu", (_ONE_PASS,))))
VARIANCE = _shaped(Either((_OF_SQUARE.pattern, _GUARDED)))
EPSILON = Scalar()
_SHIFTED = Op("Add", (VARIANCE, EPSILON))
STD = Either((Op("Sqrt", (_SHIFTED,)), Op("Pow", (_SHIFTED, Scalar(0.5)))))
RSTD = Either((Op("Reciprocal", (STD,)), Op("Div", (Scalar(1.0), STD)), Op("Pow", (_SHIFTED, Scalar(-0.5)))))


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
    name = node.name or str(node.outputs[0].name)
    if not isinstance(found, Match):
        return NearMiss(name, form, found.reason, found.progress) if found.progress >= telling else None
    axes, shape, epsilon = _reduced_axes(found, facts), facts.shape(found[VIEW]), facts.scalar(found[EPSILON])
    if isinstance(axes, Rejected) or shape is None or epsilon is None:
        reason = axes.reason if isinstance(axes, Rejected) else "the shape or epsilon is not known"
        return NearMiss(name, form, reason, len(found.nodes))

    def applied(view: GroupView) -> Applied | Rejected:
        held: list[Parameter | None] = []
        for part in (scale, bias):
            operand = None if part is None else found.get(part)
            told = None if operand is None else per_channel(operand, shape, view, facts)
            if operand is not None and told is None:
                return Rejected(f"'{operand.name}' is not one number per channel")
            held.append(told)
        return held[0], held[1]

    return complete(
        form,
        node,
        group_views(found[VIEW], axes, facts),
        facts,
        epsilon=epsilon,
        stash=dtype_name(facts.dtype(found[VIEW])),
        nodes=found.nodes,
        applied=applied,
        notes=(_ONE_PASS_NOTE,) if found.get(_ONE_PASS) is not None else (),
        progress=len(found.nodes),
    )


def _reduced_axes(found: Match, facts: Facts) -> tuple[int, ...] | Rejected:
    """The axes that mean and variance are both taken over, in the view's numbering."""
    view = facts.shape(found[VIEW])
    if view is None:
        return Rejected(f"the shape of '{found[VIEW].name}' is not known")
    taken: set[tuple[int, ...]] = set()
    for mean in (_MEAN, _OWN, _OF_SQUARE, _RAW):
        value = found.get(mean.direct) or found.get(mean.total)
        node = None if value is None else value.producer()
        if node is None:
            continue
        axes = facts.axes(node)
        if axes is None:
            return Rejected(f"the axes of {node.op_type} '{node.name}' are not known")
        count = found.get(mean.count) if found.get(mean.total) is not None else None
        if count is not None and not _counts(count, product(view[i] for i in axes), facts):
            return Rejected(f"a sum is divided by '{count.name}', which is not provably the number of elements summed")
        taken.add(axes)
    if len(taken) != 1:
        return Rejected("mean and variance are not provably taken over the same axes")
    axes = taken.pop()
    reduced = tuple(Dim(1) if i in axes else d for i, d in enumerate(view))
    for what in (MEAN, _OWN_MEAN, VARIANCE):
        if facts.shape(found[what]) != reduced:
            return Rejected(f"'{found[what].name}' is not provably laid out as one number per group of the view")
    return axes


def _counts(value: ir.Value, elements: Dim, facts: Facts) -> bool:
    """Whether a scalar of the graph is the number of elements."""
    number = facts.scalar(value)
    contents = facts.contents(value)
    return number == elements.known if number is not None else contents == (elements,)


class Statistics(NamedTuple):
    """Values of a graph: the mean and standard deviation of each group, and the view less its mean."""

    mean: ir.Value
    centered: ir.Value
    deviation: ir.Value


def elementary(spec: GroupNormSpec, opset: int) -> Decision:
    """Whether ReduceMean, Sub, Mul, Sqrt, Div hold the spec at an opset, epsilon included."""
    needed = elementary_opset(spec)
    if opset < needed:
        return Rejected(f"elementary ops on {spec.dtype} need opset {needed}, the model has {opset}")
    stored = float(np.asarray(spec.epsilon, DTYPES[spec.stash_dtype].numpy()))
    if stored not in (spec.epsilon, float(np.float32(spec.epsilon))):
        return Rejected(f"epsilon {spec.epsilon:g} does not fit in {spec.stash_dtype}")
    return known_rank(spec)


def elementary_opset(spec: GroupNormSpec) -> int:
    return 13 if "bfloat16" in (spec.dtype, spec.stash_dtype) else 7


def statistics(view: ir.Value, axes: Sequence[int], spec: GroupNormSpec, builder: Builder) -> Statistics:
    """Mean, centred values and standard deviation over ``axes`` of a view in ``spec.stash_dtype``, in two passes."""
    stash = DTYPES[spec.stash_dtype]
    mean = _reduce_mean(view, axes, stash, builder)
    centered = builder.op("Sub", [view, mean], dtype=stash)
    variance = _reduce_mean(builder.op("Mul", [centered, centered], dtype=stash), axes, stash, builder)
    epsilon = builder.constant(np.asarray(spec.epsilon, stash.numpy()), "epsilon", stash)
    shifted = builder.op("Add", [variance, epsilon], dtype=stash)
    return Statistics(mean, centered, builder.op("Sqrt", [shifted], dtype=stash))


def _reduce_mean(value: ir.Value, axes: Sequence[int], dtype: ir.DataType, builder: Builder) -> ir.Value:
    """ReduceMean with keepdims; its axes became an input in opset 18."""
    if builder.opset >= 18:
        return builder.op("ReduceMean", [value, builder.ints(axes, "axes")], {"keepdims": 1}, dtype=dtype)
    return builder.op("ReduceMean", [value], {"axes": list(axes), "keepdims": 1}, dtype=dtype)


def cast(value: ir.Value, now: ir.DataType, wanted: ir.DataType, builder: Builder) -> ir.Value:
    return value if now == wanted else builder.op("Cast", [value], {"to": int(wanted)}, dtype=wanted)
