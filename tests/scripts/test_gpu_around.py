"""What stands around the GPU benchmark: full-size verification, the copy in PTX, compute-sanitizer."""

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from gn_deploy.errors import UnavailableError
from gn_deploy.reference import group_norm
from gn_deploy.spec import Activation, GroupNormSpec
from scripts.gpu import sanitizer, verify
from scripts.gpu.cases import EPILOGUES, Case
from scripts.gpu.clocks import Clock
from scripts.gpu.driver import COPY
from scripts.gpu.operands import Operands, in_torch

CASE = Case("", (2, 12, 6, 5), groups=3)
CASES = [
    replace(CASE, epilogue=epilogue, dtype=dtype, layout=layout)
    for epilogue, dtype, layout in zip(
        EPILOGUES, ("float16", "float32", "bfloat16") * 2, ("nchw", "nhwc") * 3, strict=True
    )
]
TOOLKIT = "========= COMPUTE-SANITIZER\n"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.key)
def test_verification_on_the_device_agrees_with_the_oracle(case: Case) -> None:
    torch = pytest.importorskip("torch")
    operands = Operands(case, torch, "cpu", 2)
    x, scale, bias, residual, s, t = operands.given(1)
    total = x if residual is None else x + residual
    numbers = [None if v is None else v.double().numpy() for v in (total, scale, bias, s, t)]
    spec = GroupNormSpec(case.groups, case.shape[1], 1e-5, activation=Activation(case.parts.activation))
    exact = group_norm(*numbers[:1], spec, *numbers[1:3], modulation_scale=numbers[3], modulation_shift=numbers[4])
    y = operands.y(1)
    assert y.shape == case.shape
    y.copy_(torch.from_numpy(exact))
    if case.parts.sum:
        operands.sum(1).copy_(total)
    assert verify.error_over_bound(case, operands, 1, torch) <= 1
    # a rounding error too much in a single number
    largest = y.abs().argmax()
    place = tuple(int(i) for i in torch.unravel_index(largest, y.shape))
    kept = y[place].clone()
    y[place] = kept * (1 + (32 if case.dtype == "float32" else 8) * torch.finfo(y.dtype).eps)
    assert verify.error_over_bound(case, operands, 1, torch) > 1
    y[place] = float("nan")
    assert verify.error_over_bound(case, operands, 1, torch) == float("inf")
    y[place] = kept
    if case.parts.sum:
        operands.sum(1)[place] += 1
        assert verify.error_over_bound(case, operands, 1, torch) == float("inf")


@pytest.mark.parametrize("at_once", [1, 60, 1 << 24])
def test_verification_in_parts_sees_every_part(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(verify, "AT_ONCE", at_once)
    operands = Operands(CASE, torch, "cpu", 1)
    x, scale, bias = operands.given(0)[:3]
    y = torch.nn.functional.silu(torch.nn.functional.group_norm(x.double(), 3, scale.double(), bias.double(), 1e-5))
    operands.y(0).copy_(y)
    assert verify.error_over_bound(CASE, operands, 0, torch) <= 1
    for sample in (0, 1):
        for channel in (0, 5, 11):
            operands.y(0).copy_(y)
            operands.y(0)[sample, channel, 5, 4] += 1
            assert verify.error_over_bound(CASE, operands, 0, torch) > 1


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.key)
def test_torch_computes_the_same_layer(case: Case) -> None:
    torch = pytest.importorskip("torch")
    case = replace(case, dtype="float32")
    operands = Operands(case, torch, "cpu", 1)
    found = in_torch(case, torch)(*(None if v is None else v.double() for v in operands.given(0)))
    y, total = found if case.parts.sum else (found, None)
    operands.y(0).copy_(y)
    if total is not None:
        operands.sum(0).copy_(total)
    assert verify.error_over_bound(case, operands, 0, torch) <= 1


@pytest.mark.parametrize("architecture", ["sm_75", "sm_90"])
def test_the_copy_is_ptx(architecture: str, tmp_path: Path) -> None:
    ptxas = shutil.which("ptxas") or shutil.which("ptxas", path="/usr/local/cuda/bin")
    if ptxas is None:
        pytest.skip("ptxas is not on PATH")
    command = [ptxas, "-v", f"-arch={architecture}", str(COPY), "-o", str(tmp_path / "copy.cubin")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "0 bytes stack frame, 0 bytes spill stores" in done.stderr
    assert {"gn_copy", "gn_empty"} <= set(done.stderr.replace("'", " ").split())


@pytest.mark.parametrize(
    ("code", "said", "wanted"),
    [
        (0, "========= ERROR SUMMARY: 0 errors", ("clean", 0)),
        (99, "========= ERROR SUMMARY: 4 errors", ("errors", 4)),
        (0, "========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)", ("clean", 0)),
        (99, "========= RACECHECK SUMMARY: 2 hazards displayed (2 errors, 0 warnings)", ("errors", 2)),
        (1, "========= ERROR SUMMARY: 0 errors", ("failed", None)),  # the sample found faults, the tool none
        (0, "no faults", ("failed", None)),  # the tool said nothing
        (255, "========= Error: Device not supported", ("failed", None)),
        (99, "", ("errors", None)),
    ],
)
def test_what_the_sanitizer_says(code: int, said: str, wanted: tuple[str, int | None]) -> None:
    assert sanitizer.status(code, [TOOLKIT, said]) == {"status": wanted[0], "errors": wanted[1]}


def test_the_sanitizer_is_run_on_the_sample(tmp_path: Path) -> None:
    program = tmp_path / "compute-sanitizer"
    program.write_text(
        '#!/bin/sh\necho "$@"\ncase "$2" in slow) exec sleep 60;; esac\necho "ERROR SUMMARY: 0 errors"\n'
    )
    program.chmod(0o755)
    library = tmp_path / "lib.so"
    found = sanitizer.sanitize(program, library, "memcheck", 20.0)
    assert found["status"] == "clean"
    first, *_ = found["said"]
    assert first.startswith("--tool memcheck --error-exitcode 99 ")
    assert first.endswith(f"-m scripts.gpu.sanitized {library}")
    assert sanitizer.sanitize(program, library, "slow", 0.2)["status"] == "timed out"
    assert sanitizer.sanitize(tmp_path / "missing", library, "memcheck", 1.0)["status"] == "failed"


def test_without_a_gpu_there_is_no_clock_and_no_machine() -> None:
    if Path("/proc/driver/nvidia").exists():
        pytest.skip("there is an NVIDIA GPU")
    assert Clock("").mhz() is None
    from scripts.gpu.machine import CudaMachine, driver_version, missing

    assert missing()
    assert driver_version() == "unknown"
    with pytest.raises(UnavailableError, match="torch"):
        CudaMachine(Path("any.so"))
