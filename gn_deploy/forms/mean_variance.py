"""MeanVarianceNormalization over the elements of a group: a look-alike, never a Group Normalization."""

from collections.abc import Sequence

import onnx_ir as ir

from gn_deploy.forms.base import NearMiss, ReadOnly, named
from gn_deploy.graph.facts import Facts
from gn_deploy.graph.fold import integers
from gn_deploy.views import group_views

_DEFAULT_AXES = (0, 2, 3)  # ONNX MeanVarianceNormalization-9 and -13


class MeanVariance(ReadOnly):
    """The function body of the operator adds its epsilon, 1e-9, to the standard deviation and not to the variance."""

    name = "mean_variance"
    why = "MeanVarianceNormalization adds epsilon outside the root: it cannot hold a GroupNorm"
    roots: Sequence[str] = ("MeanVarianceNormalization",)

    def read(self, node: ir.Node, facts: Facts) -> NearMiss | None:
        x = node.inputs[0] if node.inputs else None
        rank = None if x is None else facts.rank(x)
        if node.domain or x is None or rank is None:
            return None
        axes = tuple(sorted(axis % rank for axis in integers(node, "axes") or _DEFAULT_AXES))
        views = group_views(x, axes, facts)
        outside = "epsilon (1e-9) is added outside the root, to the standard deviation"
        reason = outside if isinstance(views, list) else views.reason
        return NearMiss(named(node), self.name, reason, 1)


FORM = MeanVariance()
