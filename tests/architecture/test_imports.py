"""What an import brings along: nothing heavy for the package itself, nothing optional for any module."""

import ast
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.architecture.source import FILES, MODULES, ROOT, module_name, short, tree

OPTIONAL = (
    "torch torchvision onnxruntime openvino tensorrt tensorrt_rtx tensorrt_libs jinja2 sklearn diffusers transformers "
    "safetensors onnxscript triton cuda cupy scipy PIL ray"
).split()
OWNERS: dict[str, str | tuple[str, ...]] = {  # the only modules that may name the package, and then inside a function
    "onnxruntime": "gn_deploy.runtimes.",
    "openvino": "gn_deploy.runtimes.",
    "tensorrt": ("gn_deploy.runtimes.", "gn_deploy.plugin.quick"),
    "tensorrt_rtx": "gn_deploy.runtimes.",
    "jinja2": "gn_deploy.reports.",
    "sklearn": "gn_deploy.cli.demo",
    "diffusers": "nobody",
    "onnxscript": "gn_deploy.exporters.",
    "triton": "nobody",
    "ray": "gn_deploy.matrix.",
}
BLOCKED = """
import importlib, json, sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in set(sys.argv[1].split()):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Block())
failed = {}
for module in sys.argv[2].split():
    try:
        importlib.import_module(module)
    except BaseException as error:
        failed[module] = repr(error)
print(json.dumps(failed))
"""


def python(*arguments: str) -> str:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT, check=True)
    return done.stdout


def test_every_module_imports_without_any_optional_package() -> None:
    modules = [name for name in MODULES if not name.endswith("__main__")]
    assert json.loads(python("-c", BLOCKED, " ".join(OPTIONAL), " ".join(modules))) == {}


def test_the_block_blocks() -> None:
    assert list(json.loads(python("-c", BLOCKED, "json5 torch", "torch json"))) == ["torch"]


def loaded_by(statement: str) -> set[str]:
    names: list[str] = json.loads(python("-c", f"{statement}\nimport json, sys\nprint(json.dumps(list(sys.modules)))"))
    return {name.split(".")[0] for name in names}


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = {"numpy", "onnx", "onnx_ir", "ml_dtypes", "typer", "rich", "google", *OPTIONAL}
    assert not loaded_by("import gn_deploy") & heavy
    # the public names are there all the same
    assert "onnx_ir" in loaded_by("import gn_deploy; gn_deploy.LowerGroupNorm")


def test_help_loads_no_graph_library() -> None:
    statement = (
        "import sys\nsys.argv = ['gn-deploy', '-h']\n"
        "import contextlib, io\nfrom gn_deploy.cli.app import main\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):\n"
        "    try: main()\n    except SystemExit: pass"
    )
    assert not loaded_by(statement) & {"onnx", "onnx_ir", "ml_dtypes", *OPTIONAL}


def test_importing_the_package_costs_little() -> None:
    """Against an empty program, interleaved, so that a busy machine slows both."""
    empty, ours = [], []
    for _ in range(5):
        for statement, times in (("pass", empty), ("import gn_deploy", ours)):
            begin = time.perf_counter()
            python("-I", "-c", statement)
            times.append(time.perf_counter() - begin)
    # measured: 3 ms more; the limit of 50 ms is far above the noise and far below what onnx_ir (1 s) would add
    assert statistics.median(ours) < 3 * statistics.median(empty) + 0.05


@pytest.mark.parametrize("file", FILES, ids=short)
def test_optional_packages_are_imported_inside_functions_by_their_owners(file: Path) -> None:
    module = tree(file)
    at_top = {id(node) for node in outside_functions(module)}
    for node in ast.walk(module):
        for package in packages(node):
            if package in OPTIONAL:
                assert id(node) not in at_top, f"line {node.lineno}: {package} is imported when the module is"
            owner = OWNERS.get(package)
            assert owner is None or module_name(file).startswith(owner), f"{package} belongs to {owner}"


def packages(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name.split(".")[0] for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [(node.module or "").split(".")[0]]
    return []


def outside_functions(module: ast.Module) -> list[ast.AST]:
    """Import statements that run when the module does; those under TYPE_CHECKING do not."""
    found: list[ast.AST] = []
    waiting: list[ast.AST] = list(module.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        found.append(node)
        waiting.extend(ast.iter_child_nodes(node))
    return found
