"""A node ``gn_deploy::GroupNorm`` between tensors, as a problem for the kernels; plugins/tensorrt does it in C++."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from gn_deploy.errors import InputError
from gn_deploy.plugin.binding import ACTIVATIONS
from gn_deploy.plugin.node import ATTRIBUTES, INPUTS, OUTPUT_TYPES
from gn_deploy.plugin.problem import Problem

PADDED = {
    ("HWC", "float32"): (4, 1),
    ("HWC8", "float16"): (4, 8),
    ("HWC8", "bfloat16"): (4, 8),
    ("HWC16", "float16"): (4, 16),
    ("DHWC", "float32"): (5, 1),
    ("DHWC8", "float16"): (5, 8),
    ("DHWC8", "bfloat16"): (5, 8),
}
"""TensorRT's formats with the channels last, by x's type: the rank they are for, and what C is padded to a multiple of
(NvInferRuntime.h, TensorFormat)."""
OUTPUT_DTYPES = dict(zip(OUTPUT_TYPES, ("", "int8", "float8_e4m3fn"), strict=True))
"""Attribute ``output_type`` -> Problem.output_dtype."""


@dataclass(frozen=True, slots=True)
class Layer:
    """The attributes of a node, as TensorRT hands them over."""

    num_groups: int
    epsilon: float
    activation: str
    channels_last: int
    residual: int
    modulation_scale: int
    modulation_shift: int
    sum: int
    output_type: str
    output_scale: float

    def channel_axis(self, rank: int) -> int:
        return rank - 1 if self.channels_last else 1

    def formats(self, dtype: str, rank: int) -> list[str]:
        """Of x, y, residual and sum; everything else is LINEAR. An 8-bit y is LINEAR only, and x with it."""
        if self.channels_last or self.output_type != "x":
            return ["LINEAR"]
        return ["LINEAR", *(f for (f, of), (needed, _) in PADDED.items() if of == dtype and needed == rank)]

    def problem(self, shape: Sequence[int], dtype: str, parameter_dtype: str, layout: str = "LINEAR") -> Problem:
        """For x of ``shape``, whose layout in memory is TensorRT's ``layout``."""
        axis = self.channel_axis(len(shape))
        channels = shape[axis]
        multiple = 1 if layout == "LINEAR" else PADDED[layout, dtype][1]
        return Problem(
            samples=shape[0],
            channels=channels,
            positions=prod(shape) // max(1, shape[0] * channels),
            groups=self.num_groups,
            layout="nhwc" if self.channels_last or layout != "LINEAR" else "nchw",
            dtype=dtype,
            pitch=-(-channels // multiple) * multiple,
            epsilon=self.epsilon,
            parameter_dtype=parameter_dtype,
            output_dtype=OUTPUT_DTYPES[self.output_type],
            activation=self.activation,
            output_scale=self.output_scale,
            has_residual=self.residual,
            has_sum=self.sum,
            has_modulation=self.modulation_scale | self.modulation_shift << 1,
        )


def layer(attributes: Mapping[str, int | float | str]) -> Layer:
    """Strings may end in a zero, as TensorRT's parser writes them. Raises ``InputError`` for what no node has."""
    given = {name: v.rstrip("\0") if isinstance(v, str) else v for name, v in attributes.items()}
    if given.keys() != ATTRIBUTES.keys():
        odd = sorted(given.keys() ^ ATTRIBUTES.keys())
        raise InputError(f"attributes of a node are {', '.join(ATTRIBUTES)}; {odd[0]} is missing or too many")
    for name, words in (("activation", ACTIVATIONS), ("output_type", OUTPUT_TYPES)):
        if given[name] not in words:
            raise InputError(f"attribute {name} is '{given[name]}'", f"one of {', '.join(words)}")
    made = Layer(**given)  # type: ignore[arg-type]
    if made.sum and not made.residual:
        raise InputError("attribute sum is 1 without a residual to add")
    return made


def check_shapes(node: Layer, shapes: Sequence[Sequence[int]]) -> None:
    """Shapes of the inputs, in the order of INPUTS; -1 is unknown. Raises ``InputError`` for what does not fit."""
    x = shapes[0]
    if len(x) < 2:
        raise InputError(f"x has shape {_text(x)}, needed (N, C, ...), at least two axes")
    channels = x[node.channel_axis(len(x))]
    if channels < 0:
        raise InputError("the number of channels is not known when the engine is built", "make it a constant size")
    if node.num_groups < 1 or channels % node.num_groups:
        raise InputError(f"x has shape {_text(x)}: {channels} channels do not divide into {node.num_groups} groups")
    for name, shape in zip(INPUTS[1:3], shapes[1:3], strict=True):
        if tuple(shape) != (channels,):
            raise InputError(f"{name} has shape {_text(shape)}, needed one number for each of {channels} channels")
    if node.residual and not _fits(shapes[3], x):
        raise InputError(f"residual has shape {_text(shapes[3])}, x has {_text(x)}")
    for name, shape in zip(INPUTS[4:], shapes[4:], strict=True):
        wanted = (x[0], channels, *(1 for _ in shape[2:]))
        if getattr(node, name) and not _fits(shape, wanted):
            raise InputError(f"{name} has shape {_text(shape)}, needed (N, C) or (N, C, 1, ...) of x {_text(x)}")


def _fits(a: Sequence[int], b: Sequence[int]) -> bool:
    return len(a) == len(b) and all(m == n or -1 in (m, n) for m, n in zip(a, b, strict=True))


def _text(shape: Sequence[int]) -> str:
    return f"({', '.join('?' if size < 0 else str(size) for size in shape)})"
