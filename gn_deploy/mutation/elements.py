"""Faults of single elements and of their place, and of NaN and Inf that vanish."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from gn_deploy.decision import Rejected
from gn_deploy.faults.elements import SLIP
from gn_deploy.forms.base import DTYPES, GroupNormSite
from gn_deploy.graph.splice import Builder
from gn_deploy.mutation.arithmetic import INT64, Arithmetic
from gn_deploy.mutation.base import OPSET, Edit, Spelling, whole


def afterwards(change: Callable[[GroupNormSite, ir.Value, Builder], ir.Value]) -> Spelling:
    """Nodes after everything that belongs to the site."""

    def edit(site: GroupNormSite) -> Edit | Rejected:
        if site.opset < OPSET:
            return Rejected(f"it needs opset {OPSET}, the model has {site.opset}")
        return Edit(site, lambda y, builder: change(site, y, builder), after=True)

    return edit


def _one_element(at_end: bool, replacement: Callable[[Arithmetic, ir.Value, ir.Value], ir.Value]) -> Spelling:
    """One element of y, the last or the middle one, replaced by what is made of all of them and of itself."""

    def change(site: GroupNormSite, y: ir.Value, builder: Builder) -> ir.Value:
        of = Arithmetic(builder, DTYPES[site.spec.dtype])
        flat = of.op("Reshape", y, builder.ints([-1], "flat"))
        shape = builder.op("Shape", [y], dtype=INT64)
        count = builder.op("Shape", [flat], dtype=INT64)
        index = of.integer("Sub", count, 1) if at_end else of.integer("Div", count, 2)
        element = builder.op("Gather", [flat, index], {"axis": 0}, dtype=of.dtype)
        given = [flat, index, replacement(of, flat, element)]
        changed = builder.op("ScatterElements", given, {"axis": 0}, dtype=of.dtype)
        return of.op("Reshape", changed, shape)

    return afterwards(change)


def _first(of: Arithmetic, flat: ir.Value, element: ir.Value) -> ir.Value:
    return of.builder.op("Gather", [flat, of.builder.ints([0], "first")], {"axis": 0}, dtype=of.dtype)


def _slipped(of: Arithmetic, flat: ir.Value, element: ir.Value) -> ir.Value:
    wide = ir.DataType.DOUBLE if of.dtype is ir.DataType.DOUBLE else ir.DataType.FLOAT  # a float16 overflows squared
    sums = Arithmetic(of.builder, wide)
    size = sums.sqrt(sums.mean(sums.square(sums.real(flat)), (0,)))
    return of.add(element, of.real(sums.mul(size, sums.number(SLIP))))


def _transposed(site: GroupNormSite) -> Edit | Rejected:
    rank = site.spec.rank
    if rank is None or rank < 4 or site.flattened:
        return Rejected("fewer than two spatial axes are known")
    first = rank - 2 if site.spec.channel_axis == 1 else rank - 3
    order = [*range(rank)]
    order[first], order[first + 1] = order[first + 1], order[first]

    def change(_site: GroupNormSite, y: ir.Value, builder: Builder) -> ir.Value:
        turned = builder.op("Transpose", [y], {"perm": order}, dtype=y.dtype)
        return builder.op("Reshape", [turned, builder.op("Shape", [y], dtype=INT64)], dtype=y.dtype)

    return afterwards(change)(site)


def _swallowed(find: Callable[[Arithmetic, ir.Value], ir.Value]) -> Spelling:
    """NaN or Inf of x and of the residual taken for 0."""

    def edit(site: GroupNormSite) -> Edit | Rejected:
        if site.opset < OPSET:
            return Rejected(f"it needs opset {OPSET}, the model has {site.opset}")

        def clean(value: ir.Value, builder: Builder) -> ir.Value:
            of = Arithmetic(builder, value.dtype or DTYPES[site.spec.dtype])
            kept = of.op("Where", find(of, value), of.number(0.0), value)
            kept.shape = value.shape
            return kept

        def changed(builder: Builder) -> GroupNormSite:
            operands = {n: clean(v, builder) if n == "residual" else v for n, v in site.operands.items()}
            return replace(site, input=clean(site.input, builder), operands=operands, sum=None)

        return whole(site, changed, site.spec)

    return edit


def _is_nan(of: Arithmetic, value: ir.Value) -> ir.Value:
    return of.op("IsNaN", value, dtype=ir.DataType.BOOL)


def _is_inf(of: Arithmetic, value: ir.Value) -> ir.Value:
    """By comparing, because IsInf takes half precision only since opset 20."""
    return of.op("Equal", of.op("Abs", value), of.number(np.inf), dtype=ir.DataType.BOOL)


SPELLINGS: dict[str, Spelling] = {
    "one element stale": _one_element(False, _first),
    "last element stale": _one_element(True, _first),
    "one element 5 % off": _one_element(False, _slipped),
    "height and width swapped": _transposed,
    "NaN swallowed": _swallowed(_is_nan),
    "Inf swallowed": _swallowed(_is_inf),
}
