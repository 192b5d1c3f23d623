"""A diffusion U-Net in small: diffusers' UNet2DModel with 41 GroupNorms and random weights.

It stresses numbers of sites and their surroundings: GroupNorm followed by SiLU, residual additions, a time embedding
added between two norms, skip connections that are concatenated (96 and 128 channels in 8 groups), and attention,
whose GroupNorm sees tokens (rank 3). Weights are drawn from a fixed seed; scale and bias of every GroupNorm too,
because 1 and 0 would hide a fault in either.
"""

import torch
from diffusers import UNet2DModel
from torch import Tensor, nn


class Denoiser(nn.Module):
    """(N, 3, H, W) noisy images and (N,) int64 time steps -> (N, 3, H, W); H and W divisible by 4."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, sample: Tensor, timestep: Tensor) -> Tensor:
        return self.unet(sample, timestep, return_dict=False)[0]


def build() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = UNet2DModel(
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
        for module in unet.modules():
            if isinstance(module, nn.GroupNorm):
                nn.init.normal_(module.weight, mean=1.0, std=0.2)
                nn.init.normal_(module.bias, std=0.2)
    return Denoiser(unet).eval()


def example_inputs() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {"sample": torch.randn(2, 3, 16, 16, generator=generator), "timestep": torch.tensor([10, 500])}
