"""One Mul and one Add with parameters folded from the statistics, x * (rstd * scale) + (bias - mean * rstd * scale)."""

from collections.abc import Sequence

import onnx_ir as ir

from gn_deploy.decision import Decision
from gn_deploy.forms.base import DTYPES, GroupNormSite, NearMiss
from gn_deploy.forms.base_elementary import elementary, elementary_opset, statistics
from gn_deploy.forms.base_statistics import MEAN, RSTD, VIEW, behind, read_statistics, spread, viewed
from gn_deploy.forms.base_write import cast, enter, leave, parameter, ungrouped
from gn_deploy.graph.facts import Facts
from gn_deploy.graph.match import Any, Either, Op
from gn_deploy.graph.splice import Builder
from gn_deploy.spec import GroupNormSpec

SCALE, BIAS = Any(), Any()
FACTOR = Either((Op("Mul", (RSTD, SCALE)), RSTD))
_DRIFT = spread(Op("Mul", (MEAN, spread(FACTOR))))
NEGATED = spread(Either((Op("Mul", (spread(Op("Neg", (MEAN,))), spread(FACTOR))), Op("Neg", (_DRIFT,)))))
OFFSET = spread(Either((Op("Add", (NEGATED, BIAS)), Op("Sub", (BIAS, _DRIFT)), NEGATED)))
SCALED = viewed(Op("Mul", (viewed(VIEW), spread(FACTOR))))
RESULT = Either((Op("Add", (SCALED, OFFSET)), Op("Sub", (SCALED, _DRIFT))))
_TELLING = 6  # nodes matched from which a miss is worth a word: any residual Add of products gets as far as five


class StatisticsAffine:
    """What Keras writes (tf2onnx): cheap, since x is read once after its statistics are known."""

    name = "statistics_affine"
    fuses: frozenset[str] = frozenset()
    roots: Sequence[str] = ("Add", "Sub")

    def read(self, node: ir.Node, facts: Facts) -> GroupNormSite | NearMiss | None:
        if node.domain or not _has_product(node):
            return None
        return read_statistics(self.name, RESULT, node, facts, telling=_TELLING, scale=SCALE, bias=BIAS)

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
    terms = [behind(v) for v in node.inputs if v is not None]
    if any(term is None or term.op_type not in ("Mul", "Add", "Sub", "Neg") for term in terms):
        return False
    products = (term for term in terms if term is not None and term.op_type == "Mul")
    factors = (behind(v) for term in products for v in term.inputs if v is not None)
    return any(p is not None and p.op_type in ("Mul", "Reciprocal", "Div", "Pow") for p in factors)


FORM = StatisticsAffine()
