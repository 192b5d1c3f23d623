"""Help, version and usage errors: fast, on the right stream, with the nearest name."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import ROOT, Ended, environment

HEAVY = ("numpy", "onnx", "onnx_ir", "torch", "onnxruntime", "openvino", "tensorrt_rtx", "sklearn", "jinja2")
VERBS = ("doctor", "inspect", "export", "lower", "build", "parity", "matrix", "demo", "report", "plugin")


def python(code: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), cwd=ROOT, check=True
    )
    return ended.stdout


@pytest.mark.parametrize("args", [["-h"], ["doctor", "-h"], ["report", "diff", "-h"], ["--version"]])
def test_help_imports_nothing_heavy(args: list[str]) -> None:
    code = f"import sys; from gn_deploy.cli.app import run; c = run({args!r}); print('loaded', c, *sorted(sys.modules))"
    loaded = python(code).rpartition("loaded ")[2].split()
    assert loaded[0] == "0"
    assert not set(HEAVY) & set(loaded)


def test_help_loads_no_package_but_those_that_print_it() -> None:
    """What help costs is what it imports; seconds depend on who else uses the machine."""
    show = "print('loaded', *{m.partition('.')[0] for m in sys.modules} - set(sys.stdlib_module_names))"
    bare = python(f"import sys, typer, rich.panel, rich.table; {show}")
    helped = python(f"import sys; from gn_deploy.cli.app import run; run(['-h']); {show}")
    theirs, ours = (set(text.rpartition("loaded ")[2].split()) for text in (bare, helped))
    assert ours - theirs <= {"gn_deploy", "attr", "attrs", "pygments", "markdown_it", "mdurl"}  # rich loads the others


def test_help_names_every_verb_and_exit_code(cli: Callable[..., Ended]) -> None:
    ended = cli()
    assert ended.code == 0
    for expected in (*VERBS, "1 parity broken", "3 not available here"):
        assert expected in ended.out


@pytest.mark.parametrize(
    ("args", "message", "hint"),
    [
        (["lowr"], "unknown command 'lowr'", "did you mean 'lower'?"),
        (["qqqq"], "unknown command 'qqqq'", "one of doctor, inspect"),
        (["lower"], "Missing argument 'MODEL'", "see 'gn-deploy lower --help'"),
        (["inspect", "m.onnx", "--jsn"], "No such option: --jsn", "see 'gn-deploy inspect --help'"),
        (["lower", "m.onnx", "-t", "tensort", "-o", "o.onnx"], "unknown target 'tensort'", "did you mean 'tensorrt'?"),
        (["parity", "a.onnx", "b.onnx", "--dim", "batch"], "--dim batch is not NAME=SIZE", "--dim batch=4"),
        (["build", "a.onnx", "-o", "e", "--shapes", "x=1x3:2"], "--shapes x=1x3:2 is not", "for example --shapes"),
    ],
)
def test_usage_errors_are_one_line_and_a_hint(
    args: list[str], message: str, hint: str, capfd: pytest.CaptureFixture[str]
) -> None:
    from gn_deploy.cli.app import run

    assert run(args) == 2
    out, err = capfd.readouterr()
    lines = err.splitlines()
    assert out == ""
    assert len(lines) == 2
    assert lines[0].startswith(f"error: {message}")
    assert lines[1].startswith("hint: ")
    assert hint in lines[1]


def test_version(cli: Callable[..., Ended]) -> None:
    import gn_deploy as package

    assert cli("--version") == Ended(0, f"gn-deploy {package.__version__}\n", "")


def test_the_console_script_is_the_same_program() -> None:
    import tomllib

    scripts = tomllib.loads((Path(ROOT) / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts["gn-deploy"] == "gn_deploy.cli.app:main"


def test_the_many_options_of_parity_stand_in_panels(cli: Callable[..., Ended]) -> None:
    told = cli("parity", "-h").out
    panels = ("Models", "Runtimes", "Inputs", "Tolerance and verdict", "Find the cause", "Task", "Limits", "Output")
    places = [told.index(f"─ {panel} ─") for panel in panels]
    assert places == sorted(places)
    assert told.index("─ Options ─") < places[1], "what belongs nowhere is --help alone"
    assert told.count("--", told.index("─ Options ─"), places[1]) == 1
