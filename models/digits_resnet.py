"""Handwritten digits: a small residual network with nine GroupNorms, trained, test accuracy 99.6 %.

It stresses every rule that depends on the number of groups: 8, 16 and 32 groups, ``num_groups=1`` (all channels
together) and one group per channel (instance normalization); GroupNorm followed by ReLU, by SiLU, by a residual
addition and by nothing. Images are 8 x 8; global average pooling lets batch, height and width change.

Data: the digits that scikit-learn ships (E. Alpaydin, C. Kaynak, UCI 1998), 30 % held out, stratified.
Weights: ``digits_resnet.safetensors``, reproduced by ``scripts/train_digits.py``.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

WEIGHTS = Path(__file__).with_suffix(".safetensors")


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions, each normalized, added to a shortcut; ``groups`` are those of the two norms."""

    def __init__(
        self, inputs: int, outputs: int, groups: tuple[int, int], activation: type[nn.Module], stride: int = 1
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.GroupNorm(groups[0], outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(groups[1], outputs)
        self.activation = activation()
        self.shortcut: nn.Module = nn.Identity()
        if (inputs, stride) != (outputs, 1):
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.GroupNorm(1, outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.activation(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        return self.activation(y + self.shortcut(x))


class DigitsResNet(nn.Module):
    """(N, 1, H, W) in 0..1 -> (N, 10) logits."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 32, 3, padding=1, bias=False), nn.GroupNorm(8, 32), nn.ReLU())
        self.block1 = ResidualBlock(32, 32, (8, 16), nn.ReLU)
        self.block2 = ResidualBlock(32, 64, (16, 32), nn.SiLU, stride=2)
        self.block3 = ResidualBlock(64, 64, (32, 64), nn.SiLU)
        self.head = nn.Sequential(nn.GroupNorm(8, 64), nn.SiLU())
        self.classify = nn.Linear(64, 10)

    def forward(self, image: Tensor) -> Tensor:
        y = self.block3(self.block2(self.block1(self.stem(image))))
        return self.classify(self.head(y).mean(dim=(2, 3)))


def build() -> nn.Module:
    from safetensors.torch import load_file

    model = DigitsResNet()
    model.load_state_dict(load_file(WEIGHTS))
    return model.eval()


def example_inputs() -> tuple[Tensor, ...]:
    return (torch.from_numpy(test_data()[0]["image"][:2]),)


def test_data() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The 540 images held out, (540, 1, 8, 8) float32 in 0..1, and their digits, (540,) int64."""
    _, (images, digits) = split()
    return {"image": images}, digits


def split() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """(images, digits) to train on and to test on: always the same 70 % and 30 %."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    data = load_digits()
    images = (data.images[:, None] / 16).astype(np.float32)
    digits = data.target.astype(np.int64)
    x_train, x_test, y_train, y_test = train_test_split(images, digits, test_size=0.3, stratify=digits, random_state=0)
    return (x_train, y_train), (x_test, y_test)
