"""Why a seeded fault showed nothing, and with what it would."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from gn_deploy.faults import Fault, Kind
from gn_deploy.mutation.effect import Exact
from gn_deploy.parity.per_site import Override
from gn_deploy.parity.report import SiteVerdict
from gn_deploy.parity.status import Status

if TYPE_CHECKING:
    from gn_deploy.forms.base import GroupNormSite, Parameter

BROKEN = "it is broken as it is: put that right first"
_NEEDED = {
    "there is one sample": "there is one sample: use batches of two or more, --dim batch=2 or other data",
    "fewer than two spatial axes are known": "it has fewer than two spatial axes",
}


def cannot_act(reason: str) -> str:
    return _NEEDED.get(reason, reason)


def no_effect(fault: Fault, site: "GroupNormSite") -> str:
    """Why the answer stays the same with a fault that can act."""
    match fault.kind:
        case Kind.AFFINE:
            told = " and ".join(filter(None, (_uniform("scale", site.scale, 1.0), _uniform("bias", site.bias, 0.0))))
            return f"{told}: --redraw-affine draws others" if told else "scale and bias do not show it"
        case Kind.NAN:
            return "no input brings NaN or Inf there: add a case that does, if it can happen"
        case Kind.EPSILON:
            return "the variance is far above epsilon there: add inputs scaled down, or a blank one"
        case Kind.VARIANCE | Kind.PRECISION:
            return "rounding is as large there: add inputs with a large offset"
        case Kind.BATCH:
            return "the samples are alike there: use batches of different ones"
    return "what reaches it does not show it: add inputs that differ over channels and space"


def unnoticed(fault: Fault, calls: Sequence[Exact], override: Override | None, verdict: SiteVerdict | None) -> str:
    """Why the comparison held all the same."""
    if verdict is None or verdict.status is Status.NOTRUN:
        why = verdict.reason if verdict is not None else "it has no counterpart in A"
        return f"the GroupNorm is not judged by itself ({why}), and the outputs do not show it"
    if max(call.over_bound(fault) for call in calls) <= 1:
        return "rounding may do as much there: inputs whose spread is small beside epsilon or their mean would show it"
    if override is not None:
        return "the tolerance asked for allows it, the derived bound does not: leave out --atol and --rtol"
    return "beyond the bound in exact arithmetic, but not as the runtime computed it"


def _uniform(name: str, held: "Parameter | None", absent: float) -> str:
    """``scale is 1``, where every channel has the same number."""
    if held is None:
        return f"{name} is {absent:g}"
    if held.array is None:
        return ""
    numbers = np.unique(held.array)
    return f"{name} is {float(numbers[0]):g}" if len(numbers) == 1 else ""
