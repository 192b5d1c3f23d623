"""Group Normalization in elementary ops: ReduceMean, Sub, Mul or Pow, Sqrt, Div; written in two passes."""

from collections.abc import Sequence

import onnx_ir as ir

from gn_deploy.decision import Decision
from gn_deploy.forms.base import DTYPES, GroupNormSite, NearMiss
from gn_deploy.forms.base_elementary import elementary, elementary_opset, statistics
from gn_deploy.forms.base_statistics import CENTERED, INVERSE_RMS, RMS, RSTD, STD, behind, read_statistics
from gn_deploy.forms.base_write import apply_affine, cast, enter, grouped, leave, ungrouped
from gn_deploy.graph.facts import Facts
from gn_deploy.graph.match import Any, Either, Op, Refused
from gn_deploy.graph.splice import Builder
from gn_deploy.spec import GroupNormSpec

_TELLING = 3  # nodes matched from which a miss is worth a word: x - ReduceMean(x), divided or multiplied
_CENTERING = ("Sub", "Where")
_UNCENTERED = "what is divided by the deviation is not x less its mean: RMS norm, EvoNorm or the like"
NORMALIZED = Either((
    Op("Div", (CENTERED, STD)),
    Op("Mul", (CENTERED, RSTD)),
    Refused(Op("Div", (Any(), STD)), _UNCENTERED),
    Refused(Op("Mul", (Any(), RSTD)), _UNCENTERED),
    Refused(Op("Div", (Any(), RMS)), _UNCENTERED),
    Refused(Op("Mul", (Any(), INVERSE_RMS)), _UNCENTERED),
))


class Primitives:
    name = "primitives"
    fuses: frozenset[str] = frozenset()
    roots: Sequence[str] = ("Div", "Mul")

    def read(self, node: ir.Node, facts: Facts) -> GroupNormSite | NearMiss | None:
        if node.domain or not _may_normalize(node, facts):
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


def _may_normalize(node: ir.Node, facts: Facts) -> bool:
    """A quick look that spares nearly every Mul and Div of a graph the search."""
    a, b = node.inputs
    if a is None or b is None or a is b:
        return False  # a square
    one, two = behind(a), behind(b)
    if node.op_type == "Div":
        centered = one is not None and one.op_type in _CENTERING
        return centered or (two is not None and two.op_type == "Sqrt" and _scales(node, a, facts))
    if any(term is not None and term.op_type in _CENTERING for term in (one, two)):
        return True
    return (_inverts(one, facts) and _scales(node, b, facts)) or (_inverts(two, facts) and _scales(node, a, facts))


def _inverts(node: ir.Node | None, facts: Facts) -> bool:
    if node is None or node.op_type not in ("Reciprocal", "Div"):
        return False
    return node.op_type == "Reciprocal" or facts.scalar(node.inputs[0]) == 1


def _scales(node: ir.Node, tensor: ir.Value, facts: Facts) -> bool:
    """Whether a tensor as such is divided by its deviation: a look-alike, unless an offset is added that centres it."""
    producer = behind(tensor)
    if facts.constant(tensor) is not None or (producer is not None and producer.op_type in ("ReduceMean", "Neg")):
        return False
    readers = [use.node for use in node.outputs[0].uses()]
    sums = [r for r in readers if r.op_type in ("Add", "Sub")]
    others = (behind(v) for r in sums for v in r.inputs if v is not None and v is not node.outputs[0])
    return not any(other is not None and other.op_type in ("Mul", "Add", "Sub", "Neg") for other in others)


FORM = Primitives()
