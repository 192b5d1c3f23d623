"""Which axes of a module's inputs may change size: proposed from the examples, then tried on the module itself."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gn_deploy.exporters.failure import one_line

if TYPE_CHECKING:
    from torch import Tensor, nn

Axes = dict[str, dict[int, str]]
"""Input -> axis -> name of its size, for example ``{"sample": {0: "batch", 2: "height", 3: "width"}}``."""

_SPATIAL = {3: ("length",), 4: ("height", "width"), 5: ("depth", "height", "width")}
"""Rank of an image (N, C, ...) -> names of its spatial axes, from axis 2."""


def propose(inputs: "Mapping[str, Tensor]") -> Axes:
    """Every axis that is usually free.

    1. Axis 0 of the first floating-point input of rank 3 to 5 is the batch, and axis 0 of any input as long.
    2. The spatial axes, 2 and on, of every floating-point input of rank 3 to 5.
    """
    images = {name: x for name, x in inputs.items() if x.is_floating_point() and x.ndim in _SPATIAL}
    if not images:
        return {}
    first, image = next(iter(images.items()))
    axes: Axes = {}
    for name, x in inputs.items():
        axes[name] = {0: "batch"} if x.ndim and x.shape[0] == image.shape[0] else {}
        if name in images:
            prefix = "" if name == first else f"{name}_"
            axes[name] |= {axis: prefix + size for axis, size in enumerate(_SPATIAL[x.ndim], start=2)}
    return {name: free for name, free in axes.items() if free}


def batch_only(axes: Axes) -> Axes:
    return {name: {0: free[0]} for name, free in axes.items() if 0 in free}


def with_batch(inputs: "Mapping[str, Tensor]", axes: Mapping[str, Mapping[int, Any]]) -> "dict[str, Tensor]":
    """The examples with a free batch of 1 repeated to 2: a trace may take a size of 1 for a constant."""
    single = {name for name, free in axes.items() if 0 in free and inputs[name].shape[0] == 1}
    return {name: x.repeat(2, *[1] * (x.ndim - 1)) if name in single else x for name, x in inputs.items()}


def refusal(module: "nn.Module", inputs: "Mapping[str, Tensor]", axes: Axes) -> str:
    """Why the module cannot run with all ``axes`` twice as long as in the examples; empty if it can.

    torch.export alone does not tell: it calls height and width free in front of ``Linear(64 * 8 * 8, 10)``. Only
    shapes are computed (fake tensors), so this takes little time and no memory however large the model is.
    """
    import torch
    from torch._subclasses import fake_tensor  # there is no public door to shapes-only execution with real weights

    shapes = {n: [s * 2 if axis in axes.get(n, {}) else s for axis, s in enumerate(x.shape)] for n, x in inputs.items()}
    try:
        with fake_tensor.FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
            module(*(torch.empty(shapes[name], dtype=x.dtype, device=x.device) for name, x in inputs.items()))
    except (
        fake_tensor.DataDependentOutputException,
        fake_tensor.DynamicOutputShapeException,
        fake_tensor.UnsupportedFakeTensorException,
    ):
        return ""  # its shapes depend on values: only the exporter can tell
    except Exception as error:  # whatever the module's own code raises
        tried = ", ".join(f"{name} {tuple(shapes[name])}" for name in axes)
        return f"the module does not take {tried}: {one_line(error)}"
    return ""
