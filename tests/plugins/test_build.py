"""gn-deploy plugin build: the adapter and one small kernel, compiled by nvcc and linked as the whole library is."""

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from gn_deploy import __version__
from gn_deploy.cli.app import run
from gn_deploy.decision import Rejected
from gn_deploy.errors import InputError, UnavailableError
from gn_deploy.plugin import build as builder
from gn_deploy.plugin import location, toolchain
from gn_deploy.plugin.about import about
from gn_deploy.plugin.build import build
from gn_deploy.plugin.node import OPS
from tests.plugins.compiled import FOLDER, PLUGINS

TOOLS = toolchain.search()
needs_nvcc = pytest.mark.skipif(isinstance(TOOLS, Rejected), reason=getattr(TOOLS, "reason", ""))
SMALL_KERNEL = """
// All of gn.h on one kernel, which copies.
#include "gn.h"

__global__ void copy(const float *x, float *y) { y[threadIdx.x] = x[threadIdx.x]; }

extern "C" {
int gn_check(const gn_problem *, char *, size_t) { return GN_OK; }
int gn_select(const gn_problem *, const gn_device *, int, gn_choice *c, char *, size_t) { return *c = {}, GN_OK; }
void gn_room(const gn_problem *, const gn_device *, int64_t *w, int32_t *c) { *w = 0, *c = 0; }
const char *gn_variant_name(int) { return "copy"; }
int gn_enqueue(const gn_problem *, const gn_choice *, const gn_buffers *b, void *, char *, size_t) {
    copy<<<1, 32>>>(static_cast<const float *>(b->x), static_cast<float *>(b->y));
    return cudaGetLastError() == cudaSuccess ? GN_OK : GN_LAUNCH_FAILED;
}
int gn_query_device(int, gn_device *, char *, size_t) { return GN_OK; }
}
"""


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sources with one kernel; what they compile to is kept from one test, and one run, to the next."""
    sources = tmp_path / "sources"
    shutil.copytree(PLUGINS / "tensorrt", sources / "tensorrt")
    (sources / "kernels").mkdir()
    shutil.copy(PLUGINS / "kernels" / "gn.h", sources / "kernels")
    (sources / "kernels" / "copy.cu").write_text(SMALL_KERNEL)
    FOLDER.mkdir(exist_ok=True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(FOLDER / "cache"))
    for module in (location, builder):
        monkeypatch.setattr(module, "SOURCES", sources)
    location.sources_digest.cache_clear()
    yield sources
    location.sources_digest.cache_clear()


def functions_of_gn_h() -> set[str]:
    return set(
        re.findall(r"^(?:int|void|const char \*)\s*(gn_\w+)\(", (PLUGINS / "kernels" / "gn.h").read_text(), re.M)
    )


@needs_nvcc
def test_the_library_is_what_was_asked_for(small, tmp_path) -> None:
    path = tmp_path / "out.so"
    steps: list[tuple[int, int, str]] = []
    built = build(path, architectures=[90, 80], tell=lambda *step: steps.append(step))
    assert (built.path, built.size, built.architectures) == (path, path.stat().st_size, (80, 90))
    assert built.compiled == len(list(small.rglob("*.c[up]*")))
    assert steps[-1] == (built.compiled + 1, built.compiled + 1, "out.so")

    found = about(path)
    assert (found.architectures, found.ptx) == ((80, 90), (90,))
    assert found.built_for == "sm_80, sm_90, PTX 9.0"
    assert found.version == __version__
    assert not found.outdated
    assert found.compiler == built.toolchain.text
    assert found.headers == "own declarations"
    assert [c.name for c in found.creators] == list(OPS)
    # CUDA's runtime is inside, and TensorRT is the host's
    allowed = r"lib(stdc\+\+|gcc_s|m|c|dl|rt|pthread)\.so\.\d|ld-linux.*"
    assert [name for name in found.needed if not re.fullmatch(allowed, name)] == []
    assert set(found.exports) == functions_of_gn_h() | {"getCreators", "setLoggerFinder", "gn_plugin_about"}

    again = build(path, architectures=[80, 90])
    assert again.cached == again.compiled
    assert about(path) == found
    nothing_left = [p.name for p in tmp_path.iterdir() if p.name not in ("out.so", "sources")]
    assert nothing_left == []


@needs_nvcc
@pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed")
def test_tensorrt_loads_what_nvcc_linked(small, tmp_path) -> None:
    build(tmp_path / "out.so", architectures=[80, 90])
    code = (
        "import sys, tensorrt_rtx as trt\nregistry = trt.get_plugin_registry()\n"
        "assert registry.load_library(sys.argv[1]) is not None\n"
        "assert all(registry.get_creator(name, '1', 'gn_deploy') is not None for name in sys.argv[2:])\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "out.so"), *OPS], check=True, timeout=120)


@needs_nvcc
def test_only_what_changed_is_compiled_again(small, tmp_path) -> None:
    build(tmp_path / "out.so", architectures=[80, 90])
    old = about(tmp_path / "out.so")
    entry = small / "tensorrt" / "entry.cpp"
    entry.write_text(entry.read_text() + f"// {tmp_path}\n")
    location.sources_digest.cache_clear()
    assert old.outdated
    built = build(tmp_path / "out.so", architectures=[80, 90])
    assert built.compiled - built.cached == 2  # about.cpp tells the digest of all of them
    assert not about(tmp_path / "out.so").outdated


@needs_nvcc
def test_a_source_that_does_not_compile_is_told_and_nothing_is_written(small, tmp_path) -> None:
    (small / "tensorrt" / "broken.cpp").write_text("int f() { return nothing; }\n")
    with pytest.raises(UnavailableError, match=r"g\+\+ cannot make broken.cpp: .*error: 'nothing' was not declared"):
        build(tmp_path / "out.so", architectures=[80, 90])
    assert not (tmp_path / "out.so").exists()


@needs_nvcc
def test_as_a_user_types_it(small, tmp_path, monkeypatch, capfd) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["plugin", "build", "--arch", "sm_90", "--arch", "8.0", "-o", "out.so", "--json"]) == 0
    told = capfd.readouterr()
    document = json.loads(told.out)
    assert told.err == ""
    assert (document["gn_deploy"], document["architectures"]) == (__version__, ["sm_80", "sm_90"])
    assert (document["path"], document["ptx"]) == ("out.so", ["compute_90"])
    assert run(["plugin", "build", "--arch", "sm_90", "--arch", "8.0", "-o", "out.so"]) == 0
    assert "wrote out.so: " in capfd.readouterr().err
    assert run(["plugin", "build", "-o", "missing/out.so"]) == 2
    assert "the folder 'missing' is missing" in capfd.readouterr().err


@needs_nvcc
def test_without_an_output_it_is_where_everybody_looks(small, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(location.ENVIRONMENT, raising=False)
    assert location.library() == Rejected("not built: gn-deploy plugin build")
    (tmp_path / "cache" / "gn_deploy").mkdir(parents=True)
    (tmp_path / "cache" / "gn_deploy" / "objects").symlink_to(FOLDER / "cache" / "gn_deploy" / "objects")
    (FOLDER / "cache" / "gn_deploy" / "objects").mkdir(parents=True, exist_ok=True)
    built = build(architectures=[80, 90])
    assert location.library() == built.path == tmp_path / "cache" / "gn_deploy" / location.NAME


def test_the_environment_names_another_library(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv(location.ENVIRONMENT, str(tmp_path / "none.so"))
    assert location.library() == Rejected(f"GN_DEPLOY_PLUGIN names '{tmp_path / 'none.so'}', which is no file")
    (tmp_path / "none.so").touch()
    assert location.library() == tmp_path / "none.so"


@pytest.mark.parametrize(
    ("text", "number"), [("sm_90", 90), ("90", 90), ("9.0", 90), ("12.0", 120), ("compute_75", 75)]
)
def test_architectures_as_people_write_them(text, number) -> None:
    assert builder.architecture(text) == number


@pytest.mark.parametrize(
    ("text", "message"),
    [("hopper", "is not a GPU"), ("sm_9", "is not"), ("sm_70", "need sm_75"), ("7.0", "need sm_75")],
)
def test_architectures_that_are_none(text, message) -> None:
    with pytest.raises(InputError, match=message):
        builder.architecture(text)


@needs_nvcc
def test_what_cannot_be_built_is_told_before_anything_is_compiled(small, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(builder, "_compile", lambda *_: pytest.fail("compiled"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(InputError, match="makes no code for sm_76"):
        build(tmp_path / "out.so", architectures=[90, 76])
    with pytest.raises(InputError, match=r"the folder '.*/missing' is missing"):
        build(tmp_path / "missing" / "out.so")
    with pytest.raises(InputError, match=r"--tensorrt-root=\S+ holds no include/NvInferRuntime.h"):
        build(tmp_path / "out.so", tensorrt_root=tmp_path)
    monkeypatch.setenv("TENSORRT_ROOT", str(tmp_path))
    with pytest.raises(InputError, match=r"TENSORRT_ROOT=\S+ holds no"):
        build(tmp_path / "out.so")


@needs_nvcc
def test_headers_of_a_tensorrt_are_compiled_against(small, tmp_path, monkeypatch) -> None:
    """They are not ours to carry: a folder that has one in name shows that it is found and passed on."""
    commands = []
    monkeypatch.setattr(builder, "_compile", lambda command, *_: commands.append(command) or pytest.skip("seen"))
    root = tmp_path / "TensorRT"
    (root / "include").mkdir(parents=True)
    (root / "include" / "NvInferRuntime.h").touch()
    assert builder._tensorrt_headers(root) == root / "include"
    assert isinstance(TOOLS, toolchain.Toolchain)
    for source in location.units():
        command = builder._command(TOOLS, source, [90], root / "include")
        assert (str(root / "include") in command) == (source.parent.name == "tensorrt")


def test_the_package_carries_every_source() -> None:
    """A wheel has what the patterns of pyproject.toml name; gn_deploy/plugin/sources leads to plugins/."""
    import tomllib

    settings = tomllib.loads((PLUGINS.parent / "pyproject.toml").read_text())["tool"]["setuptools"]
    package = PLUGINS.parent / "gn_deploy"
    carried = {path for pattern in settings["package-data"]["gn_deploy"] for path in package.glob(pattern)}
    assert {*location.units(), *location.headers()} <= carried
    assert location.SOURCES / "CMakeLists.txt" in carried
    assert (package / "plugin" / "sources").resolve() == PLUGINS.resolve()


@needs_nvcc
@pytest.mark.slow
def test_the_whole_library_for_one_gpu(tmp_path, monkeypatch) -> None:
    """Minutes: every kernel. CMake makes the same."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(FOLDER / "cache"))
    built = about(build(tmp_path / "out.so", architectures=[90]).path)
    assert (built.architectures, built.ptx) == ((90,), (90,))
    if shutil.which("cmake") is None or not isinstance(TOOLS, toolchain.Toolchain):
        pytest.skip("cmake is not on PATH")
    folder = tmp_path / "cmake"
    environment = {**os.environ, "CUDACXX": str(TOOLS.nvcc)}
    arguments = ["-DCMAKE_CUDA_ARCHITECTURES=90", f"-DGN_DEPLOY_VERSION={__version__}"]
    subprocess.run(["cmake", "-S", PLUGINS, "-B", folder, *arguments], check=True, env=environment)
    subprocess.run(["cmake", "--build", folder, "--parallel", "2"], check=True, env=environment)
    made = about(folder / location.NAME)
    assert (made.exports, made.creators, made.version) == (built.exports, built.creators, built.version)
    assert (made.architectures, made.ptx, made.compiler) == (built.architectures, built.ptx, built.compiler)
    assert not made.outdated
