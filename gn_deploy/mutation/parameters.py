"""Faults of scale, bias and modulation."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from gn_deploy.decision import Rejected
from gn_deploy.forms.base import DTYPES, GroupNormSite, Parameter
from gn_deploy.forms.base_write import parameter
from gn_deploy.graph.splice import Builder
from gn_deploy.mutation.base import ANY, Edit, Spelling, form_for, inside, whole

Change = Callable[[GroupNormSite, Builder], GroupNormSite]


def taken(site: GroupNormSite, order: NDArray[np.integer], builder: Builder) -> GroupNormSite:
    """The site with scale and bias in another order: new channel i has those of channel ``order[i]``."""

    def moved(held: Parameter | None) -> Parameter | None:
        if held is None or (np.array_equal(order, np.arange(len(order))) and not held.per_group):
            return held
        if held.array is not None:
            return Parameter(array=held.array.reshape(-1)[order])
        assert held.value is not None
        at = order // site.spec.channels_per_group if held.per_group else order
        shape = ir.Shape([len(order)])
        indices = builder.ints(at.tolist(), "channels")
        value = builder.op("Gather", [held.value, indices], {"axis": 0}, dtype=held.value.dtype, shape=shape)
        return Parameter(value=value)

    return replace(site, scale=moved(site.scale), bias=moved(site.bias))


def _changed(change: Change) -> Spelling:
    def edit(site: GroupNormSite) -> Edit | Rejected:
        form = form_for(site.bare, site.bare.spec)
        if isinstance(form, Rejected):
            return form
        return inside(site, lambda own, builder: form.write(change(own, builder), builder), ANY)

    return edit


def _reordered(order: Callable[[NDArray[np.integer], int], NDArray[np.integer]]) -> Spelling:
    """``order`` of all channels, given how many there are per group."""
    return _changed(
        lambda site, builder: taken(
            site, order(np.arange(site.spec.num_channels), site.spec.channels_per_group), builder
        )
    )


def _last_lost(site: GroupNormSite, builder: Builder) -> GroupNormSite:
    dtype = DTYPES[site.spec.dtype]

    def lost(which: str, neutral: float) -> Parameter | None:
        held = getattr(site, which)
        count = site.spec.num_channels
        if held is None:
            return None
        if held.array is not None:
            array = held.array.reshape(-1).copy()
            array[-1] = neutral
            return Parameter(array=array)
        value = parameter(site, which, [count], builder)
        assert value is not None
        last = builder.constant(np.arange(count) == count - 1, "last")
        other = builder.constant(np.asarray(neutral, dtype.numpy()), "neutral", dtype)
        shape = ir.Shape([count])
        return Parameter(value=builder.op("Where", [last, other, value], dtype=dtype, shape=shape))

    return replace(site, scale=lost("scale", 1.0), bias=lost("bias", 0.0))


def _bias_first(site: GroupNormSite, builder: Builder) -> GroupNormSite:
    if site.scale is None or site.bias is None:
        return site
    dtype, count = DTYPES[site.spec.dtype], site.spec.num_channels
    both = [parameter(site, which, [count], builder) for which in ("scale", "bias")]
    product = builder.op("Mul", both, dtype=dtype, shape=ir.Shape([count]))
    return replace(site, bias=Parameter(value=product))


def _unmodulated(site: GroupNormSite) -> Edit | Rejected:
    if not site.spec.scale_shift:
        return Rejected("it has no modulation")
    spec = replace(site.spec, scale_shift=False)
    others = {name: value for name, value in site.operands.items() if not name.startswith("modulation")}
    return whole(site, lambda _: replace(site, spec=spec, operands=others), spec)


def _without_plus_one(site: GroupNormSite) -> Edit | Rejected:
    if "modulation_scale" not in site.operands:
        return Rejected("it has no scale per sample")

    def changed(builder: Builder) -> GroupNormSite:
        scale = site.operands["modulation_scale"]
        dtype = scale.dtype or DTYPES[site.spec.dtype]
        one = builder.constant(np.ones((), dtype.numpy()), "one", dtype)
        less = builder.op("Sub", [scale, one], dtype=dtype, shape=scale.shape)
        return replace(site, operands={**site.operands, "modulation_scale": less})

    return whole(site, changed, site.spec)


SPELLINGS: dict[str, Spelling] = {
    "affine per group": _reordered(lambda c, size: c // size * size),
    "affine tiled": _reordered(lambda c, size: c % size),
    "affine one channel off": _reordered(lambda c, _: np.roll(c, 1)),
    "scale dropped": _changed(lambda site, _: replace(site, scale=None)),
    "bias dropped": _changed(lambda site, _: replace(site, bias=None)),
    "last channel's affine lost": _changed(_last_lost),
    "bias before scale": _changed(_bias_first),
    "modulation dropped": _unmodulated,
    "modulation without 1 +": _without_plus_one,
}
