"""The source files of the package, as the architecture tests look at them."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "gn_deploy"
FILES = sorted(PACKAGE.rglob("*.py"))


def module_name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = [module_name(file) for file in FILES]


def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text())


def short(file: Path) -> str:
    """A name for pytest's list."""
    return str(file.relative_to(ROOT))
