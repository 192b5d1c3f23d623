"""One GroupNorm wrong in a whole network, on ONNX Runtime: found, and the right one named."""

from collections.abc import Callable
from pathlib import Path

import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

import gn_deploy as gn
from tests.mutation.test_rehearsal import counts

FEW = ("epsilon x10", "unbiased variance", "groups interleaved", "affine one channel off", "stored in float16")
Make = Callable[[], ir.Model]


class UNet(nn.Module):
    """(N, 3, H, W) with H and W even: two levels, GroupNorm and SiLU, a concatenated skip, a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3, 8, 3, padding=1)
        self.down = nn.Sequential(nn.GroupNorm(4, 8), nn.SiLU(), nn.Conv2d(8, 16, 3, stride=2, padding=1))
        self.middle = nn.Sequential(nn.GroupNorm(4, 16), nn.SiLU(), nn.Conv2d(16, 16, 3, padding=1))
        self.up = nn.Sequential(nn.GroupNorm(2, 16), nn.SiLU(), nn.ConvTranspose2d(16, 8, 2, stride=2))
        self.leave = nn.Sequential(nn.GroupNorm(4, 16), nn.SiLU(), nn.Conv2d(16, 3, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        skip = self.enter(x)
        inner = self.down(skip)
        inner = inner + self.middle(inner)
        return self.leave(torch.cat([self.up(inner), skip], 1))


def unet() -> ir.Model:
    torch.manual_seed(0)
    model = UNet().eval()
    for norm in model.modules():
        if isinstance(norm, nn.GroupNorm):
            nn.init.normal_(norm.weight, 1.0, 0.2)
            nn.init.normal_(norm.bias, 0.0, 0.2)
    return gn.export(model, (torch.randn(2, 3, 8, 8),), target="ort-cpu", verify=False).model


def digits() -> ir.Model:
    return gn.export(Path(__file__).parents[2] / "models" / "digits_resnet.py", target="ort-cpu", verify=False).model


@pytest.mark.parametrize(
    ("make", "faults", "seconds"),
    [pytest.param(unet, FEW[:3], None, marks=pytest.mark.slow), (digits, FEW, 0)],
)
def test_a_handful_of_faults(make: Make, faults: tuple[str, ...], seconds: float | None) -> None:
    """In every GroupNorm of the U-Net, in the middle one of the ResNet."""
    model = make()
    sites = 1 if seconds == 0 else len(gn.find(model))
    report = gn.would_notice(model, model, faults=faults, seconds=seconds, runtimes=["onnxruntime"], isolate=False)
    assert report.held
    assert {row.fault: counts(row) for row in report.noticed} == dict.fromkeys(faults, (sites,) * 4)


@pytest.mark.slow
@pytest.mark.parametrize("make", [unet, digits])
def test_every_fault(make: Make) -> None:
    model = make()
    report = gn.would_notice(model, model, runtimes=["onnxruntime"], isolate=False)
    assert [(row.fault, row.missed) for row in report.noticed if row.named < row.effective] == []
    assert sum(row.effective for row in report.noticed) > 35 * len(gn.find(model))
