"""A model with one Group Normalization, written by a form from a spec: what the tests of forms start from."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from gn_deploy.forms import FORMS
from gn_deploy.forms.base import DTYPES, GroupNormSite, Parameter, ReadOnly
from gn_deploy.graph.splice import Builder, Names
from gn_deploy.spec import GroupNormSpec

Affine = NDArray[np.generic] | None
WRITTEN = [f.name for f in map(FORMS.require, FORMS.names()) if not isinstance(f, ReadOnly)]
"""Names of the forms that are written as well as read."""


def write(
    form: str, spec: GroupNormSpec, scale: Affine, bias: Affine, shape: Sequence[int | str], opset: int
) -> ir.Model:
    """x -> y in ``form``, everything else left out."""
    dtype = DTYPES[spec.dtype]
    x = ir.Value(name="x", shape=ir.Shape(shape), type=ir.TensorType(dtype))
    graph = ir.Graph([x], [], nodes=[], opset_imports={"": opset}, name="one")
    model = ir.Model(graph, ir_version=13 if opset > 23 else 10)
    held = [None if a is None else Parameter(array=a.astype(dtype.numpy())) for a in (scale, bias)]
    site = GroupNormSite(spec, "test", "gn", x, x, held[0], held[1], ())
    builder = Builder(Names(model), "gn", opset)
    y = FORMS.require(form).write(site, builder)
    y.name, y.shape, y.dtype = "y", ir.Shape(shape), dtype
    for value in builder.initializers:
        graph.register_initializer(value)
    graph.extend(builder.nodes)
    graph.outputs.append(y)
    graph.opset_imports.update(dict.fromkeys(builder.domains, 1))
    return model


def affine(spec: GroupNormSpec, which: str) -> tuple[Affine, Affine]:
    """Parameters that tell every channel from every other; ``which`` is none, scale, bias or both."""
    channels = np.arange(spec.num_channels, dtype=np.float64)
    scale = 0.5 + channels / spec.num_channels if which in ("scale", "both") else None
    bias = channels / 4 - 1.5 if which in ("bias", "both") else None
    dtype = DTYPES[spec.dtype].numpy()
    return (None if scale is None else scale.astype(dtype)), (None if bias is None else bias.astype(dtype))
