"""Reading the GroupNormalization op of ONNX: scale and bias per group before opset 21, per channel since."""

from itertools import takewhile

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from gn_deploy.affine import unless_neutral
from gn_deploy.errors import InputError
from gn_deploy.forms.base import GroupNormSite, NearMiss, Parameter, complete, named
from gn_deploy.graph.dims import spelled
from gn_deploy.graph.facts import Facts
from gn_deploy.spec import GroupNormSpec
from gn_deploy.views import GroupView, sources

_CAUSE = {
    False: "one number per group is right before opset 21 only: onnx.version_converter raises it and leaves them",
    True: "one number per channel is right since opset 21 only",
}
"""Why there may be too many or too few, by whether one per group is right."""


def read_op(
    form: str, node: ir.Node, facts: Facts, *, per_group: bool, stash: str | None
) -> GroupNormSite | NearMiss:
    """A GroupNormalization node of either kind; what ONNX does not allow is the file's error, not a near miss."""
    where = f"GroupNormalization '{named(node)}'"
    if len(node.inputs) != 3 or None in node.inputs:
        raise InputError(f"{where} has {len(node.inputs)} inputs, 3 were needed", "x, scale and bias")
    x = node.inputs[0]
    assert x is not None
    groups = node.attributes.get_int("num_groups", 0)
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    shapes = [facts.shape(v) for v in node.inputs[1:]]
    for which, given in zip(("scale", "bias"), shapes, strict=True):
        if given is not None and len(given) != 1:
            raise InputError(f"{where} has {which} of shape {spelled(given)}, one axis was needed")
    lengths = [None if s is None else s[0].known for s in shapes]
    shape = facts.shape(x)
    channels = shape[1].known if shape is not None and len(shape) > 1 else None
    if channels is None and not per_group and (shape is None or len(shape) > 1):
        channels = lengths[0]
    if channels is None:
        return NearMiss(named(node), form, f"the number of channels of '{x.name}' is not known", 1)
    spec = _checked(where, groups, channels, epsilon)
    invalid = ""
    held: list[Parameter | None] = []
    for which, value, length in zip(("scale", "bias"), node.inputs[1:], lengths, strict=True):
        assert value is not None
        if length not in (channels, groups, None):
            raise InputError(
                f"{where} has {which} of {length} elements, {groups if per_group else channels} were needed",
                f"x has {channels} channels in {groups} groups",
            )
        one_per_group = length == groups != channels if length is not None else per_group
        if one_per_group != per_group and groups != channels:
            needed = groups if per_group else channels
            found = f"{where} has {which} of {length} elements, {needed} were needed at opset {facts.opset}"
            invalid = invalid or f"{found}; {_CAUSE[per_group]}"
        array = facts.constant(value)
        if array is not None and one_per_group:
            array = np.repeat(array, spec.channels_per_group)
        neutral = 1.0 if which == "scale" else 0.0
        held.append(unless_neutral(Parameter(array, value, per_group=one_per_group), neutral))
    closed = any(held) or shape is None
    seen = [(x, ())] if closed else [*takewhile(lambda found: all(map(_is_cast, found[1])), sources(x, facts))][::-1]
    return complete(
        form,
        node,
        [GroupView(source, shape or (), groups, channels, 1, nodes) for source, nodes in seen],
        facts,
        epsilon=epsilon,
        stash=stash,
        applied=lambda _view: (held[0], held[1]),
        closed=closed,
        invalid=invalid,
    )


def by_group(site: GroupNormSite, which: str) -> NDArray[np.generic] | ir.Value | None:
    """``scale`` or ``bias`` as one number per group (G,), 1 or 0 when absent; None when it cannot be told that way."""
    held: Parameter | None = getattr(site, which)
    groups, size = site.spec.num_groups, site.spec.channels_per_group
    if held is None:
        return np.full(groups, 1.0 if which == "scale" else 0.0)
    if held.array is None:
        return held.value if held.per_group or size == 1 else None
    rows = held.array.reshape(groups, size)
    return rows[:, 0] if bool(np.all(rows == rows[:, :1])) else None


def _is_cast(node: ir.Node) -> bool:
    return node.op_type in ("Cast", "Identity")


def _checked(where: str, groups: int, channels: int, epsilon: float) -> GroupNormSpec:
    try:
        return GroupNormSpec(groups, channels, epsilon)
    except InputError as error:
        raise InputError(f"{where}: {error.message}", error.hint or "the file is not a valid model") from None
