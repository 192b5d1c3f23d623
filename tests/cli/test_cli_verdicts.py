"""Every verdict word from the command line: what is printed, and the exit code it makes."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gn_deploy.rounding import rounded
from gn_deploy.runtimes import RUNTIMES
from gn_deploy.runtimes.base import Array, NoKernelError, RuntimeFailure, TimeLimitExceeded
from gn_deploy.runtimes.onnx_reference import ONNX_REFERENCE
from tests.cli.conftest import Ended, model


def _fail(error: Exception) -> Callable[[Array], Array]:
    def fail(_: Array) -> Array:
        raise error

    return fail


WORDS: dict[str, tuple[Callable[[Array], Array], int, str]] = {
    "pass": (lambda y: y, 0, "Parity held"),
    "lowprec": (lambda y: rounded(y, "bfloat16"), 1, "bfloat16"),
    "fail": (lambda y: y * np.float32(1.001), 1, "does not compute this GroupNorm"),
    "nan": (lambda y: np.where(np.arange(y.size).reshape(y.shape) == 3, np.float32("nan"), y), 1, "NaN"),
    "timeout": (_fail(TimeLimitExceeded("it took more than 3 s")), 1, "took more than 3 s"),
    "crash": (_fail(RuntimeFailure("it crashed (SIGSEGV) while running the model")), 1, "SIGSEGV"),
    "notrun": (_fail(NoKernelError("it has no kernel for Foo")), 3, "no kernel for Foo"),
}
"""What becomes of right answers on a runtime, the exit code, and a word of the report."""


class Runtime:
    name, runtime, precision, precisions = "odd", "odd", "float32", ()

    def __init__(self, change: Callable[[Array], Array]) -> None:
        self.change = change

    def probe(self) -> Any:
        return ONNX_REFERENCE.probe()

    def open(self, model: Any, *, precision: str | None = None) -> "Runtime":
        session = Runtime(self.change)
        session.inner = ONNX_REFERENCE.open(model)  # type: ignore[attr-defined]
        return session

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        values = self.inner.run(feeds)  # type: ignore[attr-defined]
        return {name: self.change(value) if value.ndim > 2 else value for name, value in values.items()}

    def close(self) -> None:
        pass


Odd = Callable[[str], None]


@pytest.fixture
def odd(monkeypatch: pytest.MonkeyPatch) -> Odd:
    real = RUNTIMES.get

    def install(word: str) -> None:
        runtime = Runtime(WORDS[word][0])
        monkeypatch.setattr(RUNTIMES, "get", lambda name: runtime if name == "openvino" else real(name))

    return install


@pytest.mark.parametrize("word", WORDS)
def test_each_word_has_its_exit_code(
    word: str, odd: Odd, here: Callable[..., Ended], saved: Callable[..., Path]
) -> None:
    saved()
    odd(word)
    _, code, told = WORDS[word]
    ended = here("parity", "model.onnx", "model.onnx", "-r", "openvino", "--in-process")
    assert ended.code == code, ended.err
    assert word in ended.err
    assert told in ended.err


@pytest.mark.parametrize(("word", "code"), [("lowprec", 0), ("fail", 1)])
def test_lowprec_is_accepted_when_asked(
    word: str, code: int, odd: Odd, here: Callable[..., Ended], saved: Callable[..., Path]
) -> None:
    saved()
    odd(word)
    accept = ("--accept", "lowprec", "--accept", "unstable")
    ended = here("parity", "model.onnx", "model.onnx", "-r", "openvino", "--in-process", *accept)
    assert ended.code == code, ended.err
    assert ("accepted" in ended.err) is (code == 0)


@pytest.mark.parametrize("word", ["fail", "crash", "nan", "timeout", "whatever"])
def test_other_words_are_not_accepted(word: str, here: Callable[..., Ended], saved: Callable[..., Path]) -> None:
    saved()
    ended = here("parity", "model.onnx", "model.onnx", "--accept", word)
    assert ended.code == 2
    assert word in ended.err
    assert "lowprec" in ended.err


def test_unstable_on_onnx_runtime_and_accepted(here: Callable[..., Ended], saved: Callable[..., Path]) -> None:
    saved()
    typed = ("parity", "model.onnx", "model.onnx", "-r", "onnxruntime", "--in-process")
    assert here(*typed).code == 1
    assert here(*typed, "--accept", "unstable").code == 0


def test_an_operator_without_a_kernel_is_not_run(here: Callable[..., Ended], tmp_path: Path) -> None:
    from onnx import TensorProto

    proto = model(opset=21)
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.initializer):
        half = value.type.tensor_type if hasattr(value, "type") else None
        if half is not None:
            half.elem_type = TensorProto.BFLOAT16
    del proto.graph.initializer[:]
    import ml_dtypes
    import onnx

    for name in ("scale", "bias"):
        raw = np.ones(4, ml_dtypes.bfloat16).tobytes()
        proto.graph.initializer.append(onnx.helper.make_tensor(name, TensorProto.BFLOAT16, [4], raw, raw=True))
    (tmp_path / "bf16.onnx").write_bytes(proto.SerializeToString())
    ended = here("parity", "bf16.onnx", "bf16.onnx", "-r", "onnxruntime", "--in-process")
    assert ended.code == 3, ended.err
    assert "no kernel" in ended.err


def test_a_precision_is_asked_for_by_name(here: Callable[..., Ended], saved: Callable[..., Path]) -> None:
    saved()
    ended = here("parity", "model.onnx", "model.onnx", "-r", "onnx-reference:fp16", "--in-process", "--json")
    assert ended.code == 0, ended.err
    assert ended.document["runtimes"][0]["precision"] in ("float16", "float32+float16")
    refused = here("parity", "model.onnx", "model.onnx", "-r", "openvino:fp8")
    assert refused.code == 2
    assert "fp8" in refused.err
