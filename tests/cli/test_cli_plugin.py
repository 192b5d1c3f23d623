"""gn-deploy plugin as a user types it: what a library holds, and what is missing where there is none or no compiler."""

from collections.abc import Callable
from pathlib import Path

import pytest

from gn_deploy.plugin import toolchain
from gn_deploy.plugin.location import ENVIRONMENT
from gn_deploy.plugin.node import OPS
from tests.cli.conftest import Ended
from tests.cli.test_cli_bad_input import refused
from tests.plugins.adapter import recording_library

Cli = Callable[..., Ended]


@pytest.fixture(autouse=True)
def nothing_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(ENVIRONMENT, raising=False)


def test_info_of_a_library(here: Cli) -> None:
    library = recording_library()
    ended = here("plugin", "info", library, "--json")
    assert (ended.code, ended.err) == (0, "")
    document = ended.document
    assert [c["name"] for c in document["creators"]] == list(OPS)
    assert {(c["version"], c["namespace"]) for c in document["creators"]} == {("1", "gn_deploy")}
    assert (document["path"], document["architectures"], document["outdated"]) == (str(library), [], False)
    assert "libc.so.6" in document["needed"]
    assert "getCreators" in document["exports"]
    told = here("plugin", "info", library)
    assert (told.code, told.out) == (0, "")
    for expected in (*OPS, "own declarations", "no GPU", "libstdc++.so.6"):
        assert expected in told.err


def test_info_is_of_the_library_that_would_be_loaded(here: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    told = refused(here("plugin", "info"), 3)
    assert "no plugin library: not built: gn-deploy plugin build" in told
    assert "cache/gn_deploy/libgn_deploy_plugin.so" in told
    monkeypatch.setenv(ENVIRONMENT, "nowhere.so")
    assert "GN_DEPLOY_PLUGIN names 'nowhere.so', which is no file" in refused(here("plugin", "info"), 3)
    monkeypatch.setenv(ENVIRONMENT, str(recording_library()))
    assert here("plugin", "info", "--json").document["path"] == str(recording_library())


def test_info_of_other_files(here: Cli, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"\x08\x0a")
    assert "'model.onnx' is not a shared library" in refused(here("plugin", "info", "model.onnx"), 2)
    assert "no such file: 'none.so'" in refused(here("plugin", "info", "none.so"), 2)


def test_without_a_compiler_the_packages_are_named(here: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain, "toolkits", lambda: iter(()))
    told = refused(here("plugin", "build", "-o", "plugin.so"), 3)
    assert "no CUDA compiler" in told
    assert "pip install nvidia-cuda-nvcc, or" in told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--arch", "hopper"], "--arch hopper is not a GPU architecture"),
        (["--arch", "sm_61"], "--arch sm_61: the kernels need sm_75 or later"),
        (["--jobs", "0"], "Invalid value for '--jobs'"),
    ],
)
def test_wrong_arguments(arguments: list[str], message: str, here: Cli) -> None:
    assert message in refused(here("plugin", "build", *arguments), 2)


def test_doctor_says_whether_it_is_built(here: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    assert here("doctor", "--json").document["plugin"] == {
        "accepted": False,
        "reason": "not built: gn-deploy plugin build",
        "path": None,
        "architectures": [],
    }
    monkeypatch.setenv(ENVIRONMENT, str(recording_library()))
    assert here("doctor", "--json").document["plugin"]["accepted"] is True
    assert "TensorRT plugin: built for no GPU" in here("doctor").err
