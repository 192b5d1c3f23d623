"""wav2vec 2.0: transformers' Wav2Vec2Model, base version, with a quarter of its width and two layers of twelve.

It stresses rank 3, and one group per channel on sound: the first of seven convolutions is followed by a GroupNorm, the
others by nothing; the transformer's LayerNorms must be left alone.
"""

from _seeded import normal, seeded
from torch import Tensor, nn
from transformers import Wav2Vec2Config, Wav2Vec2Model

DYNAMIC = {"sound": {0: "batch", 1: "samples"}}


class Encoder(nn.Module):
    """(N, samples) sound at 16 kHz -> (N, frames, 192), a frame for every 320 samples."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Wav2Vec2Model(
            Wav2Vec2Config(
                conv_dim=(128,) * 7,
                hidden_size=192,
                intermediate_size=768,
                num_hidden_layers=2,
                num_attention_heads=3,
                attn_implementation="eager",
            )
        )

    def forward(self, sound: Tensor) -> Tensor:
        return self.model(sound).last_hidden_state


def build() -> nn.Module:
    return seeded(Encoder)


def example_inputs() -> dict[str, Tensor]:
    return {"sound": normal(2, 8000)}
