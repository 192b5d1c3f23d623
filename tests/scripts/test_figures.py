"""What tests/parity/README.md says of faults and false alarms holds, on a part that takes seconds."""

import re
from pathlib import Path

import numpy as np
import pytest

from gn_deploy.faults import FAULTS, Kind
from gn_deploy.parity.status import Status
from gn_deploy.runtimes import RUNTIMES
from scripts import pages
from scripts.figures import alarms, faults
from scripts.figures.operators import DATA, OPERATORS, given
from tests.forms.writing import WRITTEN

README = (Path(__file__).parents[1] / "parity" / "README.md").read_text()
SMALL = ["odd sizes", "volume, SiLU, modulation", "sound, GELU, residual"]
"""Every fault acts on one of them."""
SLOW = pytest.mark.slow
TWELVE_BITS = "approximate root"
"""A factor common to all elements, so no noise of a lower precision: a different function."""


def test_most_faults_are_seen_and_what_is_not_is_near_the_noise() -> None:
    measured = faults.seed(SMALL, rivals=False)
    assert measured.alarms == 0
    assert {f.fault for f in measured.found} == FAULTS.keys()
    found = measured.tellable().found
    missed = [f for f in found if not f.seen]
    assert len(missed) < 0.05 * len(found)
    assert max(f.effect for f in missed) < 15  # times the worst error of seven right implementations; measured: 10
    assert np.median([f.effect for f in missed]) < 2


def test_large_mean_is_the_only_data_left_out_and_for_its_reason() -> None:
    for data in DATA:
        x = given("odd sizes", data, "float32").x[..., :].reshape(-1).astype(np.float64)
        spread = x[np.isfinite(x)].std() / 3  # groups differ by more than their spread at most
        rounding = np.spacing(np.abs(x[np.isfinite(x)]).max().astype(np.float32))
        if data in faults.HOPELESS:
            assert rounding > 0.01 * spread, data


@pytest.mark.parametrize("operator", [SMALL[0], *(pytest.param(name, marks=SLOW) for name in (*SMALL[1:], "two axes"))])
def test_the_probes_find_every_fault_in_float32_and_call_it_by_its_name(operator: str) -> None:
    for name, told in faults.probed(operator, "float32").items():
        if not told.moved:
            assert FAULTS[name].kind is Kind.NAN, f"no probe is moved by {name}"
        elif name == "one-pass variance":
            assert told.status is Status.UNSTABLE
        elif FAULTS[name].kind is Kind.PRECISION and name != TWELVE_BITS:
            assert told.status is Status.LOWPREC, name
        else:
            assert told.status in (Status.FAIL, Status.NAN), (name, told)


@pytest.mark.parametrize("operator", ["channels last, ReLU", pytest.param("odd sizes", marks=SLOW)])
def test_the_probes_find_every_fault_in_float16(operator: str) -> None:
    missed = [
        name for name, told in faults.probed(operator, "float16").items() if told.moved and not told.status.broken
    ]
    assert not missed


SHAPES = (
    ((3, 8), (1, 8)),
    ((2, 24, 7, 9), (1, 8, 24)),
    ((2, 8, 1, 1), (8,)),
    ((1, 32, 500), (32,)),
    ((2, 8, 3, 5, 7), (1,)),
)


@pytest.mark.parametrize(
    ("form", "dtype", "runtime"),
    [
        *((form, "float32", "onnx-reference") for form in alarms.FORMS_HERE),
        *((form, "float32", "onnxruntime") for form in alarms.FORMS_HERE if form not in alarms.EVALUATED),
        ("statistics_affine", "float16", "openvino"),
        ("instance_norm", "float16", "onnxruntime"),
        ("primitives", "bfloat16", "onnx-reference"),
    ],
)
def test_no_form_is_called_wrong(form: str, dtype: str, runtime: str) -> None:
    if not RUNTIMES.require(runtime).probe().run:
        pytest.skip(f"{runtime} is not installed")
    runs = list(alarms.by_runtime(form, dtype, runtime, SHAPES))
    assert len(runs) > 100
    assert not alarms.false_alarms(runs)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_torch_is_not_called_wrong(dtype: str) -> None:
    runs = list(alarms.by_torch(dtype, SHAPES))
    assert len(runs) > 50
    assert not alarms.false_alarms(runs)


def test_every_form_that_is_written_is_tried() -> None:
    assert list(alarms.FORMS_HERE) == WRITTEN


def test_a_wrong_form_would_be_an_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same run with another epsilon on one side only."""
    kept, right = alarms.model, iter([True, False])

    def spoilt(form, opset, wanted):  # type: ignore[no-untyped-def]
        from dataclasses import replace

        return kept(form, opset, wanted if next(right) else [(replace(s, epsilon=2e-5), shape) for s, shape in wanted])

    monkeypatch.setattr(alarms, "model", spoilt)
    runs = list(alarms.by_runtime("layer_norm", "float32", "onnx-reference", SHAPES[:2]))
    assert {run.status for run in alarms.false_alarms(runs)} == {Status.FAIL}


def test_a_runtime_that_fails_is_an_alarm() -> None:
    run = alarms.Run("openvino", "native", "float32", 8, Status.CRASH, float("nan"))
    assert alarms.false_alarms([run]) == [run]


def cells(block: str, first: str) -> list[str]:
    (row,) = (line for line in block.splitlines() if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_what_the_readme_claims() -> None:
    shown = pages.block(README, "faults")
    assert int(cells(shown, "**all**")[2]) >= 95
    assert "error / bound alarms at 0;" in shown
    single = [line.split("|")[2] for line in shown.rpartition("| fault |")[2].splitlines()[2:] if line.startswith("|")]
    assert len(single) >= 36
    assert not [words for words in single if "pass" in words]
    runs, alarmed = (int(cells(pages.block(README, "alarms"), "**all**")[at].replace(",", "")) for at in (3, 4))
    assert runs >= 2000
    assert alarmed == 0
    assert set(re.findall(r"`(\w+)`", shown)) >= DATA.keys()
    assert len(OPERATORS) == 10
