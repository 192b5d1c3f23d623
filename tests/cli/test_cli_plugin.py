"""gn-deploy plugin as a user types it: what a library holds, and what is missing where there is none or no compiler."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from gn_deploy.decision import Accepted
from gn_deploy.plugin import toolchain
from gn_deploy.plugin.location import ENVIRONMENT
from gn_deploy.plugin.node import OPS
from gn_deploy.runtimes import RUNTIMES
from gn_deploy.runtimes import tensorrt as runtime
from gn_deploy.runtimes.base import BuildResult
from tests.cli.conftest import Ended
from tests.cli.test_cli_bad_input import refused
from tests.plugins.adapter import recording_library

Cli = Callable[..., Ended]
TENSORRT = RUNTIMES.require("tensorrt")


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


@pytest.fixture
def tensorrt(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """TensorRT as if it were here, and what it is asked to build with."""
    asked: list[dict[str, object]] = []

    def built(name: str, model: Path, out: Path, time_limit: float, options: dict[str, object]) -> BuildResult:
        asked.append(options)
        return BuildResult(out, name, "11.4", 4)

    probe = replace(TENSORRT.probe(), run=Accepted(), build=Accepted())
    monkeypatch.setattr(type(TENSORRT), "probe", lambda self: probe)
    monkeypatch.setattr(runtime, "build_in_child", built)
    return asked


def test_build_with_the_quick_plugin_or_what_is_asked_for(
    here: Cli, saved: Callable[..., Path], tensorrt: list[dict[str, object]]
) -> None:
    native = saved()
    assert here("lower", native, "-t", "tensorrt+plugin", "-o", "p.onnx").code == 0
    build = ("build", "p.onnx", "-o", "e", "-t", "tensorrt")
    told = here(*build, "--plugin", "quick")
    assert (told.code, tensorrt.pop()) == (0, {"plugins": (), "quick": True})
    assert "quick plugin: its kernels are in the engine, which needs no library" in told.err
    assert here(*build, "--json").document["detail"].startswith("without the plugin (not built: ")
    assert here(*build, "--plugin", "none").code == 0
    assert [options["quick"] for options in tensorrt] == [False, False]
    assert "no plugin library: not built" in refused(here(*build, "--plugin", "library"), 3)
    assert "one of library, quick, none" in refused(here(*build, "--plugin", "fast"), 2)
    told = refused(here("build", native, "-o", "e", "-t", "tensorrt", "--plugin", "quick"), 2)
    assert "has no node of the plugin" in told
    assert "--target tensorrt+plugin" in told


def test_without_tensorrt_the_quick_plugin_is_not_available(
    here: Cli, saved: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "_version", lambda: None)
    told = refused(here("build", saved(), "-o", "e", "-t", "tensorrt", "--plugin", "quick"), 3)
    assert "tensorrt is not installed: pip install tensorrt" in told
    assert "its parser crashes" in refused(here("build", saved(), "-o", "e", "--plugin", "quick"), 2)
