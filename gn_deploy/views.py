"""What a reshape means for Group Normalization: which axes of a view hold samples, groups and channels."""

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from gn_deploy.decision import Accepted, Decision, Rejected
from gn_deploy.graph.dims import ONE, Dim, Shape, product, spelled
from gn_deploy.graph.facts import Facts
from gn_deploy.graph.passing import CASTS, VIEW_OPS, handed_on, narrows, transposes, undoes


@dataclass(frozen=True, slots=True)
class GroupView:
    """``source`` (N, C, ...) seen so that reducing some axes of the view reduces over each sample's groups.

    ``nodes`` lead from ``source`` to the view.
    """

    source: ir.Value
    shape: Shape
    num_groups: int
    num_channels: int
    channel_axis: int
    nodes: tuple[ir.Node, ...]

    @property
    def batch(self) -> Dim:
        return self.shape[0]

    def axes_of(self, count: int, shape: Shape) -> range | None:
        """The axes of another view of the same elements that together hold the ``count`` channels, or groups."""
        wanted = Dim(count)
        if self.channel_axis == -1:
            for start in range(len(shape) - 1, 0, -1):
                if product(shape[start:]) == wanted:
                    return range(start, len(shape))
            return None
        if not shape or shape[0] != self.batch:
            return None
        for stop in range(2, len(shape) + 1):
            if product(shape[1:stop]) == wanted:
                return range(1, stop)
        return None


def group_views(
    view: ir.Value, reduced: tuple[int, ...], facts: Facts, *, merged: bool = False
) -> list[GroupView] | Rejected:
    """Every source of ``view`` for which reducing the axes ``reduced`` of it is a reduction over groups, nearest first.

    The view itself counts as a source when all axes but the first are reduced (num_groups = 1). ``merged`` allows a
    fixed number of samples to be merged with the groups, (1, N*G, ...).
    """
    shape = facts.shape(view)
    if shape is None:
        return Rejected(f"the shape of '{view.name}' is not known")
    found: list[GroupView] = []
    why = Rejected(f"'{view.name}' is not a reshape of anything")
    shown = [(source, nodes, facts.shape(source)) for source, nodes in sources(view, facts)]
    for source, nodes, source_shape in shown:
        if source_shape is None or len(source_shape) < 2:
            why = Rejected(f"the shape of '{source.name}' is not known or has no channels")
            continue
        for axis in (1, -1):
            told = _group_view(source, source_shape, nodes, shape, reduced, axis, facts, merged=merged)
            if isinstance(told, GroupView):
                found.append(told)
            elif axis == 1:
                why = told
    found = [v for at, v in enumerate(found) if not any(_same_tensor(v, w, facts) for w in found[at + 1 :])]
    for source, nodes, source_shape in shown:
        flat = None if source_shape is None or len(source_shape) < 4 else _flat(source_shape)
        if flat is not None and flat != shape:
            told = _group_view(source, flat, nodes, shape, reduced, 1, facts)
            found += [told] if isinstance(told, GroupView) else []
    return found or why


def _group_view(
    source: ir.Value,
    source_shape: Shape,
    nodes: tuple[ir.Node, ...],
    shape: Shape,
    reduced: tuple[int, ...],
    axis: int,
    facts: Facts,
    *,
    merged: bool = False,
) -> GroupView | Rejected:
    reshaped = any(node.op_type not in CASTS | {"Identity"} for node in nodes)
    groups = groups_of(source_shape, shape, reduced, axis, reshaped=reshaped, merged=merged)
    if isinstance(groups, Rejected):
        return groups
    channels = source_shape[axis].known
    if channels is None:
        return Rejected(f"the number of channels of '{source.name}' {spelled(source_shape)} is not known")
    if channels % groups:
        return Rejected(f"{channels} channels of '{source.name}' are not divisible by {groups} groups")
    if groups == channels and _is_shuffled(source, facts):
        return Rejected(f"the channels of '{source.name}' are interleaved before they are grouped")
    return GroupView(source, source_shape, groups, channels, axis, nodes)


def _flat(shape: Shape) -> Shape:
    """(N, C, H, W) as (N, C, H W): an optimizer that joins reshapes leaves the one between them out."""
    return (*shape[:2], product(shape[2:]))


def _same_tensor(near: GroupView, far: GroupView, facts: Facts) -> bool:
    """Whether nothing happens between two sources (a Cast to the same type, reshapes there and back): others may read
    the far one, and a site that began at the near one would depend on both."""
    alike = near.shape == far.shape and near.channel_axis == far.channel_axis
    return alike and facts.dtype(near.source) == facts.dtype(far.source)


