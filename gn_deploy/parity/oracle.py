"""The float64 oracle of a whole network or region: onnx.reference, every number promoted, two-pass statistics."""

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
    return reference_runtime().open(model, precision="float64")
