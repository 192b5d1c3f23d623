"""TensorRT with and without the plugin, where it is installed: the same network, the same answers, and layer times."""

import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gn_deploy as gn
from gn_deploy.errors import GnDeployError, UnavailableError
from gn_deploy.plugin.location import ENVIRONMENT
from gn_deploy.runtimes import RUNTIMES

pytestmark = pytest.mark.gpu

SHAPE = (2, 64, 64, 64)
NORMS = 4
RUNS = 30


@pytest.fixture(scope="module")
def trt(gpu: Any) -> Any:
    probe = RUNTIMES.require("tensorrt").probe()
    if not probe.run:
        pytest.skip(probe.run.reason)
    return pytest.importorskip("tensorrt")


@pytest.fixture
def library(library_file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the runtime and its child processes find it."""
    monkeypatch.setenv(ENVIRONMENT, str(library_file))
    return library_file


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, gpu: Any) -> Path:
    """Convolutions with what the plugin is for between them: a skip, scale and shift, one group, GELU."""
    nn, functional = gpu.nn, gpu.nn.functional

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolutions = nn.ModuleList(nn.Conv2d(64, 64, 3, padding=1) for _ in range(4))
            self.norms = nn.ModuleList(nn.GroupNorm(groups, 64) for groups in (32, 8, 1, 16))
            for norm in self.norms:
                nn.init.normal_(norm.weight)
                nn.init.normal_(norm.bias)
            self.modulation = nn.Linear(16, 128)

        def forward(self, x: Any, time: Any) -> Any:
            skip = self.convolutions[0](x)
            y = self.convolutions[1](functional.silu(self.norms[0](skip)))
            y = functional.gelu(self.norms[1](y + skip))
            s, t = self.modulation(time).chunk(2, dim=1)
            y = self.convolutions[2](self.norms[2](y)) + x
            y = functional.silu(self.norms[3](y) * (1 + s[:, :, None, None]) + t[:, :, None, None])
            return self.convolutions[3](y)

    gpu.manual_seed(0)
    out = tmp_path_factory.mktemp("network") / "exported.onnx"
    gn.export(Network().eval(), (gpu.randn(*SHAPE), gpu.randn(SHAPE[0], 16)), dynamic=False, out=out)
    return out


@pytest.fixture(params=["tensorrt", "tensorrt:fp16"])
def network(request: pytest.FixtureRequest, exported: Path, tmp_path: Path) -> tuple[Path, Path]:
    """(native, with the plugin)"""
    files = tmp_path / "native.onnx", tmp_path / "plugin.onnx"
    for file, form in zip(files, ("", "+plugin"), strict=True):
        gn.lower(exported, f"{request.param}{form}", out=file)
    return files


def runtime_of_tensorrt() -> Any:
    return RUNTIMES.require("tensorrt")


def feeds() -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(1)
    return {
        "x": rng.standard_normal(SHAPE).astype(np.float32),
        "time": rng.standard_normal((SHAPE[0], 16)).astype(np.float32),
    }


def layer_times(trt: Any, session: Any) -> dict[str, float]:
    """Layer -> median milliseconds."""

    class Profiler(trt.IProfiler):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.times: dict[str, list[float]] = {}

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.times.setdefault(layer_name, []).append(ms)

    profiler, given = Profiler(), feeds()
    session.run(given)  # whatever is done once
    session._context.profiler = profiler
    for _ in range(RUNS):
        session.run(given)
    return {name: statistics.median(times) for name, times in profiler.times.items()}


def test_the_plugin_computes_what_the_native_layer_does(
    network: tuple[Path, Path], exported: Path, library: Path, trt: Any
) -> None:
    native, plugin = network
    report = gn.compare(exported, plugin, runtimes=["tensorrt"])
    assert report.held, report
    report = gn.compare(exported, native, runtimes=["tensorrt"], accept=["unstable"])  # TensorRT's variance is its own
    assert report.held, report


def test_layer_times(
    network: tuple[Path, Path], library: Path, trt: Any, record_property: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Printed, not asserted; what is: the plugin really runs, once for each GroupNorm."""
    sums, runtime = [], runtime_of_tensorrt()
    for file, wanted in zip(network, (0, NORMS), strict=True):
        plan = file.with_suffix(".engine")
        built = runtime.build(file, plan)
        assert sum("Plugin" in kernel.kind for kernel in built.kernels) == wanted, built.kernels
        session = runtime.open(plan)
        try:
            times = layer_times(trt, session)
        finally:
            session.close()
        sums.append(sum(times.values()))
        with capsys.disabled():
            print(f"\n{file.name}: {sums[-1]:.3f} ms")
            for name, ms in sorted(times.items(), key=lambda item: -item[1]):
                print(f"  {ms:.4f} {name}")
    record_property("native_ms", sums[0])
    record_property("plugin_ms", sums[1])


def test_the_quick_plugin_needs_nothing_when_it_runs(
    network: tuple[Path, Path], trt: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Built in a process where it is registered, run in this one, where it is not, and no library either."""
    native, plugin = network
    plan = tmp_path / "quick.engine"
    try:
        runtime_of_tensorrt().build(plugin, plan, plugin="quick")
    except UnavailableError as error:
        pytest.skip(str(error))
    answers = []
    for model in (native, plan):
        session = runtime_of_tensorrt().open(model, plugins=())
        try:
            answers.append(session.run(feeds()))
        finally:
            session.close()
    for name, wanted in answers[0].items():
        difference = np.abs(answers[1][name].astype(np.float64) - wanted.astype(np.float64)).max()
        # two roundings of the network's type through four layers whose sums have 576 terms: half of 1 % is far more
        assert difference <= 0.005 * np.abs(wanted.astype(np.float64)).max() + 1e-3


@pytest.fixture
def provider(library_file: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """ONNX Runtime with its TensorRT provider, which opens the library itself."""
    ort = pytest.importorskip("onnxruntime")
    if "TensorrtExecutionProvider" not in ort.get_available_providers():
        pytest.skip("onnxruntime has no TensorrtExecutionProvider (pip install onnxruntime-gpu)")
    monkeypatch.setenv("GN_DEPLOY_PLUGIN_REGISTER", "1")
    return ort


def test_the_tensorrt_provider_of_onnx_runtime(
    exported: Path, provider: Any, library_file: Path, trt: Any, tmp_path: Path
) -> None:
    try:
        lowered = gn.lower(exported, "tensorrt+trt_plugins", out=tmp_path / "trt_plugins.onnx")
    except GnDeployError as error:
        pytest.skip(str(error))
    options = {"trt_extra_plugin_lib_paths": str(library_file)}
    providers = [("TensorrtExecutionProvider", options), "CUDAExecutionProvider", "CPUExecutionProvider"]
    session = provider.InferenceSession(str(lowered.path), providers=providers)
    assert session.get_providers()[0] == "TensorrtExecutionProvider"
    given = feeds()
    plain = provider.InferenceSession(str(exported), providers=["CPUExecutionProvider"])
    for name, got, wanted in zip(
        [one.name for one in plain.get_outputs()], session.run(None, given), plain.run(None, given), strict=True
    ):
        # TF32 in convolutions of 576 terms, four deep
        assert np.abs(got - wanted).max() <= 0.01 * np.abs(wanted).max() + 1e-3, name
