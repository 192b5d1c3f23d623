"""Wrong arguments of every verb: what was found, what is needed, what to do; and nobody's file is overwritten."""

import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from tests.cli.conftest import Ended, model
from tests.cli.test_cli_bad_input import refused

Cli = Callable[..., Ended]
Saved = Callable[..., Path]

RECIPE = """
from torch import nn
import torch
{}
def build():
    return {}
def example_inputs():
    return {}
"""
GOOD = ("", "nn.GroupNorm(2, 4)", "(torch.randn(2, 4, 4, 4),)")


@pytest.fixture
def folder(saved: Saved, tmp_path: Path) -> Path:
    """Models, arrays and recipes to be named in the wrong way."""
    saved("m.onnx")
    (tmp_path / "link.onnx").symlink_to("m.onnx")
    (tmp_path / "file").write_text("text")
    (tmp_path / "data").mkdir()
    arrays = {"wrong": {"y": np.ones((2, 5, 4, 4), np.float32)}, "none": {}, "no_rows": {"x": np.ones((0, 4, 4, 4))}}
    for name, content in arrays.items():
        np.savez(tmp_path / f"{name}.npz", **content)
    for name, parts in {
        "good": GOOD,
        "array": (GOOD[0], GOOD[1], "(torch.randn(2, 4, 4, 4).numpy(),)"),
        "number": (GOOD[0], GOOD[1], "3"),
        "nothing": (GOOD[0], "None", GOOD[2]),
        "shape": (GOOD[0], GOOD[1], "(torch.randn(2, 5, 4, 4),)"),
        "free": ("DYNAMIC = 7", GOOD[1], GOOD[2]),
        "exits": ("raise SystemExit(0)", GOOD[1], GOOD[2]),
        "endless": ("def again(): return again()", "again()", GOOD[2]),
    }.items():
        (tmp_path / f"{name}.py").write_text(RECIPE.format(*parts))
    return tmp_path


WRONG = {
    "inspect ''": ("an argument is empty", "unset"),
    "lower m.onnx -t onnx -o ''": ("an argument is empty", ""),
    "inspect file": ("looks like a text file", "pass an ONNX file"),
    "inspect /dev/zero": ("is a device", ""),
    "inspect nowhere/m.onnx": ("there is no folder 'nowhere'", "check the path"),
    "inspect m.onnx -t TENSORT": ("is not RUNTIME", "did you mean 'tensorrt'?"),
    "inspect m.onnx -t onnx:fp8": ("unknown dtype 'fp8'", "one of fp32, fp16, bf16"),
    "lower m.onnx -t onnx+instance_norm -o link.onnx": ("is the input itself", "another output"),
    "lower link.onnx -t onnx+instance_norm -o m.onnx": ("is the input itself", "another output"),
    "lower m.onnx -t onnx+instance_norm -o file/o.onnx": ("'file' is a file, not a folder", "another folder"),
    "build m.onnx -o m.onnx": ("is the input itself", "another output"),
    "build m.onnx -o link.onnx": ("is the input itself", "another output"),
    "build m.onnx -o file/e": ("'file' is a file, not a folder", "another folder"),
    "build m.onnx -o data": ("it is a folder", "such as"),
    "build m.onnx -o e -t onnx": ("has no engines", "tensorrt-rtx, tensorrt"),
    "build m.onnx -o e -t tensorrt-rtx:fp16": ("asks for another one", "gn-deploy lower m.onnx --target"),
    "build good.py -o e": ("is a recipe", "gn-deploy export good.py"),
    "build m.onnx -o e --shapes x=0x4x4x4": ("is not IN=MIN:OPT:MAX", "for example"),
    "build m.onnx -o e --shapes x=99999999999x4x4x4": ("is not IN=MIN:OPT:MAX", "for example"),
    "build m.onnx -o e --shapes x=1x4x4x4 --shapes x=2x4x4x4": ("gives 'x' two values", "once"),
    "parity m.onnx m.onnx --atol nan": ("atol=nan is not a tolerance", "0 or more"),
    "parity m.onnx m.onnx --atol -1": ("atol=-1 is not a tolerance", "0 or more"),
    "parity m.onnx m.onnx --rtol inf": ("rtol=inf is not a tolerance", "0 or more"),
    "parity m.onnx m.onnx --dim batch=0": ("is not NAME=SIZE", "for example"),
    "parity m.onnx m.onnx --dim batch=²": ("is not NAME=SIZE", "for example"),
    "parity m.onnx m.onnx --dim batch=2 --dim batch=3": ("gives 'batch' two values", "once"),
    "parity m.onnx m.onnx --dim rows=2": ("no input has a dim named 'rows'", "batch"),
    "parity m.onnx m.onnx --data wrong.npz": ("'x' has shape (2, 5, 4, 4), the model takes (batch, 4, 4, 4)", "free"),
    "parity m.onnx m.onnx --data none.npz": ("holds no array", "numpy.savez"),
    "parity m.onnx m.onnx --data no_rows.npz": ("holds no number", "larger batch"),
    "parity m.onnx m.onnx --data file": ("it is not a NumPy file", ".npz"),
    "parity m.onnx m.onnx --data nowhere": ("no such file: nowhere", ".npz"),
    "parity m.onnx m.onnx --data data": ("no .npz or .npy file in data", "numpy.savez"),
    "parity m.onnx m.onnx --probes-only --data wrong.npz": ("are of networks that run", "--probes-only"),
    "parity m.onnx m.onnx --probes-only --dim batch=2": ("are of networks that run", "--probes-only"),
    "parity m.onnx m.onnx --reference-runtime ort": ("reference_runtime without a metric", "--metric"),
    "parity m.onnx m.onnx --metric top-1 --data wrong.npz --until-confident": ("settles nothing", "twice"),
    "parity m.onnx m.onnx --report file": ("'file' is a file", "name a folder"),
    "parity m.onnx m.onnx --report file/in": ("'file' is a file", "name a folder"),
    "parity m.onnx m.onnx -r torch": ("runs modules, not ONNX files", "gn-deploy export"),
    "demo --out file": ("'file' is a file", "name a folder"),
    "export good -o o.onnx": ("no recipe", "Python file"),
    "export . -o o.onnx": ("'.' is a folder", "Python file"),
    "export digits_resnt -o o.onnx": ("no recipe", "digits_resnet.py"),
    "export m.onnx -o o.onnx": ("is not a Python file", "build()"),
    "export good.py -o good.py": ("is the recipe itself", "another output"),
    "export good.py -o nowhere/o.onnx": ("the folder 'nowhere' is missing", "mkdir"),
    "export good.py -o o.onnx --opset 3": ("cannot write this model at opset 3", "leave it out"),
    "export array.py -o o.onnx": ("is a ndarray, not a tensor", "torch.from_numpy"),
    "export number.py -o o.onnx": ("are a int, not a tuple", "for example"),
    "export nothing.py -o o.onnx": ("returned a NoneType", "return model"),
    "export shape.py -o o.onnx": ("fails on its own example inputs", "(2, 5, 4, 4)"),
    "export free.py -o o.onnx": ("dynamic sizes are a int", "DYNAMIC ="),
    "export exits.py -o o.onnx": ("SystemExit", "exits.py line 4"),
    "export endless.py -o o.onnx": ("RecursionError", "endless.py line 4"),
}
"""Command line -> what the message and the hint must hold."""


