"""Group Normalization in elementary ops: ReduceMean, Sub, Mul or Pow, Sqrt, Div; written in two passes."""

from collections.abc import Sequence

import onnx_ir as ir

from gn_deploy.decision import Decision, Rejected
from gn_deploy.forms.base import (
    DTYPES,
    GroupNormSite,
    NearMiss,
    apply_affine,
    complete,
    dtype_name,
    enter,
    grouped,
    leave,
    ungrouped,
)
from gn_deploy.forms.base_statistics import (
    CENTERED,
    EPSILON,
    ONE_PASS,
    ONE_PASS_NOTE,
    RSTD,
    STD,
    VIEW,
    cast,
    elementary,
    elementary_opset,
    reduced_axes,
    statistics,
)
from gn_deploy.graph.facts import Facts
from gn_deploy.graph.match import Either, Match, Op, match
from gn_deploy.graph.splice import Builder
from gn_deploy.spec import GroupNormSpec
from gn_deploy.views import group_views

_TELLING = 3  # nodes matched from which a miss is worth a word: x - ReduceMean(x), divided or multiplied
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
        axes = reduced_axes(found, facts)
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
            notes=(ONE_PASS_NOTE,) if one_pass else (),
            progress=len(found.nodes),
        )

    def write(self, site: GroupNormSite, builder: Builder) -> ir.Value:
        spec, x = site.spec, enter(site, builder)
        dtype, stash = DTYPES[spec.dtype], DTYPES[spec.stash_dtype]
        rows = cast(grouped(site, x, builder), dtype, stash, builder)
        found = statistics(rows, [2], spec, builder)
        y = cast(builder.op("Div", [found.centered, found.deviation], dtype=stash), stash, dtype, builder)
        return leave(site, apply_affine(site, ungrouped(site, y, x, builder), builder), builder)

    def legal(self, spec: GroupNormSpec, opset: int) -> Decision:
        return elementary(spec, opset)

    def min_opset(self, spec: GroupNormSpec) -> int:
        return elementary_opset(spec)


def _starts_centered(node: ir.Node) -> bool:
    """A quick look that spares nearly every Mul and Div of a graph the search."""
    if node.inputs[0] is node.inputs[-1]:
        return False  # a square
    values = node.inputs[:1] if node.op_type == "Div" else node.inputs
    producers = (v.producer() for v in values if v is not None)
    return any(p is not None and p.op_type == "Sub" for p in producers)


FORM = Primitives()
