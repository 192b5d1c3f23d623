"""The heads of FCOS: torchvision's FCOSHead on five levels of a feature pyramid.

It stresses modules that are called again and again: eight GroupNorms, each on every level, forty sites that share
sixteen parameters. The detector around it ends in non-maximum suppression, which no GroupNorm sees.
"""

from _seeded import normal, seeded
from torch import Tensor, nn
from torchvision.models.detection.fcos import FCOSHead

LEVELS = range(3, 8)  # of the pyramid: 1/8 to 1/128 of the image
DYNAMIC = {f"level{level}": {0: "batch", 2: f"height{level}", 3: f"width{level}"} for level in LEVELS}


class Heads(nn.Module):
    """Five (N, 256, H, W) levels, each half the size of the one before -> logits, boxes and centerness."""

    def __init__(self) -> None:
        super().__init__()
        self.head = FCOSHead(in_channels=256, num_anchors=1, num_classes=91)

    def forward(
        self, level3: Tensor, level4: Tensor, level5: Tensor, level6: Tensor, level7: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        found = self.head([level3, level4, level5, level6, level7])
        return found["cls_logits"], found["bbox_regression"], found["bbox_ctrness"]


def build() -> nn.Module:
    return seeded(Heads)


def example_inputs() -> dict[str, Tensor]:
    return {f"level{level}": normal(2, 256, 256 >> level, 256 >> level) for level in LEVELS}
