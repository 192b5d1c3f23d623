"""``gn-deploy parity --metric`` as a user types it, on the digits network and its held-out images."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from gn_deploy import api
from gn_deploy.exporters.recipe import load_recipe
from tests.cli.conftest import ROOT, Ended

RECIPE = ROOT / "models" / "digits_resnet.py"


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the network, one whose answers are often wrong, and the labelled images."""
    folder = tmp_path_factory.mktemp("digits")
    recipe = load_recipe(RECIPE)
    assert recipe.test_data is not None
    images, labels = recipe.test_data()
    np.savez(folder / "labelled.npz", labels=labels, **images)
    api.export(recipe, out=folder / "digits.onnx", verify=False)
    model = onnx.load(folder / "digits.onnx")
    (bias,) = (t for t in model.graph.initializer if t.name == "classify.bias")
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32([3] + [0] * 9), bias.name))
    onnx.save(model, folder / "wrong.onnx")
    (folder / "mine.py").write_text(
        "def loss(logits, labels):\n"
        "    import numpy as np\n"
        "    top = logits.max(1)\n"
        "    return logits[np.arange(len(labels)), labels] - top - np.log(np.exp(logits - top[:, None]).sum(1))\n"
    )
    return folder


def test_a_drop_that_is_allowed_and_one_that_540_samples_cannot_settle(
    here: Callable[..., Ended], digits: Path
) -> None:
    model, data = digits / "digits.onnx", digits / "labelled.npz"
    runtimes = ("--runtime", "onnxruntime", "--reference-runtime", "onnxruntime", "--probes-only")
    one = ("parity", model, model, *runtimes, "--data", data, "--metric", "top-1")
    ended = here(*one, "--allowed-drop", "1%")
    assert ended.code == 0, ended.err
    assert re.search(r"top-1 +99.63 % +99.63 % +0.00 % +-0.71 % to 0.71 % +-1.00 % +✓ pass", ended.err), ended.err
    assert "540 of 540" in ended.err
    tight = here(*one, "--allowed-drop", "0.5%")
    assert tight.code == 0
    assert "cannot be ruled out with 540 samples; about 770 like these would settle it" in tight.err


def test_a_drop_that_is_not_allowed(here: Callable[..., Ended], digits: Path) -> None:
    ended = here(
        "parity", digits / "digits.onnx", digits / "wrong.onnx", "--data", digits / "labelled.npz",
        "--metric", f"{digits / 'mine.py'}:loss", "--allowed-drop", "0.01", "--reference-runtime", "onnxruntime",
        "--runtime", "onnxruntime", "--probes-only", "--json",
    )  # fmt: skip
    assert ended.code == 1
    (task,) = ended.document["tasks"]
    assert task["status"] == "fail"
    assert task["metric"] == "loss"
    assert task["interval"][0] < task["difference"] < task["interval"][1] < -0.01
    assert task["agreement"] is None


TINY = '''"""Three numbers to classify."""
import torch
def build():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv1d(1, 4, 1), torch.nn.GroupNorm(2, 4), torch.nn.Flatten()).eval()
def example_inputs():
    return (torch.randn(2, 1, 3),)
def test_data():
    x = torch.randn(50, 1, 3, generator=torch.Generator().manual_seed(1))
    return {"input": x.numpy()}, build()(x).argmax(1).numpy()
'''


def test_a_recipe_brings_its_own_data(here: Callable[..., Ended], tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.py"
    recipe.write_text(TINY)
    api.export(str(recipe), out=tmp_path / "tiny.onnx", verify=False)
    ended = here("parity", recipe, "tiny.onnx", "--metric", "accuracy", "--probes-only", "--json")
    assert ended.code == 0, ended.err
    (task,) = ended.document["tasks"]
    assert (task["samples"], task["certified"], task["reference_value"]) == (50, 50, 1.0)


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--metric", "top-1"), 2, "needs data"),
        (("--metric", "top1 ", "--data", "absent.npz"), 2, "no such file"),
        (("--metric", "tpo-1", "--data", "labelled.npz"), 2, "did you mean 'top-1'?"),
        (("--metric", "top-1", "--data", "labelled.npz", "--labels", "truth"), 2, "no array 'truth'"),
        (("--metric", "top-1", "--data", "labelled.npz", "--allowed-drop", "lots"), 2, "not an allowed drop"),
        (("--allowed-drop", "1%"), 2, "without a metric"),
        (("--metric", "iou", "--data", "labelled.npz"), 2, "segmentation"),
        (("--metric", "top-1", "--data", "labelled.npz", "--reference-runtime", "tensorrt"), 3, "tensorrt"),
    ],
)
def test_what_does_not_fit_is_named(
    here: Callable[..., Ended], digits: Path, options: tuple[str, ...], code: int, words: str
) -> None:
    given = [str(digits / o) if o.endswith("led.npz") else o for o in options]
    ended = here("parity", digits / "digits.onnx", digits / "digits.onnx", "--probes-only", *given)
    assert ended.code == code, ended.err
    assert words in ended.err
    assert "Traceback" not in ended.err
