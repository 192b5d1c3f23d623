"""Deformable DETR: transformers' DeformableDetrModel on a ResNet.

It stresses GroupNorm on the projections of a backbone's levels, whose maps are flattened into tokens at once.
"""

from _seeded import normal, seeded
from torch import Tensor, nn
from transformers import DeformableDetrConfig, DeformableDetrModel, ResNetConfig


class Detector(nn.Module):
    """(N, 3, H, W) images -> (N, queries, 64); H and W over 64."""

    def __init__(self) -> None:
        super().__init__()
        levels = ["stage2", "stage3", "stage4"]
        widths = [32, 64, 128, 256]
        backbone = ResNetConfig(
            embedding_size=16, hidden_sizes=widths, depths=[1] * 4, layer_type="basic", out_features=levels
        )
        self.model = DeformableDetrModel(
            DeformableDetrConfig(
                use_timm_backbone=False,
                backbone_config=backbone,
                d_model=64,
                encoder_layers=2,
                encoder_ffn_dim=128,
                decoder_layers=2,
                decoder_ffn_dim=128,
                num_queries=20,
                attn_implementation="eager",
            )
        )

    def forward(self, image: Tensor) -> Tensor:
        return self.model(image).last_hidden_state


def build() -> nn.Module:
    return seeded(Detector)


def example_inputs() -> dict[str, Tensor]:
    return {"image": normal(2, 3, 128, 128)}  # at 64 the last level is 1 x 1, which a trace takes for a constant
