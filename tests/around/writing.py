"""A model with one Group Normalization and what is around it, written from a spec."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from gn_deploy.around.write import own_part, write
from gn_deploy.decision import Decision
from gn_deploy.forms import FORMS
from gn_deploy.forms.base import DTYPES, GroupNormSite, Parameter
from gn_deploy.graph.splice import Builder, Names
from gn_deploy.spec import GroupNormSpec
from tests.forms.writing import Affine

Shape = Sequence[int | str]


def legal(form: str, spec: GroupNormSpec, opset: int) -> Decision:
    found = FORMS.require(form)
    return found.legal(own_part(spec, found.fuses), opset)


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
    y = write(site, FORMS.require(form), builder)
    for value in builder.initializers:
        graph.register_initializer(value)
    graph.extend(builder.nodes)
    for value, name in ((y, "y"), *((v, "sum") for v in builder.stands_for.values())):
        value.name, value.shape, value.dtype = name, ir.Shape(shape), dtype
        graph.outputs.append(value)
    graph.opset_imports.update(dict.fromkeys(builder.domains, 1))
    return model
