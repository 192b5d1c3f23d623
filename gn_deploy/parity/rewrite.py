"""Whether a rewritten GroupNorm means the same: both versions run in float64, whatever runtime comes later."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from gn_deploy.decision import Accepted, Decision, Rejected
from gn_deploy.errors import GnDeployError
from gn_deploy.parity.cases import Array, deal, hands
from gn_deploy.parity.metrics import by_slot, nonfinite_mismatch
from gn_deploy.parity.operands import draw, for_oracle
from gn_deploy.parity.oracle import open_oracle
from gn_deploy.parity.per_site import is_dynamic, name_of, parameters
from gn_deploy.parity.probe import probe_shapes, shape_feeds
from gn_deploy.parity.tolerance import Bounds, bounds
from gn_deploy.rounding import FORMATS
from gn_deploy.spec import Activation, GroupNormSpec

if TYPE_CHECKING:
    import onnx_ir as ir

    from gn_deploy.forms.base import GroupNormSite, Parameter
    from gn_deploy.runtimes.base import Session

MAX_ELEMENTS = 1 << 21  # evaluated per shape; a larger static shape is given as many tensors as fit, and at least one
_SLACK = 4.0  # the oracle is float64 as well: its own error is as large as what it judges
_ATTRIBUTE = FORMATS["float32"].u  # ONNX keeps epsilon in a float32 attribute


def check(site: "GroupNormSite", before: "ir.Model", after: "ir.Model") -> Decision:
    """Whether ``before`` and ``after`` both compute ``site``, on every family and, for dynamic shapes, two sizes.

    Both are the region cut out: x first, then residual, modulation, and scale and bias when they are only known at run
    time, one output. They run promoted to float64, so neither a runtime's arithmetic nor a Cast to half precision
    inside plays a part, and are compared with the oracle by the bound of float64, to which only the rounding of
    epsilon, of folded parameters and of an activation's constants to the file's own type is added. ``before`` may be
    one-pass: it is allowed the error of that formula, the meaning is right; ``after`` is not.
    """
    import onnx_ir as ir

    spec = replace(site.spec, dtype="float64", stash_dtype="float64", wide_affine=False)
    trials = _trials(site, spec, before)
    for told, model, one_pass in (("the nodes found", before, True), ("the nodes written", after, False)):
        for value in model.graph.inputs:
            if value.dtype is None:  # nobody infers the types behind another domain's nodes
                value.type = ir.TensorType(ir.DataType.DOUBLE)
        try:
            session = open_oracle(model)
            try:
                for trial in trials:
                    if wrong := _difference(trial, spec, model, session, one_pass):
                        return Rejected(f"{told} do not compute this GroupNorm: {wrong}")
            finally:
                session.close()
        except GnDeployError as error:
            return Rejected(f"{told} cannot be evaluated: {error.message}")
    return Accepted("equal to the float64 oracle on every input family")


_ROUNDED = (Activation.HARDSWISH, Activation.GELU, Activation.GELU_TANH)
"""Made of numbers that no binary type holds: 1/6, the root of 2, 0.044715. Off by u they move y by at most 2 u |y|."""


@dataclass(frozen=True, slots=True)
class _Trial:
    """One x with the families in its slots, what else is read at run time, and the answer with its bounds."""

    x: Array
    hand: Sequence[str]
    others: dict[str, Array]
    """By the names of the values."""
    limits: Bounds


def _trials(site: "GroupNormSite", spec: GroupNormSpec, model: "ir.Model") -> list[_Trial]:
    rng = np.random.default_rng(0)
    given = [p for p in (site.scale, site.bias) if p is not None]
    dynamic = {name_of(p): rng.standard_normal(_length(p, spec)) for p in given if is_dynamic(p)}
    scale, bias = parameters(site, dynamic)
    folded = any(p.array is not None and p.value is None for p in given)
    rounding = FORMATS[site.spec.dtype].u if folded or spec.activation in _ROUNDED else 0.0
    found = []
    for shape in probe_shapes(spec, [model.graph.inputs[0], site.input]):
        total = 0
        for x, hand in zip(deal(shape, spec, dtype="float32"), hands(shape, spec), strict=True):
            total += x.size
            if total > MAX_ELEMENTS and total > x.size:
                break
            x = x.astype(np.float64)
            operands = draw(site.input, site.operands, x, spec.channel_axis)
            around = for_oracle(operands, x, spec.channel_axis)
            limits = bounds(x, spec, scale, bias, epsilon_rounding=_ATTRIBUTE, parameter_rounding=rounding, **around)
            named = {str(site.operands[name].name): array for name, array in operands.items()}
            found.append(_Trial(x, hand, named | dynamic, limits))
    return found


def _difference(trial: _Trial, spec: GroupNormSpec, model: "ir.Model", session: "Session", one_pass: bool) -> str:
    """What is wrong on one trial; "" when nothing is."""
    shape, reference = trial.x.shape, trial.limits.reference
    others = shape_feeds(model, shape, known=list(trial.others))
    if isinstance(others, str):
        return others
    feeds = {str(model.graph.inputs[0].name): trial.x, **trial.others, **others}
    (y,) = session.run(feeds).values()
    y = y.reshape(shape) if y.ndim == spec.rank != len(shape) else y  # a flattened site
    if y.shape != shape:
        return f"x of shape {shape} gives y of shape {y.shape}"
    bound = _SLACK * (trial.limits.one_pass if one_pass else trial.limits.two_pass)
    if not nonfinite_mismatch(y, reference, bound, "float64").any() and (np.abs(y - reference) <= bound).all():
        return ""
    with np.errstate(all="ignore"):
        errors = np.nan_to_num(by_slot(np.abs(y - reference) / bound, spec).max(axis=1), nan=np.inf)
    worst = int(errors.argmax())
    largest = float(np.abs(by_slot(y - reference, spec)[worst]).max())
    return f"off by up to {largest:.3g} on {trial.hand[worst]} values of shape {shape}"


def _length(parameter: "Parameter", spec: GroupNormSpec) -> int:
    return spec.num_groups if parameter.per_group else spec.num_channels
