"""Made-up comparisons with the shapes real ones have: held, broken in every way, and hostile."""

import bisect
import math
import random
from dataclasses import replace

import pytest

from gn_deploy.parity.report import (
    HISTOGRAM_EDGES,
    Blame,
    BuiltEngine,
    Confidence,
    Divergence,
    Metrics,
    Noticed,
    OutputVerdict,
    ParityReport,
    RuntimeVerdict,
    SiteVerdict,
    Status,
    TaskVerdict,
    Vote,
    WorstGroup,
)
from gn_deploy.runtimes.base import Kernel

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
            BuiltEngine(
                "tensorrt-rtx",
                "1.7.1",
                1_254_912,
                tuple(
                    Kernel(f"sm80_group_norm_relu_fp32_{i}", "normalization", (f"node_group_norm_{i}",))
                    for i in range(4)
                ),
            ),
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


def group(size: int = 64, off: float = 0.0, bound: float = 1e-6, seed: int = 0) -> WorstGroup:
    """A worst group whose last third is off by ``off``."""
    rng = random.Random(seed)
    x = [rng.gauss(0, 1) for _ in range(size)]
    expected = [1.7 * v - 0.2 for v in x]
    actual = [e + (off if i >= 2 * size // 3 else 0.3 * bound * rng.uniform(-1, 1)) for i, e in enumerate(expected)]
    return WorstGroup(1, 3, tuple(range(0, 4 * size, 4)), tuple(x), tuple(expected), tuple(actual), (bound,) * size)


def histogram(peak: float, seed: int = 0, elements: int = 4096) -> tuple[int, ...]:
    """Counts as they come out of comparisons: most elements a good way below the worst."""
    rng = random.Random(seed)
    counts = [0] * (len(HISTOGRAM_EDGES) + 1)
    for _ in range(64):
        counts[bisect.bisect_left(HISTOGRAM_EDGES, peak * 10 ** -abs(rng.gauss(0, 0.8)))] += elements // 64
    return tuple(counts)


def drawn(verdict: SiteVerdict, seed: int = 0, with_group: bool = True) -> SiteVerdict:
    """The verdict with histogram and group, as per_site makes them."""
    if verdict.metrics is None:
        return verdict
    peak = verdict.metrics.error_over_bound
    shown = group(off=min(peak, 1e6) * 1e-6, seed=seed) if with_group else None
    return replace(verdict, histogram=histogram(min(peak, 1e6), seed, 512), group=shown)


def everything(base: ParityReport) -> ParityReport:
    """Every field of a report filled, on top of ``base``."""
    sites = tuple(
        drawn(v, i, with_group=v.status.broken or i == 0) if v.metrics else v for i, v in enumerate(base.sites)
    )
    first_broken = next((i for i, v in enumerate(sites) if v.status.broken), 0)
    guess = replace(sites[first_broken], looks_like="epsilon 1e-06 instead of 1e-05")
    sites = (*sites[:first_broken], guess, *sites[first_broken + 1 :])
    tasks = (
        TaskVerdict("torch", "top-1", 0.9833, 0.9833, 1.0, 540, 0.9945, 540, 0.0, (0.0, 0.0), 0.005, Status.PASS),
        TaskVerdict("onnxruntime", "top-1", 0.9833, 0.9611, 0.97, 540, 0.95, 201, -0.0222, (-0.037, -0.0093), 0.005,
                    Status.FAIL, "the drop is larger than allowed"),
        TaskVerdict("onnxruntime", "psnr", 41.25, 38.5, math.nan, 12, difference=-2.75, interval=(-3.1, -2.2)),
    )  # fmt: skip
    votes = (
        Vote("layer2.0.norm1", "offset", (("torch", "openvino"), ("onnxruntime",)), ("torch", "openvino"), "two of 3"),
        Vote("logits", "normal", (("torch", "onnxruntime", "openvino"),), ("torch", "onnxruntime", "openvino")),
    )
    located = (
        Divergence("onnxruntime", "oracle", "/layer2/pad_output", "/layer2/Pad", "Pad", "layer2.0", "resnet.py:47",
                   "normal", metrics(830.0), 791.0, "the border counted as zeros", ("part.onnx", "inputs.npz")),
        Divergence("torch", "oracle", "", case="normal", reason="every value inside 4 times rounding noise"),
    )  # fmt: skip
    blamed = (
        Blame("onnxruntime", "Pad_Fusion", "optimizer rule", 791.0, 0.9, ("all rules", "Pad_Fusion", "ConvBNFusion"),
              'session.disabled_optimizers = ["Pad_Fusion"]', ("part.onnx", "run.py")),
    )  # fmt: skip
    noticed = (
        Noticed("epsilon x10", 12, 12, 12, 12),
        Noticed("tail left out", 12, 10, 8, 7, ("layer1.0.norm1", "layer3.1.norm2")),
        Noticed("NaN swallowed", 12, 0, 0, 0, reason="no NaN in the data"),
    )
    return replace(
        base,
        sites=sites,
        tasks=tasks,
        votes=votes,
        located=located,
        blamed=blamed,
        noticed=noticed,
        confidence=Confidence(299, 0, 0.01, 0.95, True, "the rate asked for is reached"),
        accepted=(Status.LOWPREC, Status.UNSTABLE),
    )


@pytest.fixture
def full(broken: ParityReport) -> ParityReport:
    return everything(broken)