@pytest.mark.parametrize("line", WRONG)
def test_a_wrong_argument_is_named_with_what_to_do(line: str, here: Cli, folder: Path) -> None:
    def content() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"}

    before = content()
    message, hint = refused(here(*shlex.split(line))).splitlines()
    assert WRONG[line][0] in message
    assert WRONG[line][1] in hint
    assert content() == before


def test_build_spares_the_weights_of_a_model_too(here: Cli, tmp_path: Path) -> None:
    proto = model()
    tensor = proto.graph.initializer[0]
    weights = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="m.weights")
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    (tmp_path / "m.weights").write_bytes(weights)
    assert "is the input itself" in refused(here("build", "m.onnx", "-o", "m.weights"))
    assert (tmp_path / "m.weights").read_bytes() == weights


def test_names_with_spaces_and_letters_of_every_kind(here: Cli, saved: Saved, tmp_path: Path) -> None:
    saved("ä b.onnx")
    assert here("lower", "ä b.onnx", "-t", "onnx+instance_norm", "-o", "出 力.onnx").code == 0
    ended = here("parity", "ä b.onnx", "出 力.onnx", "--report", "mon été")
    assert ended.code == 0, ended.err
    assert "出 力.onnx" in (tmp_path / "mon été" / "report.html").read_text()


def test_a_runtime_named_twice_runs_once(here: Cli, saved: Saved) -> None:
    saved("m.onnx")
    document = here("parity", "m.onnx", "m.onnx", "-r", "onnx-reference", "-r", "onnx-reference", "--json").document
    assert [r["runtime"] for r in document["runtimes"]] == ["onnx-reference"]


def test_export_says_which_groupnorms_it_wrote_without_a_target_too(here: Cli, folder: Path) -> None:
    plain = here("export", "good.py", "-o", "o.onnx", "--json").document
    [site] = plain["sites"]
    assert (site["form"], site["num_groups"], site["decision"]) == ("instance_norm", 2, None)
    [site] = here("export", "good.py", "-o", "o.onnx", "-t", "tensorrt", "--json").document["sites"]
    assert site["decision"]["form"] == "native"


def test_limits_of_a_runtimes_process(here: Cli, saved: Saved) -> None:
    saved("m.onnx")
    ended = here("parity", "m.onnx", "m.onnx", "--time-limit", "60", "--memory-limit", "1.5GiB", "--json")
    assert ended.code == 0, ended.err
    assert [r["process"] for r in ended.document["runtimes"]] == ["own"]
    ended = here("parity", "m.onnx", "m.onnx", "--in-process", "--json")
    assert [r["process"] for r in ended.document["runtimes"]] == ["shared"]
    assert here("parity", "m.onnx", "m.onnx", "--memory-limit", "0").code == 0
    for options, told in (
        (("--memory-limit", "1MiB"), "the memory limit is 1MiB"),
        (("--memory-limit", "much"), "--memory-limit much is not a size"),
        (("--time-limit", "0"), "a time limit of 0 s"),
        (("--time-limit", "nan"), "a time limit of nan s"),
        (("--in-process", "--time-limit", "5"), "--in-process knows no limits"),
    ):
        ended = here("parity", "m.onnx", "m.onnx", *options)
        assert ended.code == 2, options
        assert told in ended.err
    ended = here("parity", "m.onnx", "m.onnx", "--time-limit", "0.001")
    assert ended.code == 1
    assert "timeout" in ended.err
