"""Whether a stretch of a network computes what it should, on the values that a runtime itself had at its start."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gn_deploy.parity.appearance import appearance
from gn_deploy.parity.cases import Array, Case
from gn_deploy.parity.end_to_end import PASS_RATIO, EndToEnd
from gn_deploy.parity.oracle import open_oracle
from gn_deploy.parity.report import Metrics, OutputVerdict
from gn_deploy.parity.status import Status
from gn_deploy.rounding import FORMATS

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True, slots=True, eq=False)
class Wrong:
    """One value that is not what the float64 oracle makes of the values before it."""

    value: str
    ratio: float
    """Error over the noise that rounding makes; infinite for NaN and for wrong integers."""
    metrics: Metrics | None
    looks_like: str
    actual: Array
    expected: Array
    noise: float
    """What rounding may do to one number of it; 0 for integers."""


def wrong_values(
    stretch: "ir.Model", feeds: Mapping[str, Array], actual: Mapping[str, Array], types: str, limit: float = PASS_RATIO
) -> list[Wrong]:
    """The outputs of ``stretch`` whose error is beyond ``limit`` times the noise, in the stretch's order.

    ``types`` names what was promised to be computed in ("float32"). Raises RuntimeFailure when there is no oracle.
    """
    case = Case("here", dict(feeds), "here", True)
    oracle = open_oracle(stretch)
    whole = EndToEnd(stretch, oracle)
    found = []
    try:
        for value in stretch.graph.outputs:
            name = str(value.name)
            if actual[name].size == 0:
                continue
            verdict = whole.judge("", name, {case.name: actual[name]}, [case], types=types)
            if (ratio := _ratio(verdict)) > limit:
                found.append(_told(name, ratio, verdict, actual[name], whole, case, types))
    finally:
        whole.close()
        oracle.close()
    return found


def promised(model: "ir.Model", asked: str = "") -> str:
    """What a model's numbers may be rounded to: the types it is written in, and the one a runtime was asked for."""
    values = [*model.graph.inputs, *model.graph.initializers.values(), *(v for n in model.graph for v in n.outputs)]
    names = {str(v.dtype.numpy()) for v in values if v.dtype is not None and v.dtype.is_floating_point()}
    return "+".join(sorted({*names, *asked.split("+")} & FORMATS.keys())) or "float32"


def _told(
    name: str, ratio: float, verdict: OutputVerdict, actual: Array, whole: EndToEnd, case: Case, types: str
) -> Wrong:
    expected, noise = whole.scale(name, case, types)
    words = appearance(actual, expected, PASS_RATIO * noise) if noise else verdict.reason
    return Wrong(name, ratio, verdict.metrics, words, actual, expected, noise)


def _ratio(verdict: OutputVerdict) -> float:
    if verdict.status in (Status.PASS, Status.WARN):
        return verdict.noise_ratio if verdict.metrics is not None else 0.0
    return verdict.noise_ratio if verdict.metrics is not None and verdict.status is Status.FAIL else float("inf")
