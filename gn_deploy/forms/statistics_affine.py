"""One Mul and one Add with parameters folded from the statistics, x * (rstd * scale) + (bias - mean * rstd * scale)."""

from collections.abc import Sequence

import onnx_ir as ir

from gn_deploy.affine import per_channel
from gn_deploy.decision import Decision, Rejected
from gn_deploy.forms.base import (
    DTYPES,
    Applied,
    GroupNormSite,
    NearMiss,
    Parameter,
    complete,
    dtype_name,
    enter,
    leave,
    parameter,
    ungrouped,
)
from gn_deploy.forms.base_statistics import (
    EPSILON,
    MEAN,
    ONE_PASS,
    ONE_PASS_NOTE,
    RSTD,
    VIEW,
    cast,
    elementary,
    elementary_opset,
    reduced_axes,
    statistics,
)
from gn_deploy.graph.facts import Facts
from gn_deploy.graph.match import Any, Either, Match, Op, match
from gn_deploy.graph.splice import Builder
from gn_deploy.spec import GroupNormSpec
from gn_deploy.views import GroupView, group_views

SCALE, BIAS = Any(), Any()
FACTOR = Either((Op("Mul", (RSTD, SCALE)), RSTD))
NEGATED = Either((Op("Mul", (Op("Neg", (MEAN,)), FACTOR)), Op("Neg", (Op("Mul", (MEAN, FACTOR)),))))
OFFSET = Either((Op("Add", (NEGATED, BIAS)), Op("Sub", (BIAS, Op("Mul", (MEAN, FACTOR)))), NEGATED))
SCALED = Op("Mul", (VIEW, FACTOR))
RESULT = Either((Op("Add", (SCALED, OFFSET)), Op("Sub", (SCALED, Op("Mul", (MEAN, FACTOR))))))
_TELLING = 6  # nodes matched from which a miss is worth a word: any residual Add of products gets as far as five


class StatisticsAffine:
    """What Keras writes (tf2onnx): cheap, since x is read once after its statistics are known."""

    name = "statistics_affine"
    roots: Sequence[str] = ("Add", "Sub")

    def read(self, node: ir.Node, facts: Facts) -> GroupNormSite | NearMiss | None:
        if node.domain or not _has_product(node):
            return None
        found = match(RESULT, node.outputs[0], facts)
        name = node.name or str(node.outputs[0].name)
        if not isinstance(found, Match):
            return NearMiss(name, self.name, found.reason, found.progress) if found.progress >= _TELLING else None
        axes = reduced_axes(found, facts)
        if isinstance(axes, Rejected):
            return NearMiss(name, self.name, axes.reason, len(found.nodes))
        epsilon, shape = facts.scalar(found[EPSILON]), facts.shape(found[VIEW])
        assert epsilon is not None, "the pattern asks for a constant"
        assert shape is not None, "reduced_axes asks for the shape"

        def applied(view: GroupView) -> Applied | Rejected:
            held: list[Parameter | None] = []
            for operand in (found.get(SCALE), found.get(BIAS)):
                told = None if operand is None else per_channel(operand, shape, view, facts)
                if operand is not None and told is None:
                    return Rejected(f"'{operand.name}' is not one number per channel")
                held.append(told)
            return held[0], held[1]

        return complete(
            self.name,
            node,
            group_views(found[VIEW], axes, facts),
            facts,
            epsilon=epsilon,
            stash=dtype_name(facts.dtype(found[VIEW])),
            nodes=found.nodes,
            applied=applied,
            notes=(ONE_PASS_NOTE,) if found.get(ONE_PASS) is not None else (),
            progress=len(found.nodes),
        )

    def write(self, site: GroupNormSite, builder: Builder) -> ir.Value:
        spec, x = site.spec, enter(site, builder)
        dtype, stash = DTYPES[spec.dtype], DTYPES[spec.stash_dtype]
        sizes = builder.ints([0, spec.num_groups, spec.channels_per_group, -1], "groups")
        view = cast(builder.op("Reshape", [x, sizes], dtype=dtype), dtype, stash, builder)
        mean, _, deviation = statistics(view, [2, 3], spec, builder)
        factor = builder.op("Reciprocal", [deviation], dtype=stash)
        shape = [spec.num_groups, spec.channels_per_group, 1]
        scale, bias = (parameter(site, which, shape, builder) for which in ("scale", "bias"))
        if scale is not None:
            factor = builder.op("Mul", [factor, cast(scale, dtype, stash, builder)], dtype=stash)
        drift = builder.op("Mul", [mean, factor], dtype=stash)
        y = builder.op("Mul", [view, factor], dtype=stash)
        if bias is None:
            y = builder.op("Sub", [y, drift], dtype=stash)
        else:
            offset = builder.op("Sub", [cast(bias, dtype, stash, builder), drift], dtype=stash)
            y = builder.op("Add", [y, offset], dtype=stash)
        y = cast(y, stash, dtype, builder)
        return leave(site, ungrouped(site, y, x, builder), builder)

    def legal(self, spec: GroupNormSpec, opset: int) -> Decision:
        return elementary(spec, opset)

    def min_opset(self, spec: GroupNormSpec) -> int:
        return elementary_opset(spec)


def _has_product(node: ir.Node) -> bool:
    """Both terms computed, one of them a product with a computed factor: spares nearly every Add the search."""
    terms = [v.producer() for v in node.inputs if v is not None]
    if any(term is None or term.op_type not in ("Mul", "Add", "Sub", "Neg") for term in terms):
        return False
    products = (term for term in terms if term is not None and term.op_type == "Mul")
    factors = (v.producer() for term in products for v in term.inputs if v is not None)
    return any(p is not None and p.op_type in ("Mul", "Reciprocal", "Div", "Pow") for p in factors)


FORM = StatisticsAffine()
