"""Big Transfer: timm's resnetv2_50x1_bit, pre-activation blocks with GroupNorm and weight-standardized convolutions.

It stresses GroupNorm fused with ReLU in one module, and batch normalizations of the weights beside it, which are none
of ours: they normalize what no input reaches (Kolesnikov et al. 2020). Its stem pads with zeros before a max pooling,
which ONNX Runtime 1.31 fuses into a pooling that pads with minus infinity (Pad_Fusion): where all is negative, it is
wrong, and the whole network with it, however the GroupNorms are written.
"""

from _seeded import normal, seeded
from timm import create_model
from torch import Tensor, nn


def build() -> nn.Module:
    return seeded(lambda: create_model("resnetv2_50x1_bit"))


def example_inputs() -> dict[str, Tensor]:
    return {"x": normal(2, 3, 64, 64)}
