"""Faults of epsilon, variance and groups: by another spec where that says it, else by other formulas."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from gn_deploy.decision import Rejected
from gn_deploy.errors import InputError
from gn_deploy.faults.grouping import PADDING
from gn_deploy.faults.precision import RSQRT
from gn_deploy.forms.base import DTYPES, GroupNormSite
from gn_deploy.forms.base_write import apply_affine, cast, enter, grouped, leave, ungrouped
from gn_deploy.graph.splice import Builder
from gn_deploy.mutation.arithmetic import Arithmetic
from gn_deploy.mutation.base import ANY, Edit, Spelling, form_for, inside
from gn_deploy.mutation.parameters import taken
from gn_deploy.spec import HALF_DTYPES, GroupNormSpec

Formula = Callable[[Arithmetic, ir.Value, GroupNormSpec], ir.Value]
"""z of rows (N, G, n) in the type of the statistics."""
Part = Callable[[Arithmetic, ir.Value], ir.Value]


def respecified(change: Callable[[GroupNormSpec], GroupNormSpec]) -> Spelling:
    """The same site told to compute another spec, in its own form."""

    def edit(site: GroupNormSite) -> Edit | Rejected:
        try:
            spec = change(site.bare.spec)
        except InputError as error:
            return Rejected(error.message)
        form = form_for(site.bare, spec)
        if isinstance(form, Rejected):
            return form

        def normal(own: GroupNormSite, builder: Builder) -> ir.Value:
            plain = taken(own, np.arange(spec.num_channels), builder)  # what is held per group has other groups now
            told = replace(own.spec, epsilon=spec.epsilon, num_groups=spec.num_groups)
            return form.write(replace(plain, spec=told), builder)

        return inside(site, normal, ANY)

    return edit


def epsilon(change: Callable[[float], float]) -> Spelling:
    return respecified(lambda spec: replace(spec, epsilon=change(spec.epsilon)))


def groups(change: Callable[[GroupNormSpec], int]) -> Spelling:
    return respecified(lambda spec: replace(spec, num_groups=change(spec)))


def formula(z: Formula) -> Spelling:
    def normal(site: GroupNormSite, builder: Builder) -> ir.Value:
        dtype, stash = DTYPES[site.spec.dtype], DTYPES[site.spec.stash_dtype]
        x = enter(site, builder)
        rows = cast(grouped(site, x, builder), dtype, stash, builder)
        normalized = cast(z(Arithmetic(builder, stash), rows, site.spec), stash, dtype, builder)
        return leave(site, apply_affine(site, ungrouped(site, normalized, x, builder), builder), builder)

    return lambda site: inside(site, normal)


def statistics_of(part: Part, axes: tuple[int, ...] = (2,)) -> Spelling:
    """Mean and variance over ``axes`` of what ``part`` makes of the rows."""

    def z(of: Arithmetic, rows: ir.Value, spec: GroupNormSpec) -> ir.Value:
        seen = part(of, rows)
        mean = of.mean(seen, axes)
        variance = of.mean(of.square(of.sub(seen, mean)), axes)
        return over_root(of, of.sub(rows, mean), variance, spec)

    return formula(z)


def reordered(order: Callable[[GroupNormSpec], list[int]]) -> Spelling:
    """Groups made of channels in another order; every channel keeps its own scale and bias."""

    def edit(site: GroupNormSite) -> Edit | Rejected:
        form = form_for(site.bare, site.bare.spec)
        if isinstance(form, Rejected):
            return form

        def normal(own: GroupNormSite, builder: Builder) -> ir.Value:
            there = np.asarray(order(own.spec))
            axis = own.spec.channel_axis if own.spec.channel_axis == 1 else (own.spec.rank or 0) - 1
            x = _gather(own.input, there, axis, builder)
            x.shape = own.input.shape
            y = form.write(replace(taken(own, there, builder), input=x), builder)
            return _gather(y, np.argsort(there), axis, builder)

        return inside(site, normal, ANY)

    return edit


def over_root(of: Arithmetic, centred: ir.Value, variance: ir.Value, spec: GroupNormSpec) -> ir.Value:
    return of.div(centred, of.sqrt(of.add(variance, of.number(spec.epsilon))))


def _gather(x: ir.Value, order: np.ndarray, axis: int, builder: Builder) -> ir.Value:
    return builder.op("Gather", [x, builder.ints(order.tolist(), "order")], {"axis": axis}, dtype=x.dtype)


def _moments(of: Arithmetic, rows: ir.Value) -> tuple[ir.Value, ir.Value]:
    centred = of.sub(rows, of.mean(rows))
    return centred, of.mean(of.square(centred))


def _outside(of: Arithmetic, rows: ir.Value, spec: GroupNormSpec) -> ir.Value:
    centred, variance = _moments(of, rows)
    return of.div(centred, of.add(of.sqrt(variance), of.number(spec.epsilon)))


def _unbiased(of: Arithmetic, rows: ir.Value, spec: GroupNormSpec) -> ir.Value:
    centred, variance = _moments(of, rows)
    n = of.real(of.size(rows, 2))
    return over_root(of, centred, of.div(of.mul(variance, n), of.sub(n, of.number(1.0))), spec)


def _one_pass(of: Arithmetic, rows: ir.Value, spec: GroupNormSpec) -> ir.Value:
    mean = of.mean(rows)
    return over_root(of, of.sub(rows, mean), of.sub(of.mean(of.square(rows)), of.square(mean)), spec)


def _mean_deviation(of: Arithmetic, rows: ir.Value, spec: GroupNormSpec) -> ir.Value:
    centred, _ = _moments(of, rows)
    return over_root(of, centred, of.square(of.mean(of.op("Abs", centred))), spec)


def _not_centred(of: Arithmetic, rows: ir.Value, spec: GroupNormSpec) -> ir.Value:
    return over_root(of, rows, of.mean(of.square(rows)), spec)


def _approximate_root(of: Arithmetic, rows: ir.Value, spec: GroupNormSpec) -> ir.Value:
    centred, variance = _moments(of, rows)
    return of.mul(over_root(of, centred, variance, spec), of.number(1 + RSQRT))


def _padded(of: Arithmetic, rows: ir.Value, spec: GroupNormSpec) -> ir.Value:
    """Zeros at the end of each row weigh mean and variance without being there: p of n + p values are 0."""
    n = of.size(rows, 2)
    extra = of.real(of.integer("Max", of.integer("Div", n, PADDING), 1))
    n = of.real(n)
    share = of.div(n, of.add(n, extra))
    mean = of.mul(of.mean(rows), share)
    centred = of.sub(rows, mean)
    zeros = of.mul(of.square(mean), of.sub(of.number(1.0), share))
    return over_root(of, centred, of.add(of.mul(of.mean(of.square(centred)), share), zeros), spec)


def _in_wide_statistics(spelling: Spelling) -> Spelling:
    """A relative error that half precision rounds away cannot be seeded in it."""

    def edit(site: GroupNormSite) -> Edit | Rejected:
        if (stash := site.bare.spec.stash_dtype) in HALF_DTYPES:
            return Rejected(f"it would be lost in statistics taken in {stash}")
        return spelling(site)

    return edit


def _without_tail(block: int) -> Part:
    def part(of: Arithmetic, rows: ir.Value) -> ir.Value:
        whole = of.integer("Mul", of.integer("Div", of.size(rows, 2), block), block)
        return of.part(rows, 2, whole)

    return part


SPELLINGS: dict[str, Spelling] = {
    "epsilon x10": epsilon(lambda e: e * 10.0),
    "epsilon /10": epsilon(lambda e: e * 0.1),
    "epsilon 1e-3": epsilon(lambda _: 1e-3),
    "epsilon absent": epsilon(lambda _: 0.0),
    "epsilon outside the root": formula(_outside),
    "epsilon in float16": epsilon(lambda e: float(np.float16(e))),
    "unbiased variance": formula(_unbiased),
    "one-pass variance": formula(_one_pass),
    "mean absolute deviation": formula(_mean_deviation),
    "no centring": formula(_not_centred),
    "half the groups": groups(lambda spec: max(1, spec.num_groups // 2)),
    "twice the groups": groups(lambda spec: spec.num_groups * 2),
    "groups swapped": groups(lambda spec: spec.channels_per_group),
    "groups one channel late": reordered(lambda spec: np.roll(np.arange(spec.num_channels), -1).tolist()),
    "groups interleaved": reordered(
        lambda spec: [*np.arange(spec.num_channels).reshape(-1, spec.num_groups).T.ravel().tolist()]
    ),
    "per channel": groups(lambda spec: spec.num_channels),
    "one group": groups(lambda _: 1),
    "batch statistics": statistics_of(lambda _, rows: rows, (0, 2)),
    "first sample's statistics": statistics_of(lambda of, rows: of.part(rows, 0, of.builder.ints([1], "one"))),
    "last element left out": statistics_of(lambda of, rows: of.part(rows, 2, of.builder.ints([-1], "end"))),
    "tail after 32s left out": statistics_of(_without_tail(32)),
    "tail after 64s left out": statistics_of(_without_tail(64)),
    "padding counted": formula(_padded),
    "approximate root": _in_wide_statistics(formula(_approximate_root)),
}
