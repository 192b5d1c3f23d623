"""Names, aliases and probes of the runtimes."""

import subprocess
import sys
from pathlib import Path

import pytest

from gn_deploy.errors import InputError, UnavailableError
from gn_deploy.runtimes import ALIASES, RUNTIMES, doctor, resolve
from gn_deploy.runtimes.base import one_line, precision_name, with_tf32
from gn_deploy.targets import RUNTIMES as TARGETS

NAMES = ("torch", "onnx-reference", "onnxruntime", "ort-cuda", "ort-tensorrt", "openvino", "tensorrt-rtx", "tensorrt")


def test_names_targets_and_aliases_resolve() -> None:
    assert RUNTIMES.names()[: len(NAMES)] == NAMES
    for name in NAMES:
        assert resolve(name) == name
        assert RUNTIMES.require(name).name == name
    assert [resolve(t) for t in TARGETS] == [
        "onnx-reference",
        "onnxruntime",
        "ort-cuda",
        "openvino",
        "tensorrt",
        "tensorrt-rtx",
    ]
    assert set(ALIASES.values()) <= set(NAMES)
    with pytest.raises(InputError) as error:
        resolve("openvine")
    assert error.value.hint == "did you mean 'openvino'?"


def test_doctor_imports_nothing_that_takes_seconds() -> None:
    code = "import sys; from gn_deploy.runtimes import doctor; doctor(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "openvino", "tensorrt", "tensorrt_rtx"} & set(loaded)


def test_doctor_knows_what_the_test_extra_installs() -> None:
    probes = {probe.name: probe for probe in doctor()}
    for name in ("torch", "onnx-reference", "onnxruntime", "openvino"):
        assert probes[name].run, probes[name]
        assert probes[name].version
    assert probes["tensorrt-rtx"].build, probes["tensorrt-rtx"]
    for probe in probes.values():
        assert probe.run or probe.run.reason
        assert probe.build or probe.build.reason


@pytest.mark.parametrize("name", ["torch", "onnx-reference", "onnxruntime", "openvino"])
def test_runtimes_that_do_not_build_say_so(name: str) -> None:
    with pytest.raises(UnavailableError):
        RUNTIMES.require(name).build(Path("m.onnx"), Path("m.engine"))


def test_every_module_imports_without_the_optional_packages() -> None:
    blocked = "torch onnxruntime openvino tensorrt tensorrt_rtx onnxscript scipy sklearn".split()
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({blocked!r}))\n"
        "from gn_deploy.runtimes import RUNTIMES, child, handover, reference_ops, reference_windows, trt_session\n"
        f"assert not [n for n in {NAMES!r} if type(RUNTIMES.get(n)).__name__ == 'Unavailable']"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_cpp_errors_on_one_line() -> None:
    thrown = (
        "Exception from src/core/node.cpp:1626:\nCheck 'x' failed at src/plugins/a.cpp:17:\nUnsupported type: Foo\n\n"
    )
    assert one_line(thrown) == "Check 'x' failed Unsupported type: Foo"
    ort = "[ONNXRuntimeError] : 1 : FAIL : /src/core/graph/utils.h:46 void onnxruntime::f(const int&, bool) Opset 28"
    assert one_line(ort) == "Opset 28"
    assert len(one_line("x" * 1000)) == 300
    assert precision_name(["int64", "float16", "float32"]) == "float32+float16"


@pytest.mark.parametrize(
    ("written", "runs"),
    [("float32", "float32+tf32"), ("float32+float16", "float32+float16+tf32"), ("float16", "float16")],
)
def test_float32_on_a_gpu_means_tf32_products(written: str, runs: str) -> None:
    assert with_tf32(written) == runs
