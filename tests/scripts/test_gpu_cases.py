"""The shapes of the GPU benchmark: what they are, how many bytes they move, and what was promised of each."""

import math

import pytest

from gn_deploy.decision import Rejected
from gn_deploy.plugin.binding import CProblem, Library, Selected, struct
from gn_deploy.plugin.problem import DEVICES, Problem
from gn_deploy.plugin.select import select
from scripts.gpu.cases import CASES, EPILOGUES, MIB, Case
from scripts.gpu.targets import target, verdict
from tests.scripts.naive import naive

NETWORKS = {"SD1.5", "SDXL", "VAE decoder", "ResNet-50", "3-D U-Net", "video VAE"}


def test_what_the_issue_names_is_there() -> None:
    assert 38 <= len(CASES) <= 46
    assert len({case.key for case in CASES}) == len(CASES)
    assert {case.net for case in CASES} >= NETWORKS
    assert any(case.net.startswith("detection") for case in CASES)
    assert {case.epilogue for case in CASES} == set(EPILOGUES)
    assert {case.dtype for case in CASES} == {"float16", "bfloat16", "float32"}
    assert {case.layout for case in CASES} == {"nchw", "nhwc"}
    assert {len(case.shape) for case in CASES} == {4, 5}


def test_a_run_cut_short_has_one_of_each_kind() -> None:
    first = CASES[:12]
    assert {case.net for case in first} >= NETWORKS - {"video VAE"}
    assert {case.layout for case in first} == {"nchw", "nhwc"}
    assert {case.epilogue for case in first} >= {"gn", "silu", "skip+sum", "film"}


@pytest.mark.parametrize(
    ("case", "size", "moved", "unit"),
    [  # from the table of physical limits: MiB of x, times it is moved, KiB of a group
        (Case("", (2, 320, 64, 64)), 5.0, 2, 80.0),
        (Case("", (2, 320, 64, 64), "skip"), 5.0, 3, 80.0),
        (Case("", (2, 320, 64, 64), "skip+sum"), 5.0, 4, 80.0),
        (Case("", (2, 320, 64, 64), "film"), 5.0, 2, 80.0),
        (Case("", (2, 320, 64, 64), dtype="float32"), 10.0, 2, 160.0),
        (Case("", (1, 256, 1024, 1024)), 512.0, 2, 16384.0),
        (Case("", (1, 32, 128, 128, 128), groups=8), 128.0, 2, 16384.0),
        (Case("", (32, 2048, 7, 7)), 6.125, 2, 6.125),
        # channels last: 10 channels are 20 bytes, 4 groups are the first 64 that are whole vectors
        (Case("", (2, 320, 64, 64), layout="nhwc"), 5.0, 2, 320.0),
        (Case("", (1, 512, 16, 16), layout="nhwc"), 0.25, 2, 16.0),  # 2 groups of 16 channels
        (Case("", (1, 512, 16, 16), layout="nhwc", dtype="float32"), 0.5, 2, 16.0),  # 1 group
        (Case("", (1, 6, 2, 2), layout="nhwc", groups=3), 48 / MIB, 2, 48 / 1024),  # C does not allow 64 bytes
    ],
    ids=lambda value: value.key if isinstance(value, Case) else "",
)
def test_bytes(case: Case, size: float, moved: int, unit: float) -> None:
    assert case.tensor_bytes / MIB == size
    assert case.moved_bytes == moved * case.tensor_bytes
    assert case.unit_bytes / 1024 == unit


def test_problems_are_accepted_and_say_what_the_case_says() -> None:
    library = Library(naive())
    device = library.query_device()
    for case in CASES:
        problem = struct(CProblem, case.problem())
        assert isinstance(library.select(problem, device), Selected)
        assert problem.samples * problem.channels * problem.positions == math.prod(case.shape)
        parts = case.parts
        assert (problem.has_residual, problem.has_sum, problem.has_modulation) == (
            parts.residual,
            parts.sum,
            3 if parts.modulation else 0,
        )


@pytest.mark.parametrize("device", DEVICES)
def test_every_case_has_a_kernel_on_every_gpu(device: str) -> None:
    for case in CASES:
        found = select(Problem(**case.problem()), DEVICES[device])
        assert not isinstance(found, Rejected), f"{case.key}: {found}"


@pytest.mark.parametrize(
    ("case", "ratio"),
    [
        (Case("", (2, 1280, 8, 8)), 0.65),
        (Case("", (2, 320, 64, 64)), 0.65),
        (Case("", (32, 2048, 7, 7)), 0.65),
        (Case("", (1, 128, 32, 32, 32), groups=8), 0.65),  # 8 MB: between two classes the easier one
        (Case("", (2, 640, 64, 64)), 0.80),
        (Case("", (2, 320, 128, 128)), 0.80),
        (Case("", (8, 256, 100, 152)), 0.90),
        (Case("", (32, 256, 56, 56)), 0.90),
        (Case("", (2, 640, 128, 128)), 0.90),
        (Case("", (1, 512, 256, 256)), 0.85),
        (Case("", (1, 128, 20, 256, 256)), 0.85),
        (Case("", (1, 256, 1024, 1024)), 0.75),
        (Case("", (1, 32, 128, 128, 128), groups=8), 0.75),
        (Case("", (1, 512, 16, 180, 320)), 0.64),  # 28 MB a group fits no GPU
        (Case("", (2, 640, 128, 128), layout="nhwc"), 0.82),
        (Case("", (2, 320, 64, 64), layout="nhwc"), 0.65),
        (Case("", (1, 256, 1024, 1024), layout="nhwc"), 0.64),
    ],
    ids=lambda value: value.key if isinstance(value, Case) else str(value),
)
def test_targets(case: Case, ratio: float) -> None:
    assert target(case).ratio == ratio
    assert target(case).why


def test_verdicts() -> None:
    case = Case("", (2, 640, 64, 64))  # 0.80
    row = {"us": 10.0, "copy_us": 8.0, "eager_us": 30.0, "eager_beside_us": 10.0}
    assert verdict(case, row) == {"copy": "held", "eager": "held", "compile": "not measured"}
    assert verdict(case, row | {"copy_us": 7.9})["copy"] == "held"  # within what two medians differ by
    assert verdict(case, row | {"copy_us": 7.8})["copy"] == "missed"
    assert verdict(case, row | {"eager_us": 9.7})["eager"] == "missed"
    # torch.compile is held against our own time of the same minute
    slower = row | {"compile_us": 11.0, "compile_beside_us": 12.0}
    assert verdict(case, slower)["compile"] == "missed"
    assert verdict(case, slower | {"compile_beside_us": 11.0})["compile"] == "held"
    assert set(verdict(case, {}).values()) == {"not measured"}
