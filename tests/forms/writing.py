"""A model with one Group Normalization, and what is around it, written by a form from a spec."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from gn_deploy.around.write import write as write_site
from gn_deploy.forms import FORMS
from gn_deploy.forms.base import DTYPES, GroupNormSite, Parameter, ReadOnly
from gn_deploy.graph.splice import Builder, Names
from gn_deploy.spec import GroupNormSpec

Affine = NDArray[np.generic] | None
Shape = Sequence[int | str]
WRITTEN = [f.name for f in map(FORMS.require, FORMS.names()) if not isinstance(f, ReadOnly)]
"""Names of the forms that are written as well as read."""


def write(form: str, spec: GroupNormSpec, scale: Affine, bias: Affine, shape: Shape, opset: int) -> ir.Model:
    """x -> y in ``form``, everything else left out."""
    return written(form, spec, (scale, bias), shape, opset, {})


def written(
    form: str,
    spec: GroupNormSpec,
    affine: tuple[Affine, Affine],
    shape: Shape,
    opset: int,
    operands: Mapping[str, Shape],
    *,
    keep_sum: bool = False,
) -> ir.Model:
    """x and ``operands`` (shapes by name) -> y, and the sum with the residual where it is kept."""
    dtype = DTYPES[spec.dtype]
    x, *others = (
        ir.Value(name=name, shape=ir.Shape(dims), type=ir.TensorType(dtype))
        for name, dims in (("x", shape), *operands.items())
    )
    graph = ir.Graph([x, *others], [], nodes=[], opset_imports={"": opset}, name="one")
    model = ir.Model(graph, ir_version=13 if opset > 23 else 10)
    wide = DTYPES["float32"].numpy() if spec.wide_affine else dtype.numpy()
    held = [None if a is None else Parameter(array=np.asarray(a).astype(wide)) for a in affine]
    total = ir.Value(name="sum") if keep_sum else None
    named = dict(zip(operands, others, strict=True))
    site = GroupNormSite(spec, "test", "gn", x, x, held[0], held[1], (), operands=named, sum=total)
    builder = Builder(Names(model), "gn", opset)
    y = write_site(site, FORMS.require(form), builder)
    for value in builder.initializers:
        graph.register_initializer(value)
    graph.extend(builder.nodes)
    for value, name in ((y, "y"), *((v, "sum") for v in builder.stands_for.values())):
        value.name, value.shape, value.dtype = name, ir.Shape(shape), dtype
        graph.outputs.append(value)
    graph.opset_imports.update(dict.fromkeys(builder.domains, 1))
    model.functions.update({key: body() for key, body in builder.functions.items()})
    return model


def affine(spec: GroupNormSpec, which: str) -> tuple[Affine, Affine]:
    """Parameters that tell every channel from every other; ``which`` is none, scale, bias or both."""
    channels = np.arange(spec.num_channels, dtype=np.float64)
    scale = 0.5 + channels / spec.num_channels if which in ("scale", "both") else None
    bias = channels / 4 - 1.5 if which in ("bias", "both") else None
    dtype = DTYPES[spec.dtype].numpy()
    return (None if scale is None else scale.astype(dtype)), (None if bias is None else bias.astype(dtype))
