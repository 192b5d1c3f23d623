"""Group Normalization in elementary ops: ReduceMean, Sub, Mul or Pow, Sqrt, Div; written in two passes."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from gn_deploy.decision import Accepted, Decision, Rejected
from gn_deploy.forms.base import (
    DTYPES,
    GroupNormSite,
    NearMiss,
    apply_affine,
    complete,
    dtype_name,
    enter,
    grouped,
    known_rank,
    leave,
    ungrouped,
)
from gn_deploy.graph.dims import Dim
from gn_deploy.graph.facts import Facts
from gn_deploy.graph.match import Any, Either, Match, Op, Pattern, Scalar, Through, match
from gn_deploy.graph.splice import Builder
from gn_deploy.spec import GroupNormSpec
from gn_deploy.views import group_views, narrows

_ONE_PASS = "the file takes the variance in one pass, E[x^2] - E[x]^2: unsafe for a large mean; rewriting improves it"
_TELLING = 3  # nodes matched from which a miss is worth a word: x - ReduceMean(x), divided or multiplied
_SHAPED = "Reshape Expand Unsqueeze Cast Identity"  # what exporters put around a mean or a variance


def _keeps(node: ir.Node, facts: Facts) -> Decision:
    rounds = node.op_type == "Cast" and narrows(node, facts)
    return Rejected(f"'{node.outputs[0].name}' is rounded by a Cast") if rounds else Accepted()


def _square(of: Pattern) -> Pattern:
    return Either((Op("Mul", (of, of)), Op("Pow", (of, Scalar(2.0)))))


VIEW = Any()
MEAN_NODE = Op("ReduceMean", (VIEW,))
MEAN = Through(_SHAPED, MEAN_NODE, _keeps)
CENTERED = Op("Sub", (VIEW, MEAN))
TWO_PASS = Op("ReduceMean", (_square(CENTERED),))
MEAN_OF_SQUARE = Op("ReduceMean", (_square(VIEW),))
ONE_PASS = Op("Sub", (MEAN_OF_SQUARE, _square(MEAN)))
GUARDED = Either((ONE_PASS, Op("Max", (ONE_PASS, Scalar(0.0))), Op("Relu", (ONE_PASS,))))
VARIANCE = Through(_SHAPED, Either((TWO_PASS, GUARDED)), _keeps)
EPSILON = Scalar()
SHIFTED = Op("Add", (VARIANCE, EPSILON))
STD = Either((Op("Sqrt", (SHIFTED,)), Op("Pow", (SHIFTED, Scalar(0.5)))))
RSTD = Either((Op("Reciprocal", (STD,)), Op("Div", (Scalar(1.0), STD)), Op("Pow", (SHIFTED, Scalar(-0.5)))))
NORMALIZED = Either((Op("Div", (CENTERED, STD)), Op("Mul", (CENTERED, RSTD))))


class Primitives:
    name = "primitives"
    roots: Sequence[str] = ("Div", "Mul")

    def read(self, node: ir.Node, facts: Facts) -> GroupNormSite | NearMiss | None:
        if node.domain or not _starts_centered(node):
            return None
        found = match(NORMALIZED, node.outputs[0], facts)
        name = node.name or str(node.outputs[0].name)
        if not isinstance(found, Match):
            return NearMiss(name, self.name, found.reason, found.progress) if found.progress >= _TELLING else None
        axes = self._axes(found, facts)
        if isinstance(axes, Rejected):
            return NearMiss(name, self.name, axes.reason, len(found.nodes))
        epsilon = facts.scalar(found[EPSILON])
        assert epsilon is not None, "the pattern asks for a constant"
        one_pass = found.get(ONE_PASS) is not None
        return complete(
            self.name,
            node,
            group_views(found[VIEW], axes, facts),
            facts,
            epsilon=epsilon,
            stash=dtype_name(facts.dtype(found[VIEW])),
            nodes=found.nodes,
            notes=(_ONE_PASS,) if one_pass else (),
            progress=len(found.nodes),
        )

    def write(self, site: GroupNormSite, builder: Builder) -> ir.Value:
        spec, x = site.spec, enter(site, builder)
        dtype, stash = DTYPES[spec.dtype], DTYPES[spec.stash_dtype]
        rows = grouped(site, x, builder)
        if stash != dtype:
            rows = builder.op("Cast", [rows], {"to": int(stash)}, dtype=stash)
        centered = builder.op("Sub", [rows, _mean(rows, stash, builder)], dtype=stash)
        squared = builder.op("Mul", [centered, centered], dtype=stash)
        epsilon = builder.constant(np.asarray(spec.epsilon, stash.numpy()), "epsilon", stash)
        shifted = builder.op("Add", [_mean(squared, stash, builder), epsilon], dtype=stash)
        y = builder.op("Div", [centered, builder.op("Sqrt", [shifted], dtype=stash)], dtype=stash)
        if stash != dtype:
            y = builder.op("Cast", [y], {"to": int(dtype)}, dtype=dtype)
        return leave(site, apply_affine(site, ungrouped(site, y, x, builder), builder), builder)

    def legal(self, spec: GroupNormSpec, opset: int) -> Decision:
        needed = self.min_opset(spec)
        if opset < needed:
            return Rejected(f"elementary ops on {spec.dtype} need opset {needed}, the model has {opset}")
        stored = float(np.asarray(spec.epsilon, DTYPES[spec.stash_dtype].numpy()))
        if stored not in (spec.epsilon, float(np.float32(spec.epsilon))):
            return Rejected(f"epsilon {spec.epsilon:g} does not fit in {spec.stash_dtype}")
        return known_rank(spec)

    def min_opset(self, spec: GroupNormSpec) -> int:
        return 13 if "bfloat16" in (spec.dtype, spec.stash_dtype) else 7

    def _axes(self, found: Match, facts: Facts) -> tuple[int, ...] | Rejected:
        """The axes that mean and variance are both taken over, in the view's numbering."""
        second = found.get(TWO_PASS) or found[MEAN_OF_SQUARE]
        reductions = [v.producer() for v in (found[MEAN_NODE], second)]
        axes = {facts.axes(n) for n in reductions if n is not None}
        first = next(iter(axes))
        if len(axes) != 1 or first is None:
            return Rejected("mean and variance are not provably taken over the same axes")
        view = facts.shape(found[VIEW])
        if view is None:
            return Rejected(f"the shape of '{found[VIEW].name}' is not known")
        reduced = tuple(Dim(1) if i in first else d for i, d in enumerate(view))
        for what in (MEAN, VARIANCE):
            if facts.shape(found[what]) != reduced:
                return Rejected(f"'{found[what].name}' is not provably laid out as one number per group of the view")
        return first


def _starts_centered(node: ir.Node) -> bool:
    """A quick look that spares nearly every Mul and Div of a graph the search."""
    if node.inputs[0] is node.inputs[-1]:
        return False  # a square
    values = node.inputs[:1] if node.op_type == "Div" else node.inputs
    producers = (v.producer() for v in values if v is not None)
    return any(p is not None and p.op_type == "Sub" for p in producers)


def _mean(value: ir.Value, dtype: ir.DataType, builder: Builder) -> ir.Value:
    if builder.opset >= 18:
        return builder.op("ReduceMean", [value, builder.ints([2], "axes")], {"keepdims": 1}, dtype=dtype)
    return builder.op("ReduceMean", [value], {"axes": [2], "keepdims": 1}, dtype=dtype)


FORM = Primitives()
