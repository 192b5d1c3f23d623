"""A 3-D U-Net for medical volumes: monai's UNet with residual units and GroupNorm.

It stresses rank 5: (N, C, D, H, W), with GroupNorm before PReLU and behind transposed convolutions.
"""

from _seeded import normal, seeded
from monai.networks.nets import UNet
from torch import Tensor, nn


def build() -> nn.Module:
    return seeded(
        lambda: UNet(
            spatial_dims=3,
            in_channels=1,
            out_channels=8,
            channels=(16, 32, 64, 128),
            strides=(2, 2, 2),
            num_res_units=2,
            norm=("GROUP", {"num_groups": 4}),
        )
    )


def example_inputs() -> dict[str, Tensor]:
    return {"x": normal(2, 1, 16, 16, 16)}
