"""Layers as TensorRT would make them: a node's attributes, its six inputs, and their memory in any format."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np

from gn_deploy.plugin.binding import CBuffers, as_dict
from gn_deploy.plugin.node import ATTRIBUTES, OPS
from tests.plugins.adapter import Host
from tests.plugins.vtable import Context, Field, Format, Plugin, TensorDesc, Type, tensor
from tests.plugins.vtable import field as field_of

Array = np.ndarray[Any, Any]
NUMPY = {
    Type.FLOAT: np.dtype(np.float32),
    Type.HALF: np.dtype(np.float16),
    Type.BF16: np.dtype(ml_dtypes.bfloat16),
    Type.INT8: np.dtype(np.int8),
    Type.FP8: np.dtype(ml_dtypes.float8_e4m3fn),
}
PADDING = {Format.HWC: 1, Format.DHWC: 1, Format.HWC8: 8, Format.DHWC8: 8, Format.HWC16: 16}
"""Channels are padded to a multiple of this."""
GARBAGE = 0xFF  # every byte of padding: a NaN in float32, float16 and bfloat16


@dataclass(frozen=True)
class Layer:
    """A node, and the shape, type and format of x."""

    shape: tuple[int, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    type: Type = Type.FLOAT
    format: Format = Format.LINEAR
    parameters: Type = Type.FLOAT

    @property
    def values(self) -> dict[str, Any]:
        return {**ATTRIBUTES, "num_groups": 2, **self.attributes}

    @property
    def name(self) -> str:
        return OPS[self.values["sum"] + 2 * (self.values["output_type"] != "x")]

    @property
    def channel_axis(self) -> int:
        return -1 if self.values["channels_last"] else 1

    @property
    def channels(self) -> int:
        return self.shape[self.channel_axis]

    @property
    def output_type(self) -> Type:
        return {"x": self.type, "int8": Type.INT8, "float8e4m3fn": Type.FP8}[self.values["output_type"]]

    @property
    def output_format(self) -> Format:
        quantized = self.values["output_type"] != "x"
        return Format.HWC16 if quantized and self.format != Format.LINEAR else self.format

    def fields(self) -> list[Field]:
        return [field_of(name, value) for name, value in self.values.items()]

    def create(self, host: Host) -> Plugin:
        made = host.creators[self.name].create(self.fields())
        assert made is not None
        return made

    def shapes(self) -> list[tuple[int, ...]]:
        """Of the six inputs, with what stands for absent ones."""
        per_sample = (self.shape[0], self.channels)
        return [
            self.shape,
            (self.channels,),
            (self.channels,),
            self.shape if self.values["residual"] else (1,),
            per_sample if self.values["modulation_scale"] else (1, self.channels),
            self.broadcast() if self.values["modulation_shift"] else (1, self.channels),
        ]

    def broadcast(self) -> tuple[int, ...]:
        """(N, C) as it is broadcast against x."""
        sizes = [1] * len(self.shape)
        sizes[0], sizes[self.channel_axis] = self.shape[0], self.channels
        return tuple(sizes)

    def tensors(self) -> tuple[list[TensorDesc], list[TensorDesc]]:
        residual = self.format if self.values["residual"] else Format.LINEAR
        formats = [self.format, Format.LINEAR, Format.LINEAR, residual, Format.LINEAR, Format.LINEAR]
        types = [self.type, self.parameters, self.parameters, self.type, self.parameters, self.parameters]
        ins = [tensor(*of) for of in zip(self.shapes(), types, formats, strict=True)]
        outs = [tensor(self.shape, self.output_type, self.output_format)]
        return ins, outs + [tensor(self.shape, self.type, self.format)] * self.values["sum"]


def packed(values: Array, layout: Format) -> Array:
    """The memory of ``values`` (N, C, ...) in a format, garbage where channels are padded."""
    if layout == Format.LINEAR:
        return np.ascontiguousarray(values)
    last = np.moveaxis(values, 1, -1)
    channels = -(-last.shape[-1] // PADDING[layout]) * PADDING[layout]
    memory = np.full((*last.shape[:-1], channels * last.dtype.itemsize), GARBAGE, np.uint8).view(last.dtype)
    memory[..., : last.shape[-1]] = last
    return memory


def unpacked(memory: Array, shape: tuple[int, ...], layout: Format) -> Array:
    """The other way; padded channels must have been written as zeros."""
    if layout == Format.LINEAR:
        return memory.reshape(shape)
    last = memory.reshape(shape[0], *shape[2:], -1)
    assert not last[..., shape[1] :].view(np.uint8).any(), "padding is not zero"
    return np.moveaxis(last[..., : shape[1]], -1, 1)


X, SCALE, BIAS, RESIDUAL, S, T, Y, SUM, WORKSPACE = (0x10000 * i for i in range(1, 10))
"""Addresses that nobody reads."""


def run(plugin: Plugin, layer: Layer) -> int:
    """The status of a launch on addresses that stand for memory."""
    ins, outs = layer.tensors()
    outputs = [Y, SUM][: len(outs)]
    return plugin.enqueue(ins, outs, [X, SCALE, BIAS, RESIDUAL, S, T], outputs, WORKSPACE)


def launched(host: Host, layer: Layer, tactic: int = 0) -> tuple[dict[str, Any], dict[str, Any], CBuffers]:
    """What gn_enqueue was asked for: problem, choice, buffers."""
    plugin = layer.create(host)
    context = Context()
    attached = plugin.attach(context)
    assert attached.set_tactic(tactic) == 0
    before = host.launch()[0]
    assert attached.on_shape_change(*layer.tensors()) == 0
    assert run(attached, layer) == 0, context.errors
    count, problem, choice, buffers, _ = host.launch()
    assert count == before + 1
    attached.close()
    plugin.close()
    return as_dict(problem), as_dict(choice), buffers
