"""PoolFormer: timm's poolformer_s12, where GroupNorm stands in a transformer's place of LayerNorm.

It stresses num_groups=1, which TensorRT compiles wrongly, beside one LayerNorm over the channels that must be left
alone (Yu et al. 2022).
"""

from _seeded import normal, seeded
from timm import create_model
from torch import Tensor, nn


def build() -> nn.Module:
    return seeded(lambda: create_model("poolformer_s12"))


def example_inputs() -> dict[str, Tensor]:
    return {"x": normal(2, 3, 64, 64)}
