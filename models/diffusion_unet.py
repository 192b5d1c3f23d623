"""A diffusion U-Net in small: diffusers' UNet2DModel with 41 GroupNorms and random weights.

It stresses numbers of sites and their surroundings: GroupNorm followed by SiLU, residual additions, a time embedding
added between two norms, skip connections that are concatenated (96 and 128 channels in 8 groups), and attention,
whose GroupNorm sees tokens (rank 3). Weights are drawn from a fixed seed; scale and bias of every GroupNorm too,
because 1 and 0 would hide a fault in either.
"""

import torch
from _seeded import normal, seeded
from diffusers import UNet2DModel
from torch import Tensor, nn


class Denoiser(nn.Module):
    """(N, 3, H, W) noisy images and (N,) int64 time steps -> (N, 3, H, W); H and W divisible by 4."""

    def __init__(self) -> None:
        super().__init__()
        self.unet = UNet2DModel(
            sample_size=16,
            in_channels=3,
            out_channels=3,
            layers_per_block=2,
            block_out_channels=(32, 64, 64),
            down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
            norm_num_groups=8,
            attention_head_dim=16,
        )

    def forward(self, sample: Tensor, timestep: Tensor) -> Tensor:
        return self.unet(sample, timestep, return_dict=False)[0]


def build() -> nn.Module:
    return seeded(Denoiser)


def example_inputs() -> dict[str, Tensor]:
    return {"sample": normal(2, 3, 16, 16), "timestep": torch.tensor([10, 500])}
