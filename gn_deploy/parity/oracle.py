"""The float64 oracle of a whole network or region: onnx.reference, every number promoted, two-pass statistics."""

import copy
from typing import TYPE_CHECKING

from gn_deploy.runtimes import RUNTIMES

if TYPE_CHECKING:
    import onnx_ir as ir

    from gn_deploy.runtimes.base import Runtime, Session

REFERENCE_RUNTIME = "onnx-reference"


def reference_runtime() -> "Runtime":
    return RUNTIMES.require(REFERENCE_RUNTIME)


def open_oracle(model: "ir.Model") -> "Session":
    """``model`` in float64; raises RuntimeFailure when onnx.reference cannot evaluate it."""
    own = model.clone()
    for graph in own.graphs():
        for value in [*graph.inputs, *graph.initializers.values(), *(v for node in graph for v in node.outputs)]:
            value.type = copy.copy(value.type)  # a clone shares them, and promotion writes into them
    return reference_runtime().open(own, precision="float64")
