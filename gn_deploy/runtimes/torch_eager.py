"""PyTorch in eager mode, the framework the model came from; its GroupNorm modules can be listened to."""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gn_deploy.decision import Accepted, Rejected
from gn_deploy.errors import InputError, UnavailableError
from gn_deploy.runtimes.base import Array, BuildResult, Probe, RuntimeFailure, installed, one_line

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True, slots=True)
class TorchModel:
    """A module and the names of its inputs, in the order ``forward`` takes them, and of its outputs, flattened.

    ``load`` makes the same again in another process (a picklable function); without it the module can only run here.
    """

    module: "nn.Module"
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    load: "Callable[[], TorchModel] | None" = field(default=None, kw_only=True)


def to_torch(array: Array) -> "torch.Tensor":
    """A contiguous tensor of the array's dtype; bfloat16 travels as bits, which NumPy's own types do not know."""
    import torch

    array = np.ascontiguousarray(array)
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array.copy() if not array.flags.writeable else array)


def to_numpy(tensor: "torch.Tensor") -> Array:
    """The inverse of ``to_torch``."""
    import torch

    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype == torch.bfloat16:
        import ml_dtypes

        return np.asarray(tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16))
    return np.asarray(tensor.numpy())


class TorchSession:
    """Runs a module in eval mode without gradients; training flags are put back after every run.

    1. Arguments are contiguous (N, C, ...): torch's CPU GroupNorm over channels_last memory is one-pass, so a
       module with channels_last weights is copied and straightened first.
    2. Floating-point feeds are cast to the module's dtype; integers are left alone.
    """

    runtime = "torch"

    def __init__(self, model: TorchModel, precision: str | None) -> None:
        import torch

        own = next((p.dtype for p in model.module.parameters() if p.is_floating_point()), torch.float32)
        self._dtype = own if precision is None else _dtype_of(precision)
        crooked = any(not p.is_contiguous() for p in model.module.parameters())
        module = model.module
        if self._dtype != own or crooked:
            module = copy.deepcopy(module).to(dtype=self._dtype)
            for parameter in module.parameters():
                parameter.data = parameter.data.contiguous()
        self._module: nn.Module | None = module
        self._model = model
        self.precision = str(self._dtype).removeprefix("torch.")

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        if self._module is None:
            raise RuntimeFailure("the torch session is closed")
        import torch
        from torch.utils import _pytree as pytree

        arguments = [to_torch(feeds[name]) for name in self._model.input_names]
        arguments = [a.to(self._dtype) if a.is_floating_point() else a for a in arguments]
        try:
            with _eval_mode(self._module), torch.no_grad():
                result = self._module(*arguments)
        except Exception as error:  # whatever the module's own code raises
            raise RuntimeFailure(f"{type(self._module).__name__} failed: {one_line(error)}") from error
        values = [v for v in pytree.tree_leaves(result) if isinstance(v, torch.Tensor)]
        names = self._model.output_names
        if len(values) != len(names):
            raise InputError(
                f"{type(self._module).__name__} returned {len(values)} tensors for {len(names)} output names",
                "name every tensor that forward returns",
            )
        return {name: to_numpy(value) for name, value in zip(names, values, strict=True)}

    def run_tapped(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs, and for each GroupNorm or InstanceNorm at module path P the arrays "P:input", "P:output".

        A module that runs again within one call is told apart as "P@1:input", "P@2:input", ...
        """
        if self._module is None:
            raise RuntimeFailure("the torch session is closed")
        taps: dict[str, Array] = {}
        calls: dict[str, int] = {}

        def listener(path: str) -> "Callable[[nn.Module, tuple[Any, ...], torch.Tensor], None]":
            def listen(_: "nn.Module", inputs: tuple[Any, ...], output: "torch.Tensor") -> None:
                count = calls.get(path, 0)
                calls[path] = count + 1
                key = f"{path}@{count}" if count else path
                taps[f"{key}:input"] = to_numpy(inputs[0]).copy()  # a later in-place op may overwrite it
                taps[f"{key}:output"] = to_numpy(output).copy()

            return listen

        hooks = [m.register_forward_hook(listener(p)) for p, m in self._module.named_modules() if _is_norm(m)]
        try:
            return self.run(feeds) | taps
        finally:
            for hook in hooks:
                hook.remove()

    def close(self) -> None:
        self._module = None


class TorchEager:
    """``open`` takes a TorchModel; ``precision`` "float64" runs a double copy of the module."""

    name = "torch"
    packages = ("torch",)
    precisions = ("float64", "float32", "float16", "bfloat16")

    def probe(self) -> Probe:
        found = installed("torch")
        if found is None:
            absent = Rejected("torch is not installed: pip install torch")
            return Probe(self.name, None, absent, absent)
        return Probe(self.name, found, Accepted(), Rejected("torch runs modules as they are; nothing to build"))

    def open(self, model: TorchModel, *, precision: str | None = None) -> TorchSession:
        if not (probe := self.probe()).run:
            raise UnavailableError(probe.run.reason)
        if not isinstance(model, TorchModel):
            raise InputError(
                "the runtime 'torch' runs modules, not ONNX files",
                "gn-deploy export RECIPE checks a file against its module; from Python give a TorchModel",
            )
        return TorchSession(model, precision)

    def build(self, model: Path, out: Path, **options: Any) -> BuildResult:
        raise UnavailableError(self.probe().build.reason)


def _dtype_of(precision: str) -> "torch.dtype":
    import torch

    known = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32, "float64": torch.float64}
    if precision not in known:
        raise InputError(f"unknown precision '{precision}'", f"one of {', '.join(known)}")
    return known[precision]


def _is_norm(module: "nn.Module") -> bool:
    from torch import nn

    known = (nn.GroupNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
    return isinstance(module, known) or type(module).__name__ == "GroupNorm"  # or a re-implementation by that name


@contextmanager
def _eval_mode(module: "nn.Module") -> Iterator[None]:
    flags = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for m, training in flags:
            m.training = training


TORCH = TorchEager()
