"""ResNet-50 with GroupNorm: timm's resnet50_gn, the network of the GroupNorm paper (Wu & He 2018).

It stresses GroupNorm before ReLU and before a residual addition, 32 groups on 64 to 2048 channels.
"""

from _seeded import normal, seeded
from timm import create_model
from torch import Tensor, nn


def build() -> nn.Module:
    return seeded(lambda: create_model("resnet50_gn"))


def example_inputs() -> dict[str, Tensor]:
    return {"x": normal(2, 3, 64, 64)}
