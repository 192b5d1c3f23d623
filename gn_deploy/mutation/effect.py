"""How far a fault moves the exact answer of one GroupNorm on the numbers that reach it."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from gn_deploy.decision import Rejected
from gn_deploy.faults import Fault, applies
from gn_deploy.parity.cases import Array, deal
from gn_deploy.parity.operands import draw, for_oracle
from gn_deploy.parity.per_site import channels, is_dynamic
from gn_deploy.parity.probe import LARGE, probe_shapes
from gn_deploy.parity.tolerance import bounds
from gn_deploy.reference import F64, group_norm

if TYPE_CHECKING:
    import onnx_ir as ir

    from gn_deploy.forms.base import GroupNormSite, Parameter

EFFECTIVE = 1e-6
"""Of the largest number of the answer: a fault that moves it by less is, in float32, as good as none."""


def read_by(site: "GroupNormSite") -> "list[ir.Value]":
    """Everything that a site is given while the network runs: x first, operands, scale and bias."""
    held = [p.value for p in (site.scale, site.bias) if is_dynamic(p) and p is not None and p.value is not None]
    return [site.input, *(v for v in site.operands.values() if v.const_value is None), *held]


@dataclass(frozen=True, eq=False)
class Exact:
    """One call of a GroupNorm with the right answer in float64, computed once.

    ``values`` are what ``read_by`` names, by the names of the values.
    """

    site: "GroupNormSite"
    case: str
    values: Mapping[str, Array]

    @property
    def x(self) -> Array:
        return self.values[str(self.site.input.name)]

    @cached_property
    def _given(self) -> dict[str, Any]:
        operands = {
            name: value.const_value.numpy() if value.const_value is not None else self.values[str(value.name)]
            for name, value in self.site.operands.items()
        }
        around = for_oracle(operands, self.x, self.site.spec.channel_axis)
        return around | {"scale": self._parameter(self.site.scale), "bias": self._parameter(self.site.bias)}

    def _parameter(self, held: "Parameter | None") -> Array | None:
        name = str(held.value.name) if held is not None and held.value is not None else ""
        return channels(held, self.site.spec, self.values.get(name))

    @cached_property
    def right(self) -> F64:
        return group_norm(self.x, self.site.spec, **self._given)

    def wrong(self, fault: Fault) -> F64 | Rejected:
        """Rejected where the fault cannot act."""
        acts = applies(fault, self.site.spec, self.x.shape)
        return acts if isinstance(acts, Rejected) else fault.compute(self.x, self.site.spec, **self._given)

    def moved(self, fault: Fault) -> float | Rejected:
        """max |wrong - right| / max |right|, infinite where NaN or Inf comes or goes."""
        wrong = self.wrong(fault)
        if isinstance(wrong, Rejected):
            return wrong
        finite = np.isfinite(self.right)
        if (np.isfinite(wrong) != finite).any():
            return float("inf")
        largest = float(np.abs(self.right[finite]).max(initial=0.0))
        distance = float(np.abs(wrong - self.right)[finite].max(initial=0.0))
        return distance / largest if largest else float("inf") if distance else 0.0

    def over_bound(self, fault: Fault) -> float:
        """The same in units of what rounding may do to a right answer: above 1 it would be seen."""
        wrong = self.wrong(fault)
        if isinstance(wrong, Rejected):
            return 0.0
        limits = bounds(self.x, self.site.spec, **self._given)
        with np.errstate(all="ignore"):
            ratio = np.abs(wrong - limits.reference) / limits.two_pass
        return float(np.nan_to_num(ratio, nan=0.0, posinf=np.inf).max(initial=0.0))


def probed(site: "GroupNormSite") -> Iterator[dict[str, Array]]:
    """``values`` with the families of the probe dealt over x; none where scale or bias is only known at run time."""
    if is_dynamic(site.scale) or is_dynamic(site.bias):
        return
    shape = probe_shapes(site.spec, [site.input])[0]
    for x in deal(shape, site.spec):
        around = draw(site.input, site.operands, x, site.spec.channel_axis)
        yield {str(site.operands[name].name): array for name, array in around.items()} | {str(site.input.name): x}
        if math.prod(shape) > LARGE:
            return
