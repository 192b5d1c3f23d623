"""From an ``nn.Module`` to an ONNX model whose weights are the module's own memory."""

import difflib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING, Any

from gn_deploy.errors import InputError
from gn_deploy.exporters.axes import batch_only, propose, refusal, with_batch
from gn_deploy.exporters.examples import evaluating, named_inputs
from gn_deploy.exporters.examples import output_names as names_of_outputs
from gn_deploy.exporters.failure import need, one_line, place

if TYPE_CHECKING:
    import onnx_ir as ir
    from torch import Tensor, nn

DYNAMIC_KEY = "gn_deploy.dynamic"
"""Key of the model's metadata_props that says which input sizes are free, and why others are not."""

_INPUT_KIND = "pkg.torch.export.graph_signature.InputSpec.kind"

Dynamic = bool | Mapping[str, Mapping[int, Any]]


def export(
    module: "nn.Module",
    example_inputs: "Tensor | tuple[Tensor, ...] | Mapping[str, Tensor]",
    *,
    dynamic: Dynamic = True,
    opset: int | None = None,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
) -> "ir.Model":
    """The module in evaluation mode as an ONNX model, by torch.onnx.export(dynamo=True).

    1. Weights are shared: the tensor of an initializer is the module's parameter or buffer, under the same name.
    2. ``dynamic=True`` frees batch and spatial sizes, or else the batch, or else nothing: the first that both the
       module and torch.export accept. A mapping {input: {axis: name}} frees exactly that or fails. What happened
       is in ``metadata_props["gn_deploy.dynamic"]``, for example ``image[batch, 1, height, width]``.
    3. ``opset`` None is the exporter's own default, at which it writes GroupNorm as InstanceNormalization.
    4. Inputs are named as in ``forward``; outputs ``output``, or ``output_0``, ``output_1``, or the keys of a dict.

    Raises InputError when the module fails on the examples or cannot be exported, UnavailableError without torch.
    """
    need("torch", "onnxscript")
    inputs = named_inputs(module, example_inputs)
    with evaluating(module), _quiet():
        outputs = output_names or names_of_outputs(module, inputs)
        model, note = _first_that_works(module, inputs, dynamic, opset)
        written = model.opset_imports[""]
        if opset not in (None, written):
            raise InputError(
                f"the exporter cannot write this model at opset {opset}; it wrote opset {written}",
                f"ask for --opset {written}, or leave it out",
            )
        _tidy(model)
        _rename(model, input_names or tuple(inputs), outputs)
    model.metadata_props[DYNAMIC_KEY] = "; ".join(filter(None, (_signature(model), note)))
    return model


def _first_that_works(
    module: "nn.Module", inputs: "dict[str, Tensor]", dynamic: Dynamic, opset: int | None
) -> "tuple[ir.Model, str]":
    """The model, and why sizes that were wished free are not; empty when all are."""
    if isinstance(dynamic, Mapping):
        _check(dynamic, inputs)
        return _export(module, with_batch(inputs, dynamic), dynamic, opset), ""
    wished = propose(inputs) if dynamic else {}
    reasons: list[str] = []
    for axes in filter(None, (wished, batch_only(wished))):
        examples = with_batch(inputs, axes)
        reason = refusal(module, examples, axes)
        if not reason:
            try:
                return _export(module, examples, axes, opset), "; ".join(reasons)
            except InputError as error:
                reason = error.message
        reasons.append(reason)
    return _export(module, inputs, {}, opset), "; ".join(reasons)


def _check(dynamic: Mapping[str, Mapping[int, Any]], inputs: "Mapping[str, Tensor]") -> None:
    for name, free in dynamic.items():
        if name not in inputs:
            near = difflib.get_close_matches(name, inputs, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"inputs: {', '.join(inputs)}"
            raise InputError(f"dynamic sizes are asked for '{name}', which is not an input", hint)
        if not isinstance(free, Mapping):
            raise InputError(
                f"dynamic sizes of '{name}' are a {type(free).__name__}, not {{axis: name}}", "for example {0: 'batch'}"
            )
        for axis in free:
            if not 0 <= axis < inputs[name].ndim:
                raise InputError(
                    f"input '{name}' has {inputs[name].ndim} axes, none is numbered {axis}", "axes count from 0"
                )


def _export(
    module: "nn.Module", inputs: "dict[str, Tensor]", axes: Mapping[str, Mapping[int, Any]], opset: int | None
) -> "ir.Model":
    import torch

    try:
        with torch.no_grad():
            program = torch.onnx.export(
                module,
                tuple(inputs.values()),
                dynamic_shapes=tuple(axes.get(name) for name in inputs) if axes else None,
                opset_version=opset,
                dynamo=True,
                optimize=False,  # _tidy does what is wanted of it: the optimizer copies, merges and renames weights
                verbose=False,
            )
    except Exception as error:  # the exporter raises whatever its layers raise
        where = place(error)
        raise InputError(
            f"torch.onnx.export failed: {one_line(error)}" + (f" ({where})" if where else ""),
            "torch.export must be able to trace the module: no branches on values, no numpy in forward()",
        ) from error
    model: ir.Model = program.model
    return model


def _tidy(model: "ir.Model") -> None:
    """Folds the shape arithmetic of the exporter, and nothing that reads a weight: so no weight is copied."""
    from onnx_ir.passes import common
    from onnxscript.optimizer import fold_constants_ir

    def fold(node: "ir.Node") -> bool | None:
        kinds = {value.metadata_props.get(_INPUT_KIND) for value in node.inputs if value is not None}
        return False if kinds & {"PARAMETER", "BUFFER"} else None  # None: by the folder's own rules

    common.InlinePass()(model)
    fold_constants_ir(model, onnx_shape_inference=True, should_fold=fold)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    common.CommonSubexpressionEliminationPass()(model)
    common.RemoveUnusedNodesPass()(model)
    common.RemoveUnusedOpsetsPass()(model)
    common.OutputFixPass()(model)


def _rename(model: "ir.Model", inputs: Sequence[str], outputs: Sequence[str]) -> None:
    from onnx_ir.passes import common

    for what, values, names in (("input", model.graph.inputs, inputs), ("output", model.graph.outputs, outputs)):
        if len(names) != len(values):
            raise InputError(f"{len(names)} {what} names for {len(values)} {what}s: {', '.join(names)}")
        for value, name in zip(values, names, strict=True):
            value.name = name
    common.NameFixPass()(model)


def _signature(model: "ir.Model") -> str:
    """``sample[batch, 3, height, width] timestep[batch]``."""
    return " ".join(f"{v.name}[{', '.join(str(size) for size in v.shape or ())}]" for v in model.graph.inputs)


@contextmanager
def _quiet() -> Iterator[None]:
    """Nothing printed, warned or logged by torch: what matters comes as an exception."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
