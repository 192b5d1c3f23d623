"""Whether a rewritten GroupNorm means the same: both versions run in float64, whatever runtime comes later."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from gn_deploy.decision import Accepted, Decision, Rejected
from gn_deploy.errors import GnDeployError
from gn_deploy.parity.cases import Array, deal, hands
from gn_deploy.parity.metrics import by_slot, measure
from gn_deploy.parity.per_site import channels, is_dynamic, probe_shapes, shape_feeds
from gn_deploy.parity.tolerance import FORMATS, bounds
from gn_deploy.runtimes import RUNTIMES
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

    Both are the region cut out: x first, then scale and bias when they are only known at run time, one output. They
    run promoted to float64, so neither a runtime's arithmetic nor a Cast to half precision inside plays a part, and are
    compared with the oracle by the bound of float64, to which only the rounding of epsilon and of folded parameters to
    the file's own type is added. ``before`` may be one-pass: it is allowed the error of that formula, the meaning is
    right; ``after`` is not.
    """
    runtime = RUNTIMES.require("onnx-reference")
    spec = replace(site.spec, dtype="float64", stash_dtype="float64")
    if before.graph.outputs[0].name == site.output.name:
        spec = replace(spec, activation=Activation.NONE)
    versions = (("the nodes found", before, True), ("the nodes written", after, False))
    for told, model, one_pass in versions:
        try:
            session = runtime.open(model, precision="float64")
            try:
                for shape in probe_shapes(site, model.graph.inputs[0]):
                    if wrong := _difference(site, spec, model, session, shape, one_pass):
                        return Rejected(f"{told} do not compute this GroupNorm: {wrong}")
            finally:
                session.close()
        except GnDeployError as error:
            return Rejected(f"{told} cannot be evaluated: {error.message}")
    return Accepted("equal to the float64 oracle on every input family")


def _difference(
    site: "GroupNormSite",
    spec: GroupNormSpec,
    model: "ir.Model",
    session: "Session",
    shape: tuple[int, ...],
    one_pass: bool,
) -> str:
    """What is wrong on one shape; "" when nothing is."""
    rng = np.random.default_rng(0)
    dynamic = {
        str(p.value.name): rng.standard_normal(_length(p, spec))
        for p in (site.scale, site.bias)
        if p is not None and is_dynamic(p) and p.value is not None
    }
    others = shape_feeds(model, shape, known=list(dynamic))
    if isinstance(others, str):
        return others
    scale, bias = (
        channels(p, spec, dynamic.get(str(p.value.name)) if p and p.value is not None else None)
        for p in (site.scale, site.bias)
    )
    folded = any(p is not None and p.array is not None and p.value is None for p in (site.scale, site.bias))
    rounding = FORMATS[site.spec.dtype].u if folded else 0.0
    entry = str(model.graph.inputs[0].name)
    total = 0
    for x, hand in zip(deal(shape, spec, dtype="float32"), hands(shape, spec), strict=True):
        total += x.size
        if total > MAX_ELEMENTS and total > x.size:
            break
        x = x.astype(np.float64)
        (y,) = session.run({entry: x, **dynamic, **others}).values()
        limits = bounds(x, spec, scale, bias, epsilon_rounding=_ATTRIBUTE, parameter_rounding=rounding)
        if wrong := _worst(y, limits.reference, limits.one_pass if one_pass else limits.two_pass, spec, hand, shape):
            return wrong
    return ""


def _worst(
    y: Array, reference: Array, bound: Array, spec: GroupNormSpec, hand: Sequence[str], shape: tuple[int, ...]
) -> str:
    if y.shape != reference.shape:
        return f"x of shape {shape} gives y of shape {y.shape}"
    metrics = measure(y, reference, _SLACK * bound, dtype="float64")
    if metrics.error_over_bound <= 1:
        return ""
    errors = np.nan_to_num(by_slot(np.abs(y - reference) / bound, spec).max(axis=1), nan=np.inf)
    return f"off by up to {metrics.max_abs:.3g} on {hand[int(errors.argmax())]} values of shape {shape}"


def _length(parameter: "Parameter", spec: GroupNormSpec) -> int:
    return spec.num_groups if parameter.per_group else spec.num_channels
