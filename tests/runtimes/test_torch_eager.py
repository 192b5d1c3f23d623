"""torch in eager mode: the numbers, the taps, and a module left as it was found."""

import ml_dtypes
import numpy as np
import pytest

from gn_deploy.errors import InputError
from gn_deploy.runtimes import RUNTIMES
from gn_deploy.runtimes.base import RuntimeFailure
from gn_deploy.runtimes.torch_eager import TorchModel, to_numpy, to_torch
from tests.runtimes.small_models import formula, relative_error, sample

TORCH = RUNTIMES.require("torch")


@pytest.fixture
def module():
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.GroupNorm(2, 8)
            self.drop = nn.Dropout(0.5)
            self.again = nn.ModuleDict({"inner": nn.InstanceNorm2d(8, affine=True)})

        def forward(self, x, times):
            x = self.drop(self.norm(x))
            for _ in range(2):
                x = self.again["inner"](x)
            return {"y": x * times, "pair": (x, "not a tensor")}

    torch.manual_seed(0)
    block = Block()
    with torch.no_grad():
        block.norm.weight.uniform_(0.5, 1.5)
        block.norm.bias.uniform_(-1, 1)
    return block


def opened(module, **options):
    return TORCH.open(TorchModel(module, ("x", "times"), ("y", "x2")), **options)


def feeds(**options):
    return {"x": sample((2, 8, 16, 16), **options), "times": np.array(3)}


def test_outputs_by_name_in_eval_mode_and_training_restored(module) -> None:
    module.again.eval()
    flags = [part.training for part in module.modules()]
    out = opened(module).run(feeds())
    assert list(out) == ["y", "x2"]
    np.testing.assert_allclose(out["y"], 3 * out["x2"], rtol=1e-6)  # one float32 product
    assert [part.training for part in module.modules()] == flags


def test_taps_are_what_went_in_and_came_out(module) -> None:
    given = feeds()
    taps = opened(module).run_tapped(given)
    assert {"norm:input", "norm:output", "again.inner:input", "again.inner@1:output"} <= set(taps)
    np.testing.assert_array_equal(taps["norm:input"], given["x"])
    np.testing.assert_array_equal(taps["again.inner@1:input"], taps["again.inner:output"])
    scale, bias = module.norm.weight.detach().numpy(), module.norm.bias.detach().numpy()
    assert relative_error(taps["norm:output"], formula(given["x"], 2, scale, bias)) < 2e-6  # a few float32 roundings
    assert not module.norm._forward_hooks


def test_double_is_a_copy(module) -> None:
    session = opened(module, precision="float64")
    given = feeds(mean=1e3)
    taps = session.run_tapped(given)
    scale, bias = module.norm.weight.detach().numpy(), module.norm.bias.detach().numpy()
    assert taps["norm:output"].dtype == np.float64
    assert relative_error(taps["norm:output"], formula(given["x"], 2, scale, bias, 1e-5)) < 1e-11  # epsilon's rounding
    assert str(module.norm.weight.dtype) == "torch.float32"


def test_channels_last_weights_are_straightened(module) -> None:
    """torch's CPU GroupNorm over channels_last memory is one-pass."""
    import torch
    from torch import nn

    net = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, bias=True), nn.GroupNorm(2, 8)).to(
        memory_format=torch.channels_last
    )
    with torch.no_grad():
        net[0].weight.mul_(1e-4)
        net[0].bias.fill_(1e3)
    session = TORCH.open(TorchModel(net, ("x",), ("y",)))
    taps = session.run_tapped({"x": sample((1, 8, 64, 64), std=1e3)})
    expected = formula(taps["1:input"], 2, np.ones(8), np.zeros(8))
    assert relative_error(taps["1:output"], expected) < 2e-2  # float32 spacing at 1e3, over a deviation near 1
    assert not net[0].weight.is_contiguous()


def test_bfloat16_makes_the_round_trip() -> None:
    x = np.array([[1, -2.5], [3, 1e30]], ml_dtypes.bfloat16)
    np.testing.assert_array_equal(to_numpy(to_torch(x)), x)


def test_mistakes_are_told(module) -> None:
    with pytest.raises(InputError, match="2 tensors for 1 output"):
        TORCH.open(TorchModel(module, ("x", "times"), ("y",))).run(feeds())
    with pytest.raises(InputError, match="unknown precision"):
        opened(module, precision="float8")
    with pytest.raises(InputError, match="not ONNX files"):
        TORCH.open("m.onnx")
    with pytest.raises(RuntimeFailure, match="Block failed"):
        opened(module).run({"x": sample((2, 7, 4, 4)), "times": np.array(3)})
    session = opened(module)
    session.close()
    session.close()
    with pytest.raises(RuntimeFailure, match="closed"):
        session.run(feeds())
