"""A feature pyramid for segmentation: segmentation_models_pytorch's FPN on a ResNet-18.

It stresses GroupNorm beside BatchNorm: the encoder has batch normalizations, which must be left alone, the decoder
GroupNorm, ReLU and upsampling on merged levels.
"""

from _seeded import normal, seeded
from segmentation_models_pytorch import FPN
from torch import Tensor, nn


def build() -> nn.Module:
    return seeded(lambda: FPN("resnet18", encoder_weights=None, classes=4))


def example_inputs() -> dict[str, Tensor]:
    return {"x": normal(2, 3, 64, 64)}
