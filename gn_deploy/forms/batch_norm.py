"""BatchNormalization with the statistics of its own input, on a view (1, N*G, -1): a row for each sample and group."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from gn_deploy.decision import Accepted, Decision, Rejected
from gn_deploy.forms.base import Applied, GroupNormSite, NearMiss, Parameter, ReadOnly, complete, named, per_group
from gn_deploy.forms.base_layout import Layout
from gn_deploy.forms.base_statistics import MEAN, VARIANCE, VIEW, averaged
from gn_deploy.graph.dims import ONE
from gn_deploy.graph.facts import Facts
from gn_deploy.graph.match import Any, Match, Op, match
from gn_deploy.views import GroupView, group_views

_OWN_STATISTICS = Op("BatchNormalization", (VIEW, Any(), Any(), MEAN, VARIANCE))
_TELLING = 4  # nodes matched from which a miss is worth a word: the statistics are computed, not weights


class BatchNorm(ReadOnly):
    """What F.batch_norm and F.instance_norm are exported as when they take the statistics of the input itself.

    1. Training mode (opset 14), or mean and variance computed beside it and handed in.
    2. The rows must be exactly the groups of each sample. A batch of a fixed size may be merged with the groups: such a
       file runs with no other batch, so the rows are samples and groups whatever their author had in mind.
    """

    name = "batch_norm"
    why = "BatchNormalization that takes its own statistics is for training, few runtimes run it: it is only read"
    roots: Sequence[str] = ("BatchNormalization",)

    def read(self, node: ir.Node, facts: Facts) -> GroupNormSite | NearMiss | None:
        if node.domain or len(node.inputs) != 5 or node.inputs[0] is None:
            return None
        name = named(node)
        if len(node.outputs) > 3 and facts.opset >= 14:
            return NearMiss(name, self.name, "it has five outputs, as for training before opset 14: not valid since", 1)
        training = bool(node.attributes.get_int("training_mode", 0)) and facts.opset >= 14
        if not training and facts.constant(node.inputs[3]) is not None:
            return None  # an ordinary one, in inference
        if training and any(v.uses() or v.is_graph_output() for v in node.outputs[1:]):
            return NearMiss(name, self.name, "its running statistics are read: it is being trained", 1)
        found = None if training else match(_OWN_STATISTICS, node.outputs[0], facts)
        if found is not None and not isinstance(found, Match):
            told = found.progress >= _TELLING
            return NearMiss(name, self.name, found.reason, found.progress) if told else None
        proved = averaged(found, facts) if found is not None else Accepted()
        if not proved:
            return NearMiss(name, self.name, proved.reason, len(found.nodes) if found is not None else 1)
        x = node.inputs[0]
        shape = facts.shape(x)
        if shape is None or len(shape) < 3 or shape[0] != ONE:
            return NearMiss(name, self.name, f"the statistics of '{x.name}' are taken over the whole batch", 1)

        def applied(view: GroupView) -> Applied | Rejected:
            proved = _row_by_row(found, view, facts) if found is not None else Accepted()
            if not proved:
                return Rejected(proved.reason)
            scale, bias = (_by_group(value, view, facts) for value in node.inputs[1:3])
            if isinstance(scale, Rejected):
                return scale
            return bias if isinstance(bias, Rejected) else (scale, bias)

        return complete(
            self.name,
            node,
            group_views(x, tuple(range(2, len(shape))), facts, merged=True),
            facts,
            epsilon=node.attributes.get_float("epsilon", 1e-5),
            nodes=() if found is None else found.nodes,
            applied=applied,
        )


def _row_by_row(found: Match, view: GroupView, facts: Facts) -> Decision:
    """Whether mean and variance are those of the rows."""
    layout = Layout(found[VIEW], view, found.nodes, facts, merged=True)
    for part in (MEAN, VARIANCE):
        lay = layout.lay(found[part])
        if isinstance(lay, Rejected):
            return lay
        if lay is None or lay.repeat != ONE:
            return Rejected(f"'{found[part].name}' is not one number per row")
    return Accepted()


def _by_group(value: ir.Value | None, view: GroupView, facts: Facts) -> Parameter | Rejected:
    """One number per row, the same for every sample, as one per group."""
    array: NDArray[np.generic] | None = facts.constant(value)
    element = facts.element(value)
    if element is not None:
        return per_group(np.full(view.num_groups, element), view)
    rows = None if array is None or array.size % view.num_groups else array.reshape(-1, view.num_groups)
    if rows is None or not np.all(rows == rows[:1]):
        name = "" if value is None else value.name
        return Rejected(f"'{name}' is not the same for the groups of every sample")
    return per_group(rows[0], view)


FORM = BatchNorm()
