"""The denoiser of Stable Diffusion 1.5: diffusers' UNet2DConditionModel with every block, at a fifth of its width.

It stresses numbers of sites in a graph of thousands of nodes: 61 GroupNorms among cross-attention to text, concatenated
skips and a time embedding. Widths 64 to 256 instead of 320 to 1280, so a group of the first blocks is two channels.
"""

import torch
from _seeded import normal, seeded
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

DYNAMIC = {
    "sample": {0: "batch", 2: "height", 3: "width"},
    "timestep": {0: "batch"},
    "text": {0: "batch", 1: "tokens"},
}


class Denoiser(nn.Module):
    """(N, 4, H, W) noisy latents, (N,) int64 time steps, (N, T, 64) text -> (N, 4, H, W); H and W divisible by 8."""

    def __init__(self) -> None:
        super().__init__()
        self.unet = UNet2DConditionModel(
            block_out_channels=(64, 128, 256, 256), cross_attention_dim=64, attention_head_dim=8
        )

    def forward(self, sample: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        return self.unet(sample, timestep, text, return_dict=False)[0]


def build() -> nn.Module:
    return seeded(Denoiser)


def example_inputs() -> dict[str, Tensor]:
    return {"sample": normal(2, 4, 16, 16), "timestep": torch.tensor([10, 500]), "text": normal(2, 7, 64)}
