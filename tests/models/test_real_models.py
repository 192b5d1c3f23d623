"""The recipes of real models, and the table of them that scripts/real_models.py writes."""

import ast
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import nn

import gn_deploy as gn
from gn_deploy.errors import ExitCode
from gn_deploy.exporters.recipe import load_recipe
from scripts import pages

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "real_models.py"
REAL: dict[str, Any] = runpy.run_path(str(SCRIPT))
HELD = re.compile(r"[\d,]+ nodes: (\d+) found, lowered, (held|each site held \(.+\))")


def rows() -> dict[str, list[str]]:
    text = pages.block(REAL["README"].read_text(), REAL["BLOCK"])
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()[2:]]
    return {name.strip("`").removesuffix(".py"): rest for name, *rest in cells}


def test_the_table_has_every_recipe_and_nothing_that_did_not_hold() -> None:
    assert list(rows()) == list(REAL["RECIPES"])
    for name, (package, calls, *exports) in rows().items():
        assert package.split()[0] == REAL["RECIPES"][name]
        assert len(exports) == len(REAL["EXPORTS"])
        for cell in exports:
            held = HELD.fullmatch(cell)
            assert held, f"{name}: {cell}"
            assert held[1] == calls


@pytest.mark.parametrize("name", REAL["RECIPES"])
def test_a_recipe_says_what_it_is_and_what_it_stresses(name: str) -> None:
    source = ast.parse((ROOT / "models" / f"{name}.py").read_text())
    title, _, rest = (ast.get_docstring(source) or "").partition("\n\n")
    assert re.fullmatch(r"[A-Zw].*: .*\.", title.replace("\n", " "))
    assert "It stresses" in rest
    functions = {node.name for node in source.body if isinstance(node, ast.FunctionDef)}
    assert {"build", "example_inputs"} <= functions


@pytest.mark.parametrize(("name", "package"), REAL["RECIPES"].items())
def test_a_package_that_is_not_installed_is_named_and_no_row_left_out(
    name: str, package: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in [m for m in sys.modules if m.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)  # type: ignore[arg-type]
    assert REAL["main"]([name]) == ExitCode.UNAVAILABLE
    out, err = capsys.readouterr()
    assert out == ""
    assert f"'{package}' is needed and not installed" in err
    assert re.search(r"gn-deploy\[(real-)?models\]", err)


def test_a_recipe_that_is_not_in_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        REAL["main"](["sd_vea"])
    assert "sd_vea is none of the recipes sd_vae, sd_unet" in capsys.readouterr().err


def test_weights_are_the_same_each_time_and_leave_the_generator_alone() -> None:
    seeded = runpy.run_path(str(ROOT / "models" / "_seeded.py"))["seeded"]
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one, other = (seeded(lambda: nn.Sequential(nn.Linear(8, 8), nn.GroupNorm(2, 8))) for _ in range(2))
    assert torch.rand(1) == expected
    assert all(map(torch.equal, one.parameters(), other.parameters()))
    assert len(set(one[1].weight.tolist() + one[1].bias.tolist())) == 16


@pytest.fixture(scope="module")
def vae() -> Any:
    """The recipe, its GroupNorms, and the file that the TorchScript exporter makes of it."""
    recipe = load_recipe(ROOT / "models" / "sd_vae.py")
    return recipe, REAL["called"](recipe), REAL["exported"](recipe, False, 17)


def test_the_autoencoder_is_what_the_table_says(vae: Any) -> None:
    _, called, model = vae
    assert str(called.total()) == rows()["sd_vae"][1]
    assert f"{len(model.graph.node)} nodes" in rows()["sd_vae"][2]
    assert REAL["sited"](gn.find(model)) == called
    assert REAL["unlike"](model, called, "onnx+native") == ""


def test_one_wrong_number_in_a_bias_is_seen(vae: Any) -> None:
    _, called, model = vae
    wrong = onnx.ModelProto()
    wrong.CopyFrom(model)
    bias = next(tensor for tensor in wrong.graph.initializer if tensor.name.startswith("onnx::Add_"))
    bias.raw_data = bytes([bias.raw_data[0] ^ 1]) + bias.raw_data[1:]
    assert (REAL["sited"](gn.find(wrong)) & called).total() == called.total() - 1


@pytest.mark.slow
def test_the_whole_table_is_what_the_script_writes_today() -> None:
    done = subprocess.run([sys.executable, SCRIPT, "--check"], stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0, done.stderr
