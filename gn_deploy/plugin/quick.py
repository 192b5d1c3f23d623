"""The plugin without a library: TensorRT's quick plugin, whose kernel is compiled for the engine and stored in it."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import GenericAlias
from typing import Any

from gn_deploy.decision import Rejected
from gn_deploy.errors import GnDeployError, InputError
from gn_deploy.plugin import device as machine
from gn_deploy.plugin.binding import VARIANTS
from gn_deploy.plugin.layer import Layer, check_shapes, layer
from gn_deploy.plugin.node import ATTRIBUTES, DOMAIN, INPUTS, OPS
from gn_deploy.plugin.problem import Device, Problem
from gn_deploy.plugin.select import Choice, select
from gn_deploy.plugin.specialise import Specialised
from gn_deploy.plugin.units import AFFINE_BYTES, GRID, RESERVED_BYTES, units_of

FITTING = ("warp", "block", "cluster")
"""Variants that are one kernel, launched once, without a workspace and without attributes of the launch."""
LIBRARY = "load the library instead: gn-deploy plugin build"
_REFUSED: list[GnDeployError] = []
_PLAIN_SHARED = 48 << 10  # bytes that a kernel may be launched with when nobody asks CUDA for more (opt-in)
_INT32 = 2**31 - 1
_DTYPES = {"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16"}
_TYPE_NAMES = {"float32": "FP32", "float16": "FP16", "bfloat16": "BF16", "int8": "INT8", "float8_e4m3fn": "FP8"}


@dataclass(frozen=True, slots=True)
class Launch:
    """The grid for any batch: ``slices`` blocks for each ``units_of_block`` of the units of all samples."""

    units_of_sample: int
    units_of_block: int
    slices: int

    def blocks(self, samples: int) -> int:
        return -(-samples * self.units_of_sample // self.units_of_block) * self.slices


def launch_of(problem: Problem, choice: Choice) -> Launch:
    warps = choice.threads // 32 if choice.variant == "warp" else 1
    return Launch(units_of(problem, choice.slab).slabs, warps, choice.slices)


@dataclass(frozen=True, slots=True)
class Question:
    """What TensorRT asks about one layer: its node, and its tensors in one combination of formats.

    1. ``usual`` and ``largest`` are shapes of x: where a size is not known yet, what the profile says of it.
    2. ``dynamic`` are the axes of x whose size is not known; all other sizes are built into the kernel.
    """

    node: Layer
    dtype: str
    parameter_dtype: str
    usual: tuple[int, ...]
    largest: tuple[int, ...]
    dynamic: frozenset[int]
    layout: str = "LINEAR"

    @property
    def problem(self) -> Problem:
        """The tile must hold the largest sample; how many blocks share a unit is chosen for the usual batch."""
        return self.node.problem((self.usual[0], *self.largest[1:]), self.dtype, self.parameter_dtype, self.layout)

    def choice(self, device: Device, variant: str) -> Choice | Rejected:
        if 0 in self.usual or 0 in self.largest:
            return Rejected("a tensor without elements has nothing to launch")
        if self.dynamic and max(self.largest[0], self.problem.positions) > _INT32:
            return Rejected("sizes that are not known yet reach the kernel as 32-bit integers, which are too small")
        found = select(self.problem, device, variant)
        if isinstance(found, Rejected):
            return found
        choice = replace(found.choice, shared=self._shared(found.choice))
        if choice.shared > _PLAIN_SHARED:
            return Rejected(f"{variant}: {choice.shared} bytes of shared memory where {_PLAIN_SHARED} are had")
        most = launch_of(self.problem, choice).blocks(self.largest[0])
        if most > GRID:
            return Rejected(f"{variant}: {most} blocks for the largest batch, more than a grid has")
        return choice

    def _shared(self, choice: Choice) -> int:
        """Of a sample with fewer positions than the largest a slice may touch more channels: at most all of a group."""
        if not self.dynamic - {0} or self.problem.layout == "nhwc":
            return choice.shared
        tables = choice.threads // 32 if choice.variant == "warp" else 1
        return max(choice.shared, RESERVED_BYTES + tables * choice.slab * AFFINE_BYTES)

    def choices(self, device: Device) -> dict[str, Choice]:
        """Every fitting variant. Raises ``InputError`` with all reasons where there is none."""
        found = {variant: self.choice(device, variant) for variant in FITTING}
        fitting = {variant: choice for variant, choice in found.items() if isinstance(choice, Choice)}
        if not fitting:
            reasons = dict.fromkeys(r.reason for r in found.values() if isinstance(r, Rejected))
            raise InputError(f"no kernel of one launch runs x of shape {self.largest}: {'; '.join(reasons)}", LIBRARY)
        return fitting

    def specialised(self, choice: Choice) -> Specialised:
        return Specialised(self.problem, choice, 0 in self.dynamic, bool(self.dynamic - {0}))


def register(device: Device | None = None) -> list[GnDeployError]:
    """Makes ``gn_deploy::GroupNorm`` and its relatives known to TensorRT's parser and networks; once a process.

    1. Needs ``tensorrt`` (10.9 or later) and NVRTC when an engine is built, and nothing of this package when it runs.
    2. ``device`` is the GPU the engine is for; by default the one in this machine.
    3. A layer that does not fit fails the build; the reason is added to the list that is returned, since TensorRT may
       keep it to itself. Raises ``UnavailableError`` here where there is no TensorRT with ahead-of-time plugins, no
       NVRTC, or no GPU and no ``device``.
    """
    trtp = _tensorrt_plugin()
    _REFUSED.clear()
    if hasattr(trtp.op, DOMAIN):
        return _REFUSED
    target = device or _here()
    for op in OPS:
        plugin = _Plugin(trtp, op, target)
        described = GenericAlias(tuple, (trtp.TensorDesc,) * 2) if plugin.skip else trtp.TensorDesc
        tuned = GenericAlias(list, (trtp.AutoTuneCombination,))
        built = GenericAlias(tuple, (str, str, trtp.KernelLaunchParams, trtp.SymIntExprs))
        trtp.register(f"{DOMAIN}::{op}")(_typed(trtp, plugin.describe, described))
        trtp.autotune(f"{DOMAIN}::{op}")(_typed(trtp, plugin.autotune, tuned, "outputs"))
        trtp.aot_impl(f"{DOMAIN}::{op}")(_typed(trtp, plugin.build, built, "outputs", "tactic"))
    return _REFUSED


def _typed(trtp: Any, function: Callable[..., Any], returns: Any, *more: str) -> Callable[..., Any]:
    """With the signature that ``tensorrt.plugin`` reads: tensors, all attributes with their types, no defaults.

    An attribute and an input may have the same name in ONNX, but not in Python: inputs are numbered.
    """
    names: dict[str, Any] = {f"input_{n}_{name}": trtp.TensorDesc for n, name in enumerate(INPUTS)}
    names |= {name: type(usual) for name, usual in ATTRIBUTES.items()}
    names |= dict.fromkeys(more, inspect.Parameter.empty)
    parameters = [inspect.Parameter(n, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=t) for n, t in names.items()]

    def called(*given: Any, **attributes: Any) -> Any:
        """Attributes come by name from the one who describes, else by position, in the order of their registration."""
        tensors, values = given[: len(INPUTS)], given[len(INPUTS) :]
        named = dict(zip(ATTRIBUTES, values, strict=False)) | attributes
        try:
            return function(tensors, layer(named), *values[len(named) - len(attributes) :])
        except GnDeployError as error:
            _REFUSED.append(error)
            raise

    called.__signature__ = inspect.Signature(parameters, return_annotation=returns)  # type: ignore[attr-defined]
    return called


class _Plugin:
    """One of OPS as ``tensorrt.plugin`` asks it; a tensor is a TensorDesc."""

    def __init__(self, trtp: Any, op: str, device: Device) -> None:
        self.trtp, self.device = trtp, device
        self.skip, self.quantize = op.startswith("Skip"), op.endswith("Quantize")

    def describe(self, tensors: Sequence[Any], node: Layer) -> Any:
        """Outputs: shape of x; refuses shapes and attributes that do not go together."""
        import tensorrt as trt

        if (node.sum, node.output_type != "x") != (self.skip, self.quantize):
            raise InputError(f"the node says sum={node.sum}, output_type={node.output_type}: another op does that")
        if not any(size.is_fake for size in tensors[0].shape_expr):
            check_shapes(node, [_known(tensor.shape_expr) for tensor in tensors])
        y = tensors[0].like()
        if self.quantize:
            y.dtype = trt.DataType.INT8 if node.output_type == "int8" else trt.DataType.FP8
        return (y, tensors[0].like()) if self.skip else y

    def autotune(self, tensors: Sequence[Any], node: Layer, outputs: Sequence[Any]) -> list[Any]:
        """Each layout of x with the variants that fit it; a variant's number plus one is its tactic, as in gn.h."""
        dtype, found = _dtype(tensors[0]), []
        for layout in node.formats(dtype, len(tensors[0].shape)):
            question = self._question(tensors, node, layout)
            try:
                choices = question.choices(self.device)
            except InputError:
                if layout == "LINEAR" and len(node.formats(dtype, len(tensors[0].shape))) == 1:
                    raise
                continue
            x, parameter = _TYPE_NAMES[dtype], _TYPE_NAMES[question.parameter_dtype]
            y = _TYPE_NAMES[question.problem.output_dtype]
            types = [x, parameter, parameter, x, parameter, parameter, y, *([x] if self.skip else [])]
            like_x = {0, len(INPUTS), len(INPUTS) + 1, *([3] if node.residual else [])}
            layouts = [layout if n in like_x else "LINEAR" for n in range(len(types))]
            tactics = [VARIANTS.index(variant) + 1 for variant in choices]
            found.append(self.trtp.AutoTuneCombination(", ".join(types), ", ".join(layouts), tactics))
        if not found:
            self._question(tensors, node, "LINEAR").choices(self.device)
        return found

    def build(self, tensors: Sequence[Any], node: Layer, outputs: Sequence[Any], tactic: int) -> tuple[Any, ...]:
        """The kernel and its launch: what the engine keeps."""
        question = self._question(tensors, node, tensors[0].format.name)
        variant = VARIANTS[tactic - 1] if tactic else next(iter(question.choices(self.device)))
        choice = question.choice(self.device, variant)
        if isinstance(choice, Rejected):
            raise InputError(choice.reason, LIBRARY)
        kernel = question.specialised(choice)
        code = kernel.compile(self.device.compute_capability)

        x, axis = tensors[0].shape_expr, node.channel_axis(len(question.largest))
        sizes = {"samples": x[0], "positions": None}
        for n in range(1, len(question.largest)):
            if n != axis:
                sizes["positions"] = x[n] if sizes["positions"] is None else sizes["positions"] * x[n]
        scalars = self.trtp.SymIntExprs(len(kernel.scalars))
        for n, name in enumerate(kernel.scalars):
            scalars[n] = self.trtp.SymInt32(sizes[name])
        params = self.trtp.KernelLaunchParams()
        params.grid_x = self._blocks(launch_of(question.problem, choice), x[0], question)
        params.block_x = choice.threads
        params.shared_mem = choice.shared
        return kernel.name, code, params, scalars

    def _blocks(self, launch: Launch, samples: Any, question: Question) -> Any:
        if 0 not in question.dynamic:
            return launch.blocks(question.usual[0])
        units = samples * launch.units_of_sample
        if launch.units_of_block > 1:
            units = self.trtp.cdiv(units, launch.units_of_block)
        return units * launch.slices

    def _question(self, tensors: Sequence[Any], node: Layer, layout: str) -> Question:
        shape = tensors[0].shape
        usual, largest = (tuple(shape.opt), tuple(shape.max)) if shape.is_dynamic else (tuple(shape),) * 2
        dynamic = frozenset(axis for axis, size in enumerate(shape) if size < 0)
        return Question(node, _dtype(tensors[0]), _dtype(tensors[1]), usual, largest, dynamic, layout)


def _dtype(tensor: Any) -> str:
    name = tensor.dtype.name
    if name not in _DTYPES:
        raise InputError(f"a tensor of type {name}, needed one of {', '.join(_DTYPES)}")
    return _DTYPES[name]


def _known(sizes: Any) -> list[int]:
    return [size.constant_value() if size.is_constant else -1 for size in sizes]


def _here() -> Device:
    found = machine.query()
    return Device(**{name: getattr(found, name) for name in Device.__dataclass_fields__})


def _tensorrt_plugin() -> Any:
    from gn_deploy.errors import UnavailableError
    from gn_deploy.plugin import nvrtc

    nvrtc.version()
    try:
        import tensorrt.plugin as trtp
    except ImportError as error:
        raise UnavailableError(f"no TensorRT with quick plugins: {error}", "TensorRT 10.9 or later is needed") from None
    if not hasattr(trtp, "aot_impl") or not hasattr(trtp, "KernelLaunchParams"):
        raise UnavailableError("this TensorRT has no ahead-of-time plugins", "TensorRT 10.9 or later is needed")
    return trtp
