"""What the recipes of real models share: packages that can be imported, and weights drawn from a fixed seed."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

_OPERATORS = ("roi_align", "ps_roi_align", "roi_pool", "ps_roi_pool", "deform_conv2d")

try:
    import torchvision  # noqa: F401
except ImportError:
    pass  # who needs it says so
except RuntimeError:  # a build for CUDA beside torch for CPU: its C++ operators are absent, and no recipe runs one
    for name in ("nms", "qnms", *_OPERATORS, *(f"_{operator}_backward" for operator in _OPERATORS)):
        torch.library.define(f"torchvision::{name}", "(Tensor x) -> Tensor")


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    """The module with the same weights each time, in evaluation mode.

    Scale and bias of every GroupNorm are drawn too: 1 and 0 would hide a fault in either.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = make()
        for module in model.modules():
            if isinstance(module, nn.GroupNorm):
                nn.init.normal_(module.weight, mean=1.0, std=0.2)
                nn.init.normal_(module.bias, std=0.2)
        for name, parameter in model.named_parameters():
            if name.endswith("level_embed"):  # transformers leaves in it what the memory held before
                nn.init.normal_(parameter)
    return model.eval()


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))
