"""A seeded site cut out of its model and run alone, beside what the table of faults says of the same numbers."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from gn_deploy.faults import Fault
from gn_deploy.forms.base import GroupNormSite
from gn_deploy.graph.cut import cut
from gn_deploy.graph.io import as_model
from gn_deploy.graph.normalize import normalize
from gn_deploy.parity.operands import draw, for_oracle
from gn_deploy.parity.per_site import channels
from gn_deploy.parity.probe import probe_shapes, shape_feeds
from gn_deploy.runtimes import RUNTIMES
from gn_deploy.sites import find

GOLDEN = Path(__file__).parents[1] / "golden" / "exporters"


def golden(name: str) -> tuple[ir.Model, GroupNormSite]:
    model = normalize(as_model(GOLDEN / f"{name}.onnx"))
    return model, find(model).sites[0]


@dataclass(frozen=True)
class Given:
    """What one site is fed: x, the operands around it, and scale and bias that are only known at run time."""

    x: np.ndarray
    operands: dict[str, np.ndarray]
    parameters: dict[str, np.ndarray]

    def answer(self, fault: Fault, site: GroupNormSite, dtype: str) -> np.ndarray:
        """What ``fault`` makes of it; epsilon as a file holds it, in float32."""
        stash = "float64" if dtype == "float64" else site.spec.stash_dtype
        spec = replace(site.spec, dtype=dtype, stash_dtype=stash, epsilon=float(np.float32(site.spec.epsilon)))
        scale, bias = (
            channels(p, spec, self.parameters.get(str(p.value.name) if p and p.value else ""))
            for p in (site.scale, site.bias)
        )
        return fault.compute(self.x, spec, scale, bias, **for_oracle(self.operands, self.x, spec.channel_axis))


def given(site: GroupNormSite, shape: Sequence[int], dtype: str = "float64", scale: float = 1.0) -> Given:
    """Spread about the root of epsilon, so that everything that is wrong with epsilon shows."""
    rng = np.random.default_rng(3)
    x = (scale * (rng.standard_normal(tuple(shape)) * 0.003 + 0.001)).astype(dtype)
    spec = site.spec
    parameters = {
        str(p.value.name): rng.standard_normal(spec.num_groups if p.per_group else spec.num_channels).astype(dtype)
        for p in (site.scale, site.bias)
        if p is not None and p.array is None and p.value is not None
    }
    return Given(x, draw(site.input, site.operands, x, spec.channel_axis), parameters)


def shapes(site: GroupNormSite) -> list[tuple[int, ...]]:
    return probe_shapes(site.spec, [site.input])


def run(model: ir.Model, site: GroupNormSite, fed: Given, runtime: str, **options: Any) -> np.ndarray:
    """``model``'s answer between the values that ``site``, of another model, begins and ends with."""
    graphs = [*model.graphs()]
    named = {v.name: v for g in graphs for v in (*g.inputs, *g.initializers.values())}
    named |= {v.name: v for g in graphs for node in g for v in node.outputs}
    ends = [named[v.name] for v in (site.input, *site.runtime_inputs)]
    alone = cut(model, ends, [named[site.output.name]])
    for value in alone.graph.inputs:
        if value.dtype is None:
            value.type = ir.TensorType(ir.DataType.FLOAT)
    feeds = {str(site.input.name): fed.x} | fed.parameters
    feeds |= {str(site.operands[name].name): array for name, array in fed.operands.items()}
    others = shape_feeds(alone, fed.x.shape, known=list(feeds))
    assert isinstance(others, dict)
    session = RUNTIMES.require(runtime).open(alone, **options)
    (y,) = session.run(feeds | others).values()
    session.close()
    return y.reshape(fed.x.shape)
