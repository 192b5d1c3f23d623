"""The pixel decoder of Mask2Former: transformers' Mask2FormerPixelDecoder on the levels of a Swin backbone.

It stresses GroupNorm on projections that are flattened into the tokens of a deformable attention, and between
convolutions of a feature pyramid. Two encoder layers of six, 64 channels instead of 256.
"""

from _seeded import normal, seeded
from torch import Tensor, nn
from transformers import Mask2FormerConfig, SwinConfig
from transformers.models.mask2former.modeling_mask2former import Mask2FormerPixelLevelModule


class PixelDecoder(nn.Module):
    """(N, 3, H, W) images -> (N, 64, H / 4, W / 4) features of every pixel; H and W divisible by 32."""

    def __init__(self) -> None:
        super().__init__()
        levels = ["stage1", "stage2", "stage3", "stage4"]
        backbone = SwinConfig(embed_dim=32, depths=[1] * 4, num_heads=[1, 2, 4, 8], out_features=levels)
        self.module = Mask2FormerPixelLevelModule(
            Mask2FormerConfig(backbone_config=backbone, feature_size=64, mask_feature_size=64, encoder_layers=2)
        )

    def forward(self, image: Tensor) -> Tensor:
        return self.module(image).decoder_last_hidden_state


def build() -> nn.Module:
    return seeded(PixelDecoder)


def example_inputs() -> dict[str, Tensor]:
    return {"image": normal(2, 3, 64, 64)}
