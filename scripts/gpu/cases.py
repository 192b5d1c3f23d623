"""What is timed: layers of real networks as shapes, types, layouts and epilogues, the most telling first."""

import math
from dataclasses import dataclass
from typing import Any

from gn_deploy.plugin.problem import Problem
from gn_deploy.plugin.units import ELEMENT_BYTES, slab_of, units_of

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Epilogue:
    """What is computed besides the normalization with scale and bias."""

    activation: str = "none"
    residual: bool = False
    sum: bool = False
    """x + residual is written too."""
    modulation: bool = False
    """* (1 + s) + t of each sample."""


EPILOGUES = {
    "gn": Epilogue(),
    "relu": Epilogue("relu"),
    "silu": Epilogue("silu"),
    "skip": Epilogue("silu", residual=True),
    "skip+sum": Epilogue("silu", residual=True, sum=True),
    "film": Epilogue("silu", modulation=True),
}


@dataclass(frozen=True, slots=True)
class Case:
    """One layer; ``shape`` is (N, C, ...) also where the data lie channels last."""

    net: str
    shape: tuple[int, ...]
    epilogue: str = "silu"
    dtype: str = "float16"
    layout: str = "nchw"
    groups: int = 32

    @property
    def key(self) -> str:
        """2x320x64x64/32 float16 nchw silu"""
        return f"{'x'.join(map(str, self.shape))}/{self.groups} {self.dtype} {self.layout} {self.epilogue}"

    @property
    def parts(self) -> Epilogue:
        return EPILOGUES[self.epilogue]

    @property
    def positions(self) -> int:
        return math.prod(self.shape[2:])

    @property
    def tensor_bytes(self) -> int:
        """Of x."""
        return math.prod(self.shape) * ELEMENT_BYTES[self.dtype]

    @property
    def moved_bytes(self) -> int:
        """The least that goes through memory: every tensor once; parameters do not count."""
        return self.tensor_bytes * (2 + self.parts.residual + self.parts.sum)

    @property
    def unit_bytes(self) -> int:
        """Of x in the least that shares statistics: a group, or channels last the narrowest slab of whole groups."""
        problem = Problem(**self.problem())
        return units_of(problem, slab_of(problem)).bytes

    def problem(self) -> dict[str, Any]:
        """As ``gn_deploy.plugin.binding`` takes it; parameters are of x's type, as torch wants them."""
        n, c = self.shape[:2]
        return {
            "samples": n,
            "channels": c,
            "positions": self.positions,
            "pitch": c,
            "output_pitch": c,
            "groups": self.groups,
            "epsilon": 1e-5,
            "layout": self.layout,
            "dtype": self.dtype,
            "parameter_dtype": self.dtype,
            "output_dtype": self.dtype,
            "activation": self.parts.activation,
            "output_scale": 1.0,
            "has_residual": int(self.parts.residual),
            "has_sum": int(self.parts.sum),
            "has_affine": 3,
            "has_modulation": 3 * self.parts.modulation,
        }


CASES = (
    # one of each kind, for a run that is cut short
    Case("SD1.5", (2, 320, 64, 64)),
    Case("VAE decoder", (1, 512, 256, 256)),
    Case("ResNet-50", (32, 256, 56, 56), "gn"),
    Case("SD1.5", (2, 1280, 8, 8)),
    Case("SDXL", (2, 640, 128, 128)),
    Case("SD1.5", (2, 320, 64, 64), layout="nhwc"),
    Case("3-D U-Net", (1, 32, 128, 128, 128), groups=8),
    Case("VAE decoder", (1, 256, 1024, 1024)),
    Case("SD1.5", (2, 320, 64, 64), "skip+sum"),
    Case("SD1.5", (2, 1280, 16, 16), "film"),
    Case("detection P3", (8, 256, 100, 152), "relu"),
    Case("VAE decoder", (1, 512, 128, 128), dtype="bfloat16"),
    # latency
    Case("SD1.5", (2, 640, 64, 64)),
    Case("SD1.5", (2, 640, 32, 32)),
    Case("SD1.5", (2, 1280, 16, 16)),
    Case("SD1.5", (2, 2560, 8, 8)),
    Case("SD1.5", (2, 1280, 16, 16), layout="nhwc"),
    Case("SD1.5", (2, 960, 64, 64), dtype="float32"),
    # bandwidth
    Case("SDXL", (2, 320, 128, 128)),
    Case("SDXL", (2, 1280, 32, 32), dtype="bfloat16"),
    Case("VAE decoder", (1, 512, 64, 64)),
    Case("VAE decoder", (1, 256, 512, 512)),
    Case("VAE decoder", (1, 128, 1024, 1024)),
    Case("VAE decoder", (1, 512, 256, 256), layout="nhwc"),
    Case("SDXL", (2, 640, 128, 128), layout="nhwc"),
    Case("VAE decoder", (1, 512, 128, 128), dtype="float32"),
    # recognition and detection
    Case("ResNet-50", (32, 64, 112, 112), "relu"),
    Case("ResNet-50", (32, 512, 28, 28), "relu"),
    Case("ResNet-50", (32, 1024, 14, 14), "gn"),
    Case("ResNet-50", (32, 2048, 7, 7), "gn"),
    Case("ResNet-50", (32, 256, 56, 56), "skip", layout="nhwc"),
    Case("detection P4", (8, 256, 50, 76), "relu"),
    Case("detection P5", (8, 256, 25, 38), "relu", dtype="float32"),
    Case("detection P7", (8, 256, 7, 10), "relu"),
    # 3-D and video
    Case("3-D U-Net", (1, 64, 64, 64, 64), groups=8),
    Case("3-D U-Net", (1, 128, 32, 32, 32), "relu", dtype="float32", groups=8),
    Case("video VAE", (1, 128, 20, 256, 256), dtype="bfloat16"),
    Case("video upsampler", (1, 512, 16, 180, 320), dtype="bfloat16"),
    # fusions
    Case("SDXL", (2, 640, 64, 64), "skip"),
    Case("VAE decoder", (1, 512, 256, 256), "skip+sum", dtype="bfloat16"),
    Case("SDXL", (2, 1280, 32, 32), "film", layout="nhwc"),
    Case("VAE decoder", (1, 256, 1024, 1024), layout="nhwc"),
)
