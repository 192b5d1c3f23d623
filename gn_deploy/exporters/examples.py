"""A module's example inputs by name, in the order ``forward`` takes them, and the names of what it returns."""

import difflib
import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from gn_deploy.errors import InputError
from gn_deploy.exporters.failure import one_line, place

if TYPE_CHECKING:
    from torch import Tensor, nn


def named_inputs(module: "nn.Module", examples: Any) -> "dict[str, Tensor]":
    """Name of ``forward``'s parameter -> tensor, so that ``module(*inputs.values())`` runs.

    ``examples`` is a tensor, a tuple of them, or a dict by the names of ``forward``'s parameters. Raises InputError
    for anything but tensors, for names ``forward`` does not have, and for a parameter left out before a given one.
    """
    import torch

    if isinstance(examples, torch.Tensor):
        examples = (examples,)
    known = _parameters(module)
    if isinstance(examples, Mapping):
        inputs = _in_order(dict(examples), known)
    elif isinstance(examples, (tuple, list)):
        names = known + [f"input_{i}" for i in range(len(known), len(examples))]
        inputs = dict(zip(names, examples, strict=False))
    else:
        raise InputError(
            f"example inputs are a {type(examples).__name__}, not a tuple or dict of tensors",
            "give one tensor for each parameter of forward(), for example (torch.randn(2, 3, 32, 32),)",
        )
    if not inputs:
        raise InputError("there are no example inputs", "give one tensor for each parameter of forward()")
    for name, value in inputs.items():
        if not isinstance(value, torch.Tensor):
            array = hasattr(value, "__array__")
            raise InputError(
                f"example input '{name}' is a {type(value).__name__}, not a tensor",
                "torch.from_numpy(array) makes one" if array else "fix constants in the forward() of a wrapper module",
            )
    return inputs


def output_names(module: "nn.Module", inputs: "Mapping[str, Tensor]") -> tuple[str, ...]:
    """The keys when ``forward`` returns a dict, else ``output``, or ``output_0``, ``output_1``, ...

    Runs the module once. Raises InputError when it fails on its own examples.
    """
    import torch
    from torch.utils import _pytree as pytree

    try:
        with evaluating(module), torch.no_grad():
            result = module(*inputs.values())
    except Exception as error:  # whatever the module's own code raises
        hint = place(error) or f"forward() was given {', '.join(f'{n} {tuple(x.shape)}' for n, x in inputs.items())}"
        raise InputError(f"the module fails on its own example inputs: {one_line(error)}", hint) from error
    count = sum(isinstance(leaf, torch.Tensor) for leaf in pytree.tree_leaves(result))
    if isinstance(result, Mapping) and len(result) == count:
        return tuple(map(str, result))
    return ("output",) if count == 1 else tuple(f"output_{i}" for i in range(count))


@contextmanager
def evaluating(module: "nn.Module") -> Iterator[None]:
    """``module`` in evaluation mode; every submodule's own mode is put back."""
    modes = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for m, training in modes:
            m.training = training


def _parameters(module: "nn.Module") -> list[str]:
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [p.name for p in inspect.signature(module.forward).parameters.values() if p.kind in positional]


def _in_order(inputs: "dict[str, Tensor]", known: list[str]) -> "dict[str, Tensor]":
    for name in inputs:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"its parameters: {', '.join(known)}"
            raise InputError(f"forward() has no positional parameter '{name}'", hint)
    for position, name in enumerate(known[: len(inputs)]):
        if name not in inputs:
            later = next(n for n in known[position:] if n in inputs)
            raise InputError(
                f"example inputs give '{later}' but not '{name}', which comes before it in forward()",
                "wrap the module in one whose forward() takes just the inputs",
            )
    return {name: inputs[name] for name in known[: len(inputs)]}
