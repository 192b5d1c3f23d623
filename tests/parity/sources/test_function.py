"""Inputs from the user's own code: Polygraphy's convention, tuples, arrays, and every way in which it can fail."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from gn_deploy.errors import GnDeployError, InputError
from gn_deploy.parity.cases import InputSpec
from gn_deploy.parity.sources.data import Data

IMAGE = InputSpec("image", "float32", ("batch", 3, "h", "w"))
STEP = InputSpec("step", "int64", ("batch",))
CODE = """
import numpy as np
import neighbour

def load_data():
    from neighbour import image  # imported late
    for i in range(3):
        yield {"image": i * image, "step": np.array([i])}

def tuples():
    return [(neighbour.image, np.array([7]))]

def one():
    return {"image": neighbour.image, "step": np.array([7])}

class Loader:
    def __getitem__(self, i):
        if i > 1:
            raise IndexError(i)
        return neighbour.image, np.array([i])

loader = Loader()

def nothing():
    return []

def fails():
    yield from tuples()
    raise RuntimeError("out of luck")

def number():
    return 3

def lacks():
    import no_such_package_at_all

def leaves():
    raise SystemExit(0)

def takes(argument):
    return []

def strings():
    yield "image"

def shapes():
    yield from tuples()
    yield np.ones((1, 4, 2, 2)), np.array([1])
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "inputs.py").write_text(CODE)
    (tmp_path / "neighbour.py").write_text("import numpy as np\nimage = np.ones((1, 3, 2, 2), np.float32)\n")
    (tmp_path / "broken.py").write_text("import numpy as np\nnp.no_such_thing\n")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "er.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in ("neighbour", "deep", "deep.er"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("source", "steps"),
    [
        ("inputs.py", [0, 1, 2]),
        ("inputs.py:load_data", [0, 1, 2]),
        ("deep.er:load_data", [0, 1, 2]),
        ("deep/../inputs.py:tuples", [7]),
        ("inputs.py:one", [7]),
        ("inputs.py:loader", [0, 1]),
    ],
)
def test_a_function_gives_cases(source: str, steps: list[int], folder: Path) -> None:
    before = list(sys.path)
    cases = list(Data(source, [IMAGE, STEP]))
    assert [int(c.feeds["step"][0]) for c in cases] == steps
    assert len({c.name for c in cases}) == len(steps)
    assert sys.path == before


def test_an_endless_function_is_read_as_far_as_asked(folder: Path) -> None:
    (folder / "endless.py").write_text(
        "import itertools\ndef load_data():\n    return itertools.repeat({'step': [1]})\n"
    )
    assert len(list(Data("endless.py", [STEP], limit=5))) == 5


@pytest.mark.parametrize(
    ("source", "message", "hint"),
    [
        ("inputs.py:absent", "'inputs.py' has no 'absent'", "yields"),
        ("absent.py", "no such file: absent.py", "FILE.py:FUNCTION"),
        ("absent.py:load", "no such file: absent.py", "FILE.py:FUNCTION"),
        ("absent_module:load", "no module 'absent_module'", "package.module:FUNCTION"),
        ("deep.absent:load", "no module 'deep.absent'", "package.module:FUNCTION"),
        ("inputs.py:nothing", "'inputs.py:nothing' gives no input at all", "at least one"),
        ("inputs.py:fails", "inputs.py:fails() raised RuntimeError: out of luck at input 1", "inputs.py line"),
        ("inputs.py:number", "inputs.py:number() gives a int, not inputs one by one", "yields"),
        ("inputs.py:lacks", "no_such_package_at_all", "inputs.py line"),
        ("inputs.py:leaves", "raised SystemExit: 0 at input 0", "inputs.py line"),
        ("inputs.py:takes", "raised TypeError: takes() missing 1 required", ""),
        ("inputs.py:strings", "has 1 array, the model has 2 inputs", "in this order"),
        ("inputs.py:shapes", "'image' has shape (1, 4, 2, 2), the model takes (batch, 3, h, w)", "free"),
        ("broken.py", "importing broken.py:load_data raised AttributeError", "broken.py line 2"),
    ],
)
def test_what_goes_wrong_is_told_in_one_sentence(source: str, message: str, hint: str, folder: Path) -> None:
    with pytest.raises(GnDeployError) as refused:
        list(Data(source, [IMAGE, STEP]))
    assert message in refused.value.message
    assert hint in refused.value.hint
    assert refused.value.exit_code == 2


def test_what_python_holds_already() -> None:
    image, step = torch.ones(4, 3, 2, 2), torch.arange(4)
    loaded: Any = DataLoader(TensorDataset(image, step), batch_size=2)
    assert [c.feeds["step"].tolist() for c in Data(loaded, [IMAGE, STEP])] == [[0, 1], [2, 3]]
    assert len(list(Data(image.numpy(), [IMAGE]))) == 1
    assert [c.name for c in Data([image, 2 * image], [IMAGE])] == ["data 0", "data 1"]
    assert len(list(Data(lambda: ({"image": image} for _ in range(3)), [IMAGE]))) == 3
    assert next(iter(Data({"step": [3]}, [STEP]))).feeds["step"].tolist() == [3]
    with pytest.raises(InputError, match="data gives no input at all"):
        list(Data(iter(()), [IMAGE]))
