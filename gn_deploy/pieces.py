"""A tensor split into groups, each normalized on its own, and put together again: that is one Group Normalization."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from gn_deploy.decision import Rejected
from gn_deploy.forms.base import GroupNormSite, NearMiss, Parameter, complete
from gn_deploy.graph.facts import Facts
from gn_deploy.graph.fold import bounds, integer
from gn_deploy.graph.nodes import is_plain, sole_consumer
from gn_deploy.views import GroupView

FORM = "split"
"""The name of this spelling; it is never written."""
Read = tuple[GroupNormSite, Facts]


def joined(sites: Sequence[Read]) -> list[Read]:
    """``sites`` in their order, those that are the pieces of one normalization replaced by it."""
    by_concat: dict[ir.Node, list[Read]] = defaultdict(list)
    for site, facts in sites:
        reader = sole_consumer(site.output)
        if reader is not None and reader.op_type == "Concat" and is_plain(reader) and site.spec.num_groups == 1:
            by_concat[reader].append((site, facts))
    whole: dict[int, Read] = {}
    gone: set[int] = set()
    for concat, pieces in by_concat.items():
        made = _join(concat, [piece for piece, _ in pieces], pieces[0][1])
        if made is not None:
            whole[id(pieces[-1][0])] = made, pieces[0][1]
            gone |= {id(piece) for piece, _ in pieces}
    return [whole.get(id(read[0]), read) for read in sites if id(read[0]) in whole or id(read[0]) not in gone]


def _join(concat: ir.Node, pieces: Sequence[GroupNormSite], facts: Facts) -> GroupNormSite | None:
    """The normalization of which ``concat`` joins the pieces, in order and all of them."""
    by_output = {piece.output: piece for piece in pieces}
    if len(concat.inputs) < 2 or any(v not in by_output for v in concat.inputs):
        return None
    ordered = [by_output[v] for v in concat.inputs if v is not None]
    spec = ordered[0].spec
    if any(piece.spec != spec for piece in ordered) or any(piece.invalid for piece in ordered) or spec.rank is None:
        return None
    axis = 1 if spec.channel_axis == 1 else spec.rank - 1
    cut = _cut(ordered, axis, facts)
    shape = None if cut is None else facts.shape(cut[0])
    channels = spec.num_channels * len(ordered)
    if cut is None or shape is None or integer(concat, "axis", 1) % spec.rank != axis or shape[axis].known != channels:
        return None
    scale, bias = (_concatenated(ordered, which) for which in ("scale", "bias"))
    if isinstance(scale, Rejected) or isinstance(bias, Rejected):
        return None
    view = GroupView(cut[0], shape, len(ordered), channels, spec.channel_axis, cut[1])
    site = complete(
        FORM,
        concat,
        [view],
        facts,
        epsilon=spec.epsilon,
        stash=spec.stash_dtype,
        nodes=[node for piece in ordered for node in piece.nodes],
        applied=lambda _view: (scale, bias),
    )
    if isinstance(site, NearMiss):
        return None
    return replace(site, notes=tuple(dict.fromkeys(note for piece in ordered for note in piece.notes)))


def _cut(pieces: Sequence[GroupNormSite], axis: int, facts: Facts) -> tuple[ir.Value, tuple[ir.Node, ...]] | None:
    """The tensor whose slices along ``axis``, in order, the pieces are, and the nodes that cut it."""
    nodes = [piece.input.producer() for piece in pieces]
    first = nodes[0]
    if first is None or not first.inputs or first.inputs[0] is None:
        return None
    source, size = first.inputs[0], pieces[0].spec.num_channels
    rank = facts.rank(source)
    if rank is None or any(n is None or not is_plain(n) or n.inputs[0] is not source for n in nodes):
        return None
    cutters = [n for n in nodes if n is not None]
    if first.op_type == "Split":
        inputs = [piece.input for piece in pieces]
        right = integer(first, "axis", 0) % rank == axis and list(first.outputs) == inputs
        return (source, (first,)) if right else None
    parts = (slice(i * size, (i + 1) * size) for i in range(len(pieces)))
    right = all(_takes(node, axis, rank, part, facts) for node, part in zip(cutters, parts, strict=True))
    return (source, tuple(cutters)) if right else None


def _takes(node: ir.Node, axis: int, rank: int, wanted: slice, facts: Facts) -> bool:
    arrays = [facts.constant(v) for v in node.inputs[1:]]
    if node.op_type != "Slice" or any(a is None for a in arrays):
        return False
    cuts = bounds(node, [a for a in arrays if a is not None], rank)
    size = (facts.shape(node.inputs[0]) or ())[axis].known if cuts is not None and set(cuts) == {axis} else None
    if cuts is None or size is None:
        return False
    return range(size)[cuts[axis]] == range(size)[wanted]


def _concatenated(pieces: Iterable[GroupNormSite], which: str) -> Parameter | Rejected | None:
    """The pieces' parameters one after the other."""
    held: list[tuple[int, Parameter | None]] = [(piece.spec.num_channels, getattr(piece, which)) for piece in pieces]
    known = [parameter.array for _, parameter in held if parameter is not None and parameter.array is not None]
    if len(known) < sum(parameter is not None for _, parameter in held):
        return Rejected(f"the {which} of a piece is only known at run time")
    if not known:
        return None
    neutral = 1 if which == "scale" else 0
    arrays = [np.full(n, neutral) if p is None or p.array is None else p.array for n, p in held]
    return Parameter(array=np.concatenate(arrays).astype(known[0].dtype))
