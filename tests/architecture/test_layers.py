"""A room imports only from below, and siblings do not know each other: import-linter's contracts hold."""

import importlib.util
import tomllib

import pytest
from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

from gn_deploy.registry import Unavailable
from gn_deploy.runtimes import RUNTIMES
from tests.architecture.source import ROOT


def test_the_contracts_hold(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    status = lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True)
    assert status == EXIT_STATUS_SUCCESS, capsys.readouterr().out


def test_every_runtime_is_under_contract() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    listed = next(set(c["modules"]) for c in contracts if c["name"] == "Runtimes do not know each other")
    here = {type(entry).__module__ for entry in RUNTIMES if not isinstance(entry, Unavailable)}
    assert {name for name in here if name.startswith("gn_deploy.")} <= listed
    assert all(importlib.util.find_spec(name) for name in listed)
