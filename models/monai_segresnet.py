"""A 3-D segmentation network: monai's SegResNet, which normalizes by GroupNorm unless told otherwise.

It stresses rank 5 with pre-activation blocks: GroupNorm before ReLU before every convolution (Myronenko 2018).
"""

from _seeded import normal, seeded
from monai.networks.nets import SegResNet
from torch import Tensor, nn


def build() -> nn.Module:
    return seeded(lambda: SegResNet(spatial_dims=3, init_filters=16, in_channels=1, out_channels=3))


def example_inputs() -> dict[str, Tensor]:
    return {"x": normal(2, 1, 16, 16, 16)}
