"""Group Normalization in elementary ops: ReduceMean, Sub, Mul or Pow, Sqrt, Div; written in two passes."""

from collections.abc import Sequence

import onnx_ir as ir

from gn_deploy.decision import Decision
from gn_deploy.forms.base import (
    DTYPES,
    GroupNormSite,
    NearMiss,
    apply_affine,
    enter,
    grouped,
    leave,
    ungrouped,
)
from gn_deploy.forms.base_statistics import (
    CENTERED,
    RSTD,
    STD,
    cast,
    elementary,
    elementary_opset,
    read_statistics,
    statistics,
)
from gn_deploy.graph.facts import Facts
from gn_deploy.graph.match import Either, Op
from gn_deploy.graph.splice import Builder
from gn_deploy.spec import GroupNormSpec

_TELLING = 3  # nodes matched from which a miss is worth a word: x - ReduceMean(x), divided or multiplied
NORMALIZED = Either((Op("Div", (CENTERED, STD)), Op("Mul", (CENTERED, RSTD))))


class Primitives:
    name = "primitives"
    roots: Sequence[str] = ("Div", "Mul")

    def read(self, node: ir.Node, facts: Facts) -> GroupNormSite | NearMiss | None:
        if node.domain or not _starts_centered(node):
            return None
        return read_statistics(self.name, NORMALIZED, node, facts, telling=_TELLING)

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
    for value in node.inputs[:1] if node.op_type == "Div" else node.inputs:
        producer = None if value is None else value.producer()
        if producer is not None and producer.op_type == "Sub":
            return True
    return False


FORM = Primitives()
