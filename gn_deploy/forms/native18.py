"""GroupNormalization of ONNX opset 18 to 20: scale and bias per *group*, deprecated since it contradicts the paper."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from gn_deploy.decision import Decision, Rejected
from gn_deploy.forms.base import DTYPES, GroupNormSite, NearMiss, known_rank
from gn_deploy.forms.base_op import by_group, read_op
from gn_deploy.forms.base_write import apply_affine, cast, enter, leave
from gn_deploy.graph.facts import Facts
from gn_deploy.graph.passing import holds
from gn_deploy.graph.splice import Builder
from gn_deploy.spec import GroupNormSpec

_SINCE, _UNTIL = 18, 20


class Native18:
    """Written only on request.

    1. Scale and bias go into the op where each is one number per group; else they follow as Mul and Add.
    2. The op has no ``stash_type``. ONNX's function body computes in the type of x; runtimes take the statistics of
       half precision in float32 (ONNX Runtime on CPU and TensorRT do), and so it is read: never less exact than the
       body. What is written leaves nothing to the runtime: a stash type wider than x becomes Casts around the op.
    """

    name = "native18"
    fuses: frozenset[str] = frozenset()
    roots: Sequence[str] = ("GroupNormalization",)

    def read(self, node: ir.Node, facts: Facts) -> GroupNormSite | NearMiss | None:
        """Raises InputError for a node that ONNX does not allow (groups, epsilon, length of scale or bias)."""
        if node.domain or not _SINCE <= facts.opset <= _UNTIL:
            return None
        double = node.inputs[0] is not None and facts.dtype(node.inputs[0]) == ir.DataType.DOUBLE
        return read_op(self.name, node, facts, per_group=True, stash="float64" if double else None)

    def write(self, site: GroupNormSite, builder: Builder) -> ir.Value:
        x = enter(site, builder)
        spec, dtype, stash = site.spec, DTYPES[site.spec.dtype], DTYPES[site.spec.stash_dtype]
        inside = stash if holds(stash, dtype) else dtype
        own = {which: by_group(site, which) for which in ("scale", "bias")}
        rest = inside != dtype or any(held is None for held in own.values())
        if rest:
            own = {"ones": np.ones(spec.num_groups), "zeros": np.zeros(spec.num_groups)}
        given = [
            builder.constant(held.astype(inside.numpy()), role, inside) if isinstance(held, np.ndarray) else held
            for role, held in own.items()
        ]
        attributes = {"epsilon": spec.epsilon, "num_groups": spec.num_groups}
        y = builder.op("GroupNormalization", [cast(x, dtype, inside, builder), *given], attributes, dtype=inside)
        y = cast(y, inside, dtype, builder)
        return leave(site, apply_affine(site, y, builder) if rest else y, builder)

    def legal(self, spec: GroupNormSpec, opset: int) -> Decision:
        known = known_rank(spec)
        if known and not _SINCE <= opset <= _UNTIL:
            return Rejected(f"GroupNormalization-18 needs opset {_SINCE} to {_UNTIL}, the model has {opset}")
        return known

    def min_opset(self, spec: GroupNormSpec) -> int:
        return _SINCE


FORM = Native18()
