"""Faults of arithmetic: fewer bits than promised, by pairs of Casts or by sums that lose the lower bits."""

from dataclasses import replace

import onnx_ir as ir

from gn_deploy.around.activation import write_activation
from gn_deploy.around.write import broadcast, write
from gn_deploy.decision import Rejected
from gn_deploy.forms.base import DTYPES, GroupNormSite
from gn_deploy.forms.base_write import cast, enter, grouped, parameter, ungrouped
from gn_deploy.graph.passing import to_last
from gn_deploy.graph.splice import Builder
from gn_deploy.mutation.arithmetic import Arithmetic
from gn_deploy.mutation.base import OPSET, Altered, Edit, Spelling, form_for, inside
from gn_deploy.mutation.elements import afterwards
from gn_deploy.spec import Activation

_EVERYTHING = frozenset(("scale_shift", "wide_affine", *map(str, Activation)))
"""What ``_computed`` writes itself; only the sum with a residual is left to others."""


def _computed(narrow: ir.DataType) -> Spelling:
    """Every tensor held in ``narrow``, sums taken in the type of the statistics."""

    def normal(site: GroupNormSite, builder: Builder) -> ir.Value:
        spec, dtype, stash = site.spec, DTYPES[site.spec.dtype], DTYPES[site.spec.stash_dtype]
        of = Arithmetic(builder, stash)

        def q(value: ir.Value) -> ir.Value:
            return of.rounded(value, narrow)

        x = enter(site, builder)
        rows = q(cast(grouped(site, x, builder), dtype, stash, builder))
        centred = q(of.sub(rows, q(of.mean(rows))))
        variance = q(of.mean(q(of.square(centred))))
        root = q(of.sqrt(q(of.add(variance, of.number(spec.epsilon)))))
        z = ungrouped(site, q(of.mul(centred, q(of.div(of.number(1.0), root)))), x, builder)
        if x is not site.input:
            z = builder.op("Transpose", [z], {"perm": to_last(spec.rank or 0)}, dtype=stash)
        weight, offset = _affine(site, of)
        if weight is not None:
            z = q(of.mul(z, q(weight)))
        if offset is not None:
            z = q(of.add(z, q(offset)))
        return cast(q(write_activation(z, spec.activation, builder)), stash, dtype, builder)

    def edit(site: GroupNormSite) -> Edit | Rejected:
        if site.opset < OPSET:
            return Rejected(f"it needs opset {OPSET}, the model has {site.opset}")
        if site.spec.rank is None:
            return Rejected("the rank of its input is not known")
        return Edit(site, lambda _, builder: write(site, Altered(normal, fuses=_EVERYTHING), builder))

    return edit


def _affine(site: GroupNormSite, of: Arithmetic) -> tuple[ir.Value | None, ir.Value | None]:
    """scale (1 + s) and bias (1 + s) + t, broadcast against x."""
    spec = site.spec
    along = [spec.num_channels] + [1] * ((spec.rank or 2) - 2) if spec.channel_axis == 1 else [spec.num_channels]
    weight, offset = (
        None if (held := parameter(site, which, along, of.builder)) is None else of.real(held)
        for which in ("scale", "bias")
    )
    if "modulation_scale" in site.operands:
        gain = of.add(of.real(broadcast(site, "modulation_scale", of.builder)), of.number(1.0))
        weight = gain if weight is None else of.mul(weight, gain)
        offset = None if offset is None else of.mul(offset, gain)
    if "modulation_shift" in site.operands:
        shift = of.real(broadcast(site, "modulation_shift", of.builder))
        offset = shift if offset is None else of.add(offset, shift)
    return weight, offset


def _stored(narrow: ir.DataType) -> Spelling:
    return afterwards(lambda site, y, builder: Arithmetic(builder, DTYPES[site.spec.dtype]).rounded(y, narrow))


def _tf32(site: GroupNormSite) -> Edit | Rejected:
    if site.bare.spec.dtype != "float32":
        return Rejected(f"TF32 stands for float32, the site is in {site.bare.spec.dtype}")
    form = form_for(site.bare, site.bare.spec)
    if isinstance(form, Rejected):
        return form

    def normal(own: GroupNormSite, builder: Builder) -> ir.Value:
        of = Arithmetic(builder, DTYPES[own.spec.dtype])
        x = of.split(own.input, "tf32")
        x.shape = own.input.shape
        return form.write(replace(own, input=x), builder)

    return inside(site, normal)


SPELLINGS: dict[str, Spelling] = {
    "bfloat16 arithmetic": _computed(ir.DataType.BFLOAT16),
    "float16 arithmetic": _computed(ir.DataType.FLOAT16),
    "TF32 arithmetic": _tf32,
    "stored in bfloat16": _stored(ir.DataType.BFLOAT16),
    "stored in float16": _stored(ir.DataType.FLOAT16),
}
