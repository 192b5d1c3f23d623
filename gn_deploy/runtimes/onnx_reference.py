"""onnx.reference with two-pass statistics, in the model's own types or promoted whole to float64."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gn_deploy.decision import Accepted, Rejected
from gn_deploy.errors import InputError, UnavailableError
from gn_deploy.graph.branches import inline_branches
from gn_deploy.graph.normalize import lift_constants
from gn_deploy.runtimes.base import (
    Array,
    BuildResult,
    NoKernelError,
    Probe,
    RuntimeFailure,
    cast_feeds,
    installed,
    one_line,
    precision_name,
)
from gn_deploy.runtimes.handover import opened, self_contained, stored_dtypes
from gn_deploy.runtimes.promote import promote

if TYPE_CHECKING:
    import onnx_ir as ir

FLOAT32_INSIDE = ("AffineGrid", "CausalConvWithState", "LinearAttention", "MelWeightMatrix")
"""Ops for which onnx.reference computes in float32 whatever the type: no float64 oracle."""


class OnnxReferenceSession:
    """NumPy, one node after the other.

    With ``precision="float64"`` every number between the inputs and the outputs is float64: this is the oracle for
    whole networks. It promises that the values in the file are taken exactly, that no float32 is stored on the way
    (checked at every run), and relative error about 1e-15 per operation; not that discontinuous ops (Cast to int,
    Floor, TopK, Resize nearest) fall on the side on which a float32 runtime falls.
    """

    runtime = "onnx-reference"

    def __init__(self, model: "ir.Model", precision: str | None) -> None:
        import onnx_ir as ir
        from onnx_ir.passes.common import InlinePass

        clone = self_contained(model)
        if clone is model and (precision or model.functions):  # which are rewritten below
            clone = model.clone()
        self.precision = precision or precision_name(stored_dtypes(model))
        self._exact = precision == "float64"
        try:
            if clone.functions:
                InlinePass()(clone)
                lift_constants(clone)
                inline_branches(clone)  # the body of the plugin's node has one for each activation
            if self._exact:
                narrow = sorted({n.op_type for n in clone.graph.all_nodes() if n.op_type in FLOAT32_INSIDE})
                if narrow:
                    raise RuntimeFailure(f"onnx.reference computes {', '.join(narrow)} in float32: no float64 oracle")
                promote(clone)
            initializers = clone.graph.initializers
            inputs = [value for value in clone.graph.inputs if value.name not in initializers]
            self._dtypes = {str(v.name): np.dtype(v.dtype.numpy()) for v in inputs if v.dtype is not None}
            self._outputs = [str(value.name) for value in clone.graph.outputs]
            self._evaluator = _evaluator()(ir.to_proto(clone))
        except RuntimeFailure:
            raise
        except Exception as error:  # NotImplementedError, RuntimeError, TypeError ... as the evaluator likes
            if re.search("from domain '.+' is unknown", str(error)):
                raise NoKernelError(f"onnx.reference does not know an operator: {one_line(error)}") from error
            raise RuntimeFailure(f"onnx.reference cannot open the model: {one_line(error)}") from error

    def run(
        self, feeds: Mapping[str, Array], *, disturb: Callable[[Array], Array] | None = None
    ) -> dict[str, Array]:
        """``disturb`` changes every input and weight, and every result of every node of the main graph.

        With it the statistics of normalizations are summed as the plainest right kernel does, by one SIMD register.
        """
        if self._evaluator is None:
            raise RuntimeFailure("the onnx-reference session is closed")
        given = cast_feeds(feeds, self._dtypes)
        try:
            with np.errstate(all="ignore"), ExitStack() as stack:  # overflow and NaN are results, judged by others
                if disturb is not None:
                    given = {name: disturb(array) for name, array in (self._evaluator.rt_inits_ | given).items()}
                    stack.enter_context(_disturbed(self._evaluator.rt_nodes_, disturb))
                values = self._evaluator.run(None, given, intermediate=True)
        except Exception as error:
            raise RuntimeFailure(f"onnx.reference failed: {one_line(error)}") from error
        if self._exact:
            for name, value in values.items():
                if isinstance(value, np.ndarray) and value.dtype.name in ("float32", "float16", "bfloat16"):
                    raise RuntimeFailure(f"value '{name}' came out in {value.dtype.name}, so this is no float64 oracle")
        return {name: np.asarray(values[name]) for name in self._outputs}

    def close(self) -> None:
        self._evaluator = None


class OnnxReference:
    """``open`` takes an ``ir.Model`` or a path; local functions are inlined on a copy."""

    name = "onnx-reference"
    packages = ("onnx", "onnx_ir", "onnx.reference")
    precisions = ("float64",)

    def probe(self) -> Probe:
        found = installed("onnx")
        run = Accepted() if found else Rejected("onnx is not installed: pip install onnx")
        return Probe(self.name, found, run, Rejected("onnx.reference interprets models; nothing to build"))

    def open(self, model: "ir.Model | Path", *, precision: str | None = None) -> OnnxReferenceSession:
        if precision not in (None, "float64"):
            raise InputError(
                f"onnx-reference runs a model in its own types or in float64, not in {precision}",
                "write the model in that type first: gn-deploy lower --target onnx:fp16",
            )
        return OnnxReferenceSession(opened(model), precision)

    def build(self, model: Path, out: Path, **options: Any) -> BuildResult:
        raise UnavailableError(self.probe().build.reason)


@contextmanager
def _disturbed(nodes: Sequence[Any], disturb: Callable[[Array], Array]) -> Iterator[None]:
    from gn_deploy.runtimes.reference_ops import ACCUMULATORS

    def after(run: Callable[..., tuple[Any, ...]]) -> Callable[..., tuple[Any, ...]]:
        def disturbed(*inputs: Any, **options: Any) -> tuple[Any, ...]:
            return tuple(disturb(v) if isinstance(v, np.ndarray) else v for v in run(*inputs, **options))

        return disturbed

    for node in nodes:
        node.run = after(node.run)
    plain = ACCUMULATORS.set(8)  # lanes of the narrowest register in use, AVX2: fewer lanes, more error
    try:
        yield
    finally:
        ACCUMULATORS.reset(plain)
        for node in nodes:
            del node.run  # the method of its class shows again


def _evaluator() -> type[Any]:
    """ReferenceEvaluator whose every instance, function bodies included, knows our operators."""
    from onnx.reference import ReferenceEvaluator

    from gn_deploy.runtimes import reference_fused, reference_grid, reference_ops, reference_windows

    operators = [*reference_ops.OPS, *reference_windows.OPS, *reference_grid.OPS]
    for operator in operators:
        operator.op_domain = ""
    operators += reference_fused.OPS

    class Evaluator(ReferenceEvaluator):
        def __init__(self, proto: Any, **options: Any) -> None:
            super().__init__(proto, **{"new_ops": operators} | {k: v for k, v in options.items() if v is not None})

    return Evaluator


ONNX_REFERENCE = OnnxReference()
