"""Made-up comparisons with the shapes real ones have: held, broken in every way, and hostile."""

import math
import random

import pytest

from gn_deploy.parity.report import (
    Metrics,
    OutputVerdict,
    ParityReport,
    RuntimeVerdict,
    SiteVerdict,
    Status,
    TaskVerdict,
)

CASES = ("normal", "far mean", "tiny", "stiff mean", "constant", "near max", "epsilon", "outlier")
RUNTIMES = ("torch", "onnx-reference", "onnxruntime", "openvino")


def metrics(ratio: float) -> Metrics:
    return Metrics(ratio, ratio * 3e-7, ratio * 1e-7, 1.0, ratio * 4, 1.0, 0.0)


def site(index: int, runtime: str, status: Status = Status.PASS, peak: float | None = None) -> SiteVerdict:
    rng = random.Random(f"{index} {runtime}")
    cases = {case: rng.uniform(0.03, 0.6) for case in CASES}
    worst = max(cases, key=lambda case: cases[case])
    if peak is not None:
        cases[worst] = peak
    ran = status not in (Status.NOTRUN, Status.CRASH)
    return SiteVerdict(
        site=f"node_group_norm_{index}",
        runtime=runtime,
        status=status,
        case=worst if ran else "",
        metrics=metrics(cases[worst]) if ran else None,
        form="instance_norm" if index % 3 else "native",
        num_groups=8,
        num_channels=32 << (index // 4),
        epsilon=1e-5,
        dtype="float32",
        module=f"layer{index // 4 + 1}.{index % 4 // 2}.norm{index % 2 + 1}",
        source=f"digits_resnet.py:{31 + 4 * (index % 5)}",
        cases=cases if ran else {},
    )


def report(count: int = 12, **changes: object) -> ParityReport:
    versions = {"torch": "2.13.0", "onnx-reference": "1.23.2", "onnxruntime": "1.31.1", "openvino": "2026.4.1"}
    parts: dict[str, object] = {
        "reference": "digits_resnet.onnx",
        "candidate": "digits_resnet.ort-cpu.onnx",
        "title": "digits_resnet",
        "runtimes": tuple(RuntimeVerdict(r, Status.PASS, versions[r], "float32", seconds=1.25) for r in RUNTIMES),
        "sites": tuple(site(i, r) for i in range(count) for r in RUNTIMES),
        "outputs": tuple(OutputVerdict("logits", r, Status.PASS, "normal", metrics(0.3), 0.94) for r in RUNTIMES),
        "tasks": tuple(TaskVerdict(r, "accuracy", 0.9833, 0.9833, 1.0, 540, 0.9945, 540) for r in RUNTIMES),
        "environment": {"gn-deploy": "0.1.0", "python": "3.11", **versions},
        "command": "gn-deploy parity digits_resnet.onnx digits_resnet.ort-cpu.onnx --report report",
        "engines": (
            {
                "runtime": "tensorrt-rtx",
                "version": "1.7.1",
                "size": 1_254_912,
                "kernels": [
                    {
                        "name": f"sm80_group_norm_relu_fp32_{i}",
                        "kind": "normalization",
                        "origin": [f"node_group_norm_{i}"],
                    }
                    for i in range(4)
                ],
            },
        ),
    }
    return ParityReport(**{**parts, **changes})  # type: ignore[arg-type]


@pytest.fixture
def held() -> ParityReport:
    return report()


@pytest.fixture
def broken() -> ParityReport:
    """Every status there is, two sites broken, one runtime crashed, one absent, one site without a counterpart."""
    sites = [site(i, r) for i in range(12) for r in ("torch", "onnxruntime", "openvino")]
    sites[3 * 4 + 1] = site(4, "onnxruntime", Status.FAIL, 830.0)
    sites[3 * 7 + 1] = site(7, "onnxruntime", Status.UNSTABLE, 6.1)
    sites[3 * 9 + 2] = site(9, "openvino", Status.NAN, math.inf)
    sites += [site(i, "tensorrt-rtx", Status.NOTRUN) for i in range(12)]
    return report(
        runtimes=(
            RuntimeVerdict("torch", Status.PASS, "2.13.0", "float32"),
            RuntimeVerdict("onnxruntime", Status.FAIL, "1.31.1", "float32"),
            RuntimeVerdict("openvino", Status.NAN, "2026.4.1", "float32"),
            RuntimeVerdict("tensorrt", Status.CRASH, "11.4", reason="segmentation fault while building"),
            RuntimeVerdict("tensorrt-rtx", Status.NOTRUN, "1.7.1", reason="no NVIDIA GPU on this machine"),
        ),
        sites=tuple(sites),
        engines=(),
        outputs=(
            OutputVerdict("logits", "torch", Status.PASS, "normal", metrics(0.3), 0.9),
            OutputVerdict("logits", "onnxruntime", Status.WARN, "normal", metrics(0.3), 11.0),
        ),
        unpaired=("up.3.norm: the candidate has no GroupNorm with 24 channels",),
    )
