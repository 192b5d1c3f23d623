"""TensorRT is absent here: the refusals are tested, and the order of calls against a stand-in that proves no more."""

import json
import sys
from types import SimpleNamespace

import pytest

from gn_deploy.errors import InputError, UnavailableError
from gn_deploy.runtimes import RUNTIMES, tensorrt, trt_network
from tests.runtimes.small_models import group_norm

TENSORRT = RUNTIMES.require("tensorrt")


class StandIn:
    """Answers like the few calls of ``tensorrt`` that building makes, and writes down their order."""

    __version__ = "10.9.0"

    class ILogger:
        def __init__(self) -> None: ...

    def __init__(self, flags: dict[str, int], refuse_plugins: bool = False) -> None:
        self.calls: list[object] = []
        self.NetworkDefinitionCreationFlag = SimpleNamespace(**flags)
        self.ProfilingVerbosity = SimpleNamespace(DETAILED="detailed")
        self.LayerInformationFormat = SimpleNamespace(JSON="json")
        self._refuse = refuse_plugins

    def get_plugin_registry(self) -> SimpleNamespace:
        def load(path: str) -> object:
            self.calls.append("load_library")
            return None if self._refuse else object()

        return SimpleNamespace(load_library=load)

    def Builder(self, logger: object) -> SimpleNamespace:  # noqa: N802 -- TensorRT's name
        def network(flags: int) -> SimpleNamespace:
            self.calls.append(("create_network", flags))
            tensor = SimpleNamespace(name="x", shape=(-1, 8, 4, 4))
            return SimpleNamespace(num_inputs=1, get_input=lambda _: tensor)

        def shape(name: str, *shapes: object) -> None:
            self.calls.append((name, shapes))

        def built(network: object, config: object) -> memoryview:
            self.calls.append("build_serialized_network")
            return memoryview(b"plan")

        return SimpleNamespace(
            create_network=network,
            create_builder_config=lambda: SimpleNamespace(add_optimization_profile=lambda _: 0),
            create_optimization_profile=lambda: SimpleNamespace(set_shape=shape),
            build_serialized_network=built,
        )

    def OnnxParser(self, network: object, logger: object) -> SimpleNamespace:  # noqa: N802 -- TensorRT's name
        return SimpleNamespace(parse_from_file=lambda _: self.calls.append("parse") is None)

    def Runtime(self, logger: object) -> SimpleNamespace:  # noqa: N802 -- TensorRT's name
        layer = {"Name": "n", "LayerType": "kgen", "TacticName": "t", "Metadata": "[ONNX Layer: gn]"}
        told = json.dumps({"Layers": [layer, "told by name only"]})
        inspector = SimpleNamespace(get_engine_information=lambda _: told)
        return SimpleNamespace(
            deserialize_cuda_engine=lambda _: SimpleNamespace(create_engine_inspector=lambda: inspector)
        )


@pytest.fixture
def onnx_file(tmp_path):
    import onnx_ir as ir

    path = tmp_path / "m.onnx"
    ir.save(group_norm()[0], path)
    (tmp_path / "p.so").write_bytes(b"")
    return path


@pytest.mark.parametrize(("flags", "value"), [({"STRONGLY_TYPED": 1}, 2), ({}, 0)], ids=["10", "11"])
def test_order_of_calls(onnx_file, flags: dict[str, int], value: int) -> None:
    trt = StandIn(flags)
    out = onnx_file.with_suffix(".engine")
    built = trt_network.build(trt, "tensorrt", onnx_file, out, plugins=(onnx_file.with_name("p.so"),))
    batches = ((1, 8, 4, 4), (1, 8, 4, 4), (trt_network.LARGEST_BATCH, 8, 4, 4))
    assert trt.calls == [
        "load_library",
        ("create_network", value),
        "parse",
        ("x", batches),
        "build_serialized_network",
    ]
    assert out.read_bytes() == b"plan"
    assert [(k.name, k.origin) for k in built.kernels] == [("t", ("gn",))]


def test_a_plugin_that_does_not_load_stops_everything(onnx_file) -> None:
    trt = StandIn({}, refuse_plugins=True)
    with pytest.raises(InputError, match="cannot load plugin library"):
        trt_network.build(trt, "tensorrt", onnx_file, onnx_file, plugins=(onnx_file.with_name("p.so"),))
    assert trt.calls == ["load_library"]


def test_absent_or_too_old_is_unavailable_with_what_to_type(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(tensorrt, "_version", lambda: None)
    with pytest.raises(UnavailableError, match=r"pip install tensorrt --extra-index-url https://pypi\.nvidia\.com"):
        TENSORRT.build(tmp_path / "m.onnx", tmp_path / "m.engine")
    monkeypatch.setattr(tensorrt, "_version", lambda: "10.8.0.43")
    with pytest.raises(UnavailableError, match=r"10\.8\.0\.43 is older than 10\.9"):
        TENSORRT.open(group_norm()[0])


def test_version_of_a_package_without_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.machinery import ModuleSpec

    monkeypatch.setattr(tensorrt, "installed", lambda *_: None)
    monkeypatch.setattr(tensorrt, "find_spec", lambda name: ModuleSpec(name, None))
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(__version__="10.13.2"))
    assert TENSORRT.probe().version == "10.13.2"


@pytest.mark.gpu
def test_engine_on_the_gpu_is_the_formula() -> None:
    from tests.runtimes.small_models import formula, relative_error, sample

    model, scale, bias = group_norm(21, "float32", 64, 8, (2, 64, 32, 32))
    session = TENSORRT.open(model)
    x = sample((2, 64, 32, 32))
    assert relative_error(session.run({"x": x})["y"], formula(x, 8, scale, bias)) < 1e-5  # GPU sums in another order
    session.close()