def _is_shuffled(source: ir.Value, facts: Facts) -> bool:
    """Whether (N, C, ...) was reshaped to (N, C/G, G, ...) and the two axes were swapped, as for a channel shuffle."""
    node = source.producer()
    swapped = None if node is None or node.op_type != "Transpose" else node.inputs[0]
    before = None if swapped is None else swapped.producer()
    if node is None or swapped is None or before is None or before.op_type not in VIEW_OPS:
        return False
    rank, (whole, split) = facts.rank(swapped) or 0, (facts.shape(before.inputs[0]), facts.shape(swapped))
    if rank < 4 or not transposes(node, [0, 2, 1, *range(3, rank)]) or whole is None or split is None:
        return False
    return len(whole) > 1 and whole[:2] == (split[0], split[1] * split[2])


def returns_to(view: GroupView, shape: Shape | None) -> Decision:
    """Whether a value of this shape has the source's shape again."""
    if shape is None:
        return Rejected("the shape of the result is not known")
    if shape != view.shape:
        return Rejected(f"the result {spelled(shape)} does not have the shape of the input {spelled(view.shape)}")
    return Accepted()


def sources(view: ir.Value, facts: Facts) -> Iterator[tuple[ir.Value, tuple[ir.Node, ...]]]:
    """What ``view`` shows the elements of, in their order, nearest first, each with the nodes that lead to it."""
    nodes: tuple[ir.Node, ...] = ()
    value: ir.Value | None = view
    while value is not None:
        yield value, nodes
        node = None if value in facts.ends else value.producer()
        if node is None or narrows(node, facts):
            return
        passed: tuple[ir.Node, ...] = (node,)
        value = handed_on(node, facts)
        before = None if node.op_type != "Transpose" or node.inputs[0] is None else node.inputs[0].producer()
        if value is None and before is not None and undoes(before, node, facts):
            value, passed = before.inputs[0], (before, node)
        nodes = (*passed, *nodes)


def groups_of(
    source: Shape,
    view: Shape,
    reduced: tuple[int, ...],
    channel_axis: int,
    *,
    reshaped: bool,
    merged: bool = False,
) -> int | Rejected:
    """num_groups of the reduction of some axes of a view of ``source``, from shapes alone."""
    batch, rank = source[0], len(view)
    if reduced[:1] == (0,) and view[0] == ONE and len(reduced) > 1:
        reduced = reduced[1:]
    if not reduced or product(source) != product(view):
        return Rejected(f"the view {spelled(view)} does not hold exactly the elements of {spelled(source)}")
    if channel_axis == -1:
        spatial = tuple(range(1, rank - 2))
        if reduced == tuple(range(1, rank)) and view == source and rank > 2:
            return 1
        if rank < 4 or reduced != (*spatial, rank - 1) or view[0] != batch or view[-1] * view[-2] != source[-1]:
            return Rejected(f"axes {reduced} of {spelled(view)} are not one group of channels-last {spelled(source)}")
        return _known(view[-2])
    first = reduced[0]
    if reduced != tuple(range(first, rank)) or first == 0:
        return Rejected(f"axes {reduced} of {spelled(view)} are not its last axes")
    if first == 1 and view[0] == batch:
        return 1 if rank > 2 or view != source else Rejected(f"{spelled(view)} is normalized over C alone: LayerNorm")
    if first == 1 or (view[0] == ONE != batch and first == 2 and (merged or batch.known is None)):
        rows = product(view[:first]).divided_by(batch)  # [N*G, K] or [1, N*G, K]
        if rows is not None and rows == source[1]:
            return Rejected(f"{spelled(view)} has a row for each of {spelled(source[:2])}: no groups of channels")
        if rows is None:
            return Rejected(f"{product(view[:first])} rows of {spelled(view)} are not groups of {batch} samples each")
        return _known(rows)
    if view[0] != batch:
        return Rejected(f"the view {spelled(view)} of {spelled(source)} mixes samples: its first axis is not {batch}")
    if first != 2:
        return Rejected(f"axes {reduced} of {spelled(view)} leave {first} axes, where batch and group were needed")
    if not reshaped:
        return Rejected(f"{spelled(view)} is reduced per channel without a reshape: instance normalization as such")
    return _known(view[1])


def _known(groups: Dim) -> int | Rejected:
    count = groups.known or 0
    return count if count > 0 else Rejected(f"the number of groups {groups} is not known")
