"""What is checked: small problems that between them visit every type, layout, epilogue and trap, the plainest first."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from gn_deploy.plugin.binding import ACTIVATIONS

FLOATS = ("float32", "float16", "bfloat16")
LAYOUTS = ("nchw", "nhwc")


@dataclass(frozen=True, slots=True)
class Check:
    """One problem with its data; ``shape`` is (N, C, ...) also where the data lie channels last."""

    shape: tuple[int, ...]
    groups: int
    dtype: str = "float16"
    layout: str = "nchw"
    activation: str = "silu"
    parameter_dtype: str = "float32"
    output_dtype: str = ""
    """Empty for that of x."""
    residual: bool = False
    sum: bool = False
    affine: int = 3
    modulation: int = 0
    data: str = "normal"
    """A case of ``inputs.numbers``."""
    shift: int = 0
    """Elements by which every tensor starts beyond an address that is a multiple of 256."""
    padding: int = 0
    """Channels last: elements between the end of a row and the next."""
    epsilon: float = 1e-5

    @property
    def key(self) -> str:
        """Whatever is not as usual is named."""
        usual = Check((), 1)
        told = ["x".join(map(str, self.shape)) + f"/{self.groups}", self.dtype, self.layout, self.activation]
        if self.output_dtype:
            told.append(f"to {self.output_dtype}")
        if self.parameter_dtype != usual.parameter_dtype:
            told.append(f"parameters {self.parameter_dtype}")
        told += [name for name in ("residual", "sum") if getattr(self, name)]
        told += [
            f"{name}={getattr(self, name)}"
            for name in ("affine", "modulation", "data", "shift", "padding", "epsilon")
            if getattr(self, name) != getattr(usual, name)
        ]
        return " ".join(told)

    @property
    def y_dtype(self) -> str:
        return self.output_dtype or self.dtype

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def output_scale(self) -> float:
        """Of an 8-bit output: the tails of a normal distribution saturate int8 beyond 2.5, e4m3 beyond 22."""
        return {"int8": 0.02, "float8_e4m3fn": 0.05}.get(self.y_dtype, 1.0)

    def problem(self) -> dict[str, Any]:
        """As ``gn_deploy.plugin.binding`` takes it."""
        n, c = self.shape[:2]
        return {
            "samples": n,
            "channels": c,
            "positions": math.prod(self.shape[2:]),
            "pitch": c + self.padding,
            "output_pitch": c + self.padding,
            "groups": self.groups,
            "epsilon": self.epsilon,
            "layout": self.layout,
            "dtype": self.dtype,
            "parameter_dtype": self.parameter_dtype,
            "output_dtype": self.y_dtype,
            "activation": self.activation,
            "output_scale": self.output_scale,
            "has_residual": int(self.residual),
            "has_sum": int(self.sum),
            "has_affine": self.affine,
            "has_modulation": self.modulation,
        }


PLAIN = Check((2, 32, 16, 16), 8)
WIDE = Check((1, 16, 96, 96), 2)  # 147 KB a group in float16, 288 KB in float32: more than one block holds
MANY = Check((12, 64, 24, 24), 32)  # 384 groups: more than a persistent grid has teams
FULL = {"nchw": Check((4, 32, 56, 56), 4), "nhwc": Check((4, 32, 28, 28), 4)}  # 49 KB, the largest tile of one block
ODD = (
    Check((2, 6, 1), 3),
    Check((3, 30, 7, 7), 5),
    Check((4, 64, 7, 7), 32),
    Check((2, 48, 13, 19), 3),
    Check((2, 24, 3, 5, 7), 4),
    Check((1, 40, 333), 8),
    Check((2, 32, 15, 15), 1),
    Check((2, 32, 15, 15), 32),
)
LARGE = (
    Check((1, 32, 192, 192), 4),
    Check((1, 8, 512, 512), 2),
    Check((6, 64, 96, 96), 8),
)
"""Seconds each for the oracle; more than a cluster holds, and more units than are in flight."""


def sample(*, large: bool = True) -> tuple[Check, ...]:
    """All of them, each once, in the order in which they are worth their time."""
    listed = [*_types(), *_epilogues(), *_shapes(), *_formats(), *_data(), *(LARGE if large else ())]
    return tuple(dict.fromkeys(listed))


def _types() -> Iterator[Check]:
    for plain, dtype, layout in itertools.product((PLAIN, WIDE, MANY), FLOATS, LAYOUTS):
        yield replace(plain, dtype=dtype, layout=layout)

    for layout, full in FULL.items():
        yield replace(full, layout=layout)
        yield replace(full, layout=layout, dtype="bfloat16", residual=True, sum=True)
        yield replace(full, layout=layout, dtype="float32", shape=(4, 16, *full.shape[2:]), modulation=3)


def _epilogues() -> Iterator[Check]:
    for layout, activation in itertools.product(LAYOUTS, ACTIVATIONS):
        yield replace(PLAIN, layout=layout, activation=activation, dtype="float32")
    for layout, dtype in itertools.product(LAYOUTS, FLOATS):
        for changed in (
            {"residual": True},
            {"residual": True, "sum": True},
            {"modulation": 3},
            {"residual": True, "sum": True, "modulation": 3, "parameter_dtype": dtype},
            {"affine": 0},
        ):
            yield replace(PLAIN, layout=layout, dtype=dtype, **changed)
            yield replace(WIDE, layout=layout, dtype=dtype, **changed)
    for affine, modulation in ((1, 0), (2, 1), (0, 2), (0, 3), (3, 1)):
        yield replace(PLAIN, affine=affine, modulation=modulation, parameter_dtype="float16")


def _shapes() -> Iterator[Check]:
    for odd, layout, dtype in itertools.product(ODD, LAYOUTS, ("float16", "float32")):
        yield replace(odd, layout=layout, dtype=dtype, residual=True)
    for plain, layout in itertools.product((PLAIN, WIDE, ODD[1], ODD[3]), LAYOUTS):
        for shift in (1, 3):
            yield replace(plain, layout=layout, shift=shift, residual=True, sum=True)
    for channels, padding, dtype in ((30, 2, "float16"), (24, 8, "bfloat16"), (30, 3, "float32")):
        yield Check((2, channels, 15, 15), 6, dtype, "nhwc", padding=padding)
        yield Check((1, channels, 96, 96), 6, dtype, "nhwc", padding=padding, residual=True, sum=True)
    yield Check((0, 32, 16, 16), 8)
    yield Check((2, 32, 0), 8)


def _formats() -> Iterator[Check]:
    for layout, output, dtype in itertools.product(LAYOUTS, ("int8", "float8_e4m3fn"), FLOATS):
        yield replace(PLAIN, layout=layout, output_dtype=output, dtype=dtype)
    yield replace(WIDE, output_dtype="int8", residual=True, sum=True)
    yield replace(WIDE, layout="nhwc", output_dtype="float8_e4m3fn", modulation=3)


def _data() -> Iterator[Check]:
    for plain, layout, dtype in itertools.product((PLAIN, WIDE), LAYOUTS, ("float32", "float16")):
        for data in ("offset", "small", "spike", "constant", "nan"):
            yield replace(plain, layout=layout, dtype=dtype, data=data, activation="none")
    yield replace(PLAIN, dtype="float32", data="nan", activation="relu")
    yield replace(PLAIN, dtype="float32", data="small", epsilon=1e-12)
