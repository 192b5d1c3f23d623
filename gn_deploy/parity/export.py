"""Whether an exported model computes what the module it came from does."""

from typing import TYPE_CHECKING, Any

import numpy as np

from gn_deploy.exporters.examples import named_inputs
from gn_deploy.parity.cases import Case, input_specs, model_cases
from gn_deploy.parity.harness import REFERENCE_RUNTIME, Subject, judge
from gn_deploy.parity.report import ParityReport
from gn_deploy.runtimes import RUNTIMES
from gn_deploy.runtimes.torch_eager import TorchModel
from gn_deploy.sites import find

if TYPE_CHECKING:
    import onnx_ir as ir
    from torch import nn

    from gn_deploy.runtimes.base import Session


def against_module(module: "nn.Module", inputs: Any, model: "ir.Model") -> ParityReport:
    """``model``, evaluated as the ONNX standard says in its own dtypes, judged against ``module`` in float64.

    End to end on the example inputs and on normal ones of the same sizes; each GroupNorm also on probes of its own.
    """
    cases = [case for case in example_cases(model, module, inputs) if case.conditioned]
    subject = Subject(REFERENCE_RUNTIME, REFERENCE_RUNTIME, model)
    oracle = module_oracle(module, model)
    try:
        return judge(
            model, find(model).sites, [subject], cases, oracle=oracle, names=("module", "export"), in_place=False
        )
    finally:
        oracle.close()


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
