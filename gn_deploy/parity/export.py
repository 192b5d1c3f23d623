"""Whether an exported model computes what the module it came from does."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gn_deploy.exporters.examples import named_inputs
from gn_deploy.parity.cases import Case, input_specs, model_cases
from gn_deploy.parity.harness import REFERENCE_RUNTIME, Subject, judge
from gn_deploy.parity.report import ParityReport
from gn_deploy.parity.status import Status
from gn_deploy.runtimes import RUNTIMES
from gn_deploy.runtimes.torch_eager import TorchModel
from gn_deploy.sites import find

if TYPE_CHECKING:
    import onnx_ir as ir
    from torch import nn

    from gn_deploy.forms.base import GroupNormSite
    from gn_deploy.runtimes.base import Session


def against_module(module: "nn.Module", inputs: Any, model: "ir.Model") -> ParityReport:
    """``model``, evaluated as the ONNX standard says in its own dtypes, judged against ``module`` in float64.

    1. End to end on the example inputs and on normal ones of the same sizes. Here it decides: the model's own
       GroupNorms cannot testify to what the module's were.
    2. Each GroupNorm on probes of its own, by the spec and parameters of the nn.GroupNorm it came from, where the
       export says which one that was.
    """
    sites = find(model).sites
    cases = [case for case in example_cases(model, module, inputs) if case.conditioned]
    subject = Subject(REFERENCE_RUNTIME, REFERENCE_RUNTIME, model)
    oracle = module_oracle(module, model)
    try:
        names = ("module", "export")
        whole = judge(model, (), [subject], cases, oracle=oracle, names=names)
        each = judge(model, sites, [subject], (), network=False, names=names)
    finally:
        oracle.close()
    told = {site.name: why for site in sites if (why := _unlike(module, site))}
    verdicts = [replace(v, status=Status.FAIL, reason=told[v.site]) if v.site in told else v for v in each.sites]
    return replace(whole, sites=tuple(verdicts))


def _unlike(module: "nn.Module", site: "GroupNormSite") -> str:
    """How the site differs from the nn.GroupNorm it came from; "" when it does not, or when that is not known."""
    from torch import nn

    try:
        origin = module.get_submodule(site.module) if site.module else None
    except AttributeError:
        return ""
    if not isinstance(origin, nn.GroupNorm):
        return ""
    spec = site.spec
    for what, found, wanted in (
        ("num_groups", spec.num_groups, origin.num_groups),
        ("num_channels", spec.num_channels, origin.num_channels),
        ("epsilon", np.float32(spec.epsilon), np.float32(origin.eps)),  # an attribute in float32
    ):
        if found != wanted:
            return f"{what} is {found:g}, the module has {wanted:g}"
    for what, held, own, neutral in (("scale", site.scale, origin.weight, 1.0), ("bias", site.bias, origin.bias, 0.0)):
        if held is not None and held.array is None:
            continue
        dtype = np.dtype(np.float32) if held is None or held.array is None else held.array.dtype
        absent = np.full(spec.num_channels, neutral)
        written = absent if held is None else np.asarray(held.array)
        trained = absent if own is None else own.detach().float().cpu().numpy()
        if not np.array_equal(written.astype(dtype), trained.astype(dtype)):
            return f"{what} is not the module's"
    return ""


def module_oracle(module: "nn.Module", model: "ir.Model") -> "Session":
    """The module in float64, taking and giving arrays by the names of ``model``."""
    names = [tuple(str(v.name) for v in values) for values in (model.graph.inputs, model.graph.outputs)]
    return RUNTIMES.require("torch").open(TorchModel(module, *names), precision="float64")


def example_cases(model: "ir.Model", module: "nn.Module", inputs: Any) -> list[Case]:
    """The example inputs themselves, and every input family at their sizes."""
    given = named_inputs(module, inputs)
    specs = input_specs(model)
    example = {s.name: t.detach().cpu().numpy() for s, t in zip(specs, given.values(), strict=True)}
    example = {s.name: np.asarray(example[s.name], dtype=s.dtype) for s in specs}
    sizes = {d: n for s in specs for d, n in zip(s.shape, example[s.name].shape, strict=True) if isinstance(d, str)}
    return [Case("example", example, "example", conditioned=True), *model_cases(specs, dims=sizes)]
