"""The image autoencoder of Stable Diffusion: diffusers' AutoencoderKL at half its width.

It stresses GroupNorm and SiLU in front of every convolution, an attention whose GroupNorm sees tokens (rank 3), and
epsilon 1e-6. Widths 64 to 256 instead of 128 to 512, so a group of the first blocks is two channels.
"""

from _seeded import normal, seeded
from diffusers import AutoencoderKL
from torch import Tensor, nn


class Autoencoder(nn.Module):
    """(N, 3, H, W) images -> the same, encoded and decoded; H and W divisible by 8."""

    def __init__(self) -> None:
        super().__init__()
        self.vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(64, 128, 256, 256),
            layers_per_block=2,
        )

    def forward(self, image: Tensor) -> Tensor:
        return self.vae(image, return_dict=False)[0]


def build() -> nn.Module:
    return seeded(Autoencoder)


def example_inputs() -> dict[str, Tensor]:
    return {"image": normal(2, 3, 32, 32)}
