"""What forms write alike: the view (N, G, ...) and the way back, scale and bias, and a Cast where one is needed."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from gn_deploy.affine import Parameter
from gn_deploy.forms.base import DTYPES, GroupNormSite
from gn_deploy.graph.passing import to_first, to_last
from gn_deploy.graph.splice import Builder


def enter(site: GroupNormSite, builder: Builder) -> ir.Value:
    """The input as (N, C, ...): transposed first when the site is channels last."""
    if site.spec.channel_axis == 1 or site.spec.rank == 2:
        return site.input
    return builder.op("Transpose", [site.input], {"perm": to_first(_rank(site))}, dtype=site.input.dtype)


def leave(site: GroupNormSite, value: ir.Value, builder: Builder) -> ir.Value:
    """The inverse of ``enter``."""
    if site.spec.channel_axis == 1 or site.spec.rank == 2:
        return value
    return builder.op("Transpose", [value], {"perm": to_last(_rank(site))}, dtype=site.input.dtype)


def parameter(
    site: GroupNormSite, which: str, shape: Sequence[int], builder: Builder, *, neutral: bool = False
) -> ir.Value | None:
    """``scale`` or ``bias`` in ``shape`` (C elements); the graph's own tensor where it already has that shape.

    Absent parameters are None, or ones and zeros when ``neutral``.
    """
    held: Parameter | None = getattr(site, which)
    spec, dtype = site.spec, DTYPES[site.spec.dtype]
    wanted = [int(s) for s in shape]
    if held is None:
        if not neutral:
            return None
        fill = np.full(wanted, 1 if which == "scale" else 0, dtype.numpy())
        return builder.constant(fill, which, dtype)
    value = held.value
    if held.array is not None:
        same = value is not None and not held.per_group and value.shape is not None and list(value.shape) == wanted
        if same and value is not None and value.dtype == dtype:
            return value
        return builder.constant(held.array.astype(dtype.numpy()).reshape(wanted), which, dtype)
    assert value is not None
    if value.dtype not in (None, dtype):
        value = builder.op("Cast", [value], {"to": int(dtype)}, dtype=dtype, shape=value.shape)
    if held.per_group:
        rows = builder.op("Reshape", [value, builder.ints([spec.num_groups, 1], f"{which}_rows")])
        sizes = builder.ints([spec.num_groups, spec.channels_per_group], f"{which}_sizes")
        value = builder.op("Expand", [rows, sizes])
    elif len(wanted) == 1:
        return value
    return builder.op("Reshape", [value, builder.ints(wanted, f"{which}_shape")])


def cast(value: ir.Value, now: ir.DataType | None, wanted: ir.DataType, builder: Builder) -> ir.Value:
    return value if now == wanted else builder.op("Cast", [value], {"to": int(wanted)}, dtype=wanted)


def apply_affine(site: GroupNormSite, value: ir.Value, builder: Builder) -> ir.Value:
    """Mul and Add by the site's scale and bias, where present, on a value (N, C, ...)."""
    shape = [site.spec.num_channels] + [1] * (_rank(site) - 2)
    for which, op in (("scale", "Mul"), ("bias", "Add")):
        operand = parameter(site, which, shape, builder)
        if operand is not None:
            value = builder.op(op, [value, operand], dtype=site.input.dtype)
    return value


def grouped(site: GroupNormSite, value: ir.Value, builder: Builder) -> ir.Value:
    """(N, C, ...) as (N, G, elements of a group)."""
    shape = builder.ints([0, site.spec.num_groups, -1], "groups")
    return builder.op("Reshape", [value, shape], dtype=site.input.dtype)


def ungrouped(site: GroupNormSite, value: ir.Value, like: ir.Value, builder: Builder) -> ir.Value:
    """(N, G, elements of a group) as (N, C, ...) again: by constants if at most one size is unknown, else by Shape."""
    known = site.input.shape
    spatial: list[int] | None = None
    if known is not None:
        inner = list(known)[1:-1] if site.spec.channel_axis == -1 else list(known)[2:]
        unknown = [d for d in inner if not isinstance(d, int)]
        if len(unknown) <= 1 and 0 not in inner:
            spatial = [d if isinstance(d, int) else -1 for d in inner]
    if spatial is not None:
        shape = builder.ints([0, site.spec.num_channels, *spatial], "shape")
    else:
        shape = builder.op("Shape", [like], dtype=ir.DataType.INT64)
    return builder.op("Reshape", [value, shape], dtype=value.dtype)


def _rank(site: GroupNormSite) -> int:
    assert site.spec.rank is not None, "a form's `legal` asks for the rank before it writes"
    return site.spec.rank
