"""Writing a site in a form that computes only some of it: nodes of their own around it for the rest."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from gn_deploy.around.activation import write_activation
from gn_deploy.forms.base import DTYPES, Form, GroupNormSite
from gn_deploy.graph.splice import Builder
from gn_deploy.spec import Activation, GroupNormSpec


def own_part(spec: GroupNormSpec, fuses: frozenset[str]) -> GroupNormSpec:
    """What of ``spec`` a form that fuses these writes itself; the rest becomes nodes around it.

    From the outside in there are the activation, the modulation and the Casts of a wide affine; what is inside of
    something that becomes nodes is all there can be left. The layout is every form's own affair.
    """
    if spec.wide_affine and "wide_affine" not in fuses:
        fuses = frozenset()
        spec = replace(spec, dtype=spec.stash_dtype, wide_affine=False)
    modulated = spec.scale_shift and "scale_shift" not in fuses
    return replace(
        spec,
        activation=spec.activation if str(spec.activation) in fuses and not modulated else Activation.NONE,
        scale_shift=spec.scale_shift and not modulated,
        residual=spec.residual and "residual" in fuses,
    )


def write(site: GroupNormSite, form: Form, builder: Builder) -> ir.Value:
    """Adds the nodes of ``site`` in ``form``; returns the value that stands for ``site.output``."""
    spec, own, x = site.spec, own_part(site.spec, form.fuses), site.input
    dtype = DTYPES[spec.dtype]
    operands = dict(site.operands)
    if spec.residual and not own.residual:
        for name in ("residual", "residual_bias"):
            if operands.pop(name, None) is not None:
                x = builder.op("Add", [x, broadcast(site, name, builder)], dtype=dtype)
        if site.sum is not None:
            builder.stands_for[site.sum] = x
    if own.dtype != spec.dtype:
        x = builder.op("Cast", [x], {"to": int(DTYPES[own.dtype])}, dtype=DTYPES[own.dtype])
    modulation = [
        None if own.scale_shift or operands.pop(name, None) is None else broadcast(site, name, builder)
        for name in ("modulation_scale", "modulation_shift")
    ]
    if x is not site.input:
        x.shape = site.input.shape
    if site.flattened:
        sizes = builder.ints([0, spec.num_channels, -1], "sizes")
        x = builder.op("Reshape", [x, sizes], dtype=x.dtype, shape=site.output.shape)
    y = form.write(replace(site, spec=own, input=x, operands=operands), builder)
    if own.dtype != spec.dtype:
        y = builder.op("Cast", [y], {"to": int(dtype)}, dtype=dtype)
    y.dtype = dtype  # where the graph does not say what x is
    y = _modulated(y, modulation, dtype, builder)
    return y if own.activation is spec.activation else write_activation(y, spec.activation, builder)


def broadcast(site: GroupNormSite, name: str, builder: Builder) -> ir.Value:
    """An operand with axes that broadcast it against x, where it is (N, C) or, as a bias, (C,)."""
    operand, rank = site.operands[name], site.spec.rank
    pairs = operand.shape is not None and len(operand.shape) == 2
    if rank is None or rank == 2 or not (pairs or name == "residual_bias"):
        return operand
    sizes = [1] * rank
    sizes[0] = 0 if pairs else 1  # 0: as many samples as it has
    sizes[site.spec.channel_axis] = site.spec.num_channels
    return builder.op("Reshape", [operand, builder.ints(sizes, "sizes")], dtype=operand.dtype)


def _modulated(
    y: ir.Value, modulation: Sequence[ir.Value | None], dtype: ir.DataType, builder: Builder
) -> ir.Value:
    scale, shift = modulation
    if scale is not None:
        one = builder.constant(np.ones((), dtype.numpy()), "one", dtype)
        y = builder.op("Mul", [y, builder.op("Add", [scale, one], dtype=dtype)], dtype=dtype)
    return y if shift is None else builder.op("Add", [y, shift], dtype=dtype)
