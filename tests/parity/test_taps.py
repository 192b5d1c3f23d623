"""Tapping inner values is proved to change nothing, and where it changes something the tap at fault is named."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from gn_deploy.parity import in_place
from gn_deploy.parity.cases import Case, input_specs, model_cases
from gn_deploy.parity.harness import compare
from gn_deploy.parity.pairing import pair
from gn_deploy.parity.report import ParityReport
from gn_deploy.parity.status import Status
from gn_deploy.parity.taps import Chunks
from gn_deploy.runtimes import RUNTIMES
from gn_deploy.runtimes.base import Array, Session
from gn_deploy.runtimes.onnx_reference import ONNX_REFERENCE
from gn_deploy.sites import find
from tests.parity.spellings import native, network


class Fusing:
    """onnx-reference, but the output moves a little when ``guilty`` is tapped, and at each opening or run if asked."""

    name = "fusing"
    precisions = ()

    def __init__(self, guilty: str = "", per_opening: bool = False, per_run: bool = False) -> None:
        self.guilty, self.per_opening, self.per_run = guilty, per_opening, per_run
        self.opened = self.runs = 0

    def probe(self) -> Any:
        return ONNX_REFERENCE.probe()

    def open(self, model: ir.Model, *, precision: str | None = None) -> Session:
        self.opened += 1
        tapped = any(v.name == self.guilty for v in model.graph.outputs)
        return Moved(ONNX_REFERENCE.open(model), self, tapped + self.per_opening * self.opened)


class Moved:
    runtime, precision = "fusing", "float32"

    def __init__(self, session: Session, by: Fusing, steps: int) -> None:
        self.session, self.by, self.steps = session, by, steps

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        self.by.runs += self.by.per_run
        values = self.session.run(feeds)
        if "y" in values and values["y"].shape[2:] == (1, 1):  # the network's own, not a probe's
            values["y"] = values["y"] + np.float32((self.steps + self.by.runs) * 2e-7)
        return values

    def close(self) -> None:
        self.session.close()


def judged(monkeypatch: pytest.MonkeyPatch, runtime: Any) -> ParityReport:
    monkeypatch.setattr(RUNTIMES, "get", lambda name: runtime)
    model = network(native())
    return compare(model, model, runtimes=("onnx-reference",))


def test_a_tap_that_changes_nothing_is_proved(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = Fusing()
    report = judged(monkeypatch, runtime)
    assert report.runtimes[0].taps == "2 of 2 GroupNorms tapped without changing a bit of the outputs"
    assert all(v.reason == "" for v in report.sites)
    opened = runtime.opened
    again = Fusing(guilty="norm2")
    judged(monkeypatch, again)
    assert again.opened == opened + 3  # both halves, and once more to see whether it is the tap


def test_the_tap_that_changes_the_network_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    report = judged(monkeypatch, Fusing(guilty="norm2"))
    assert [v.status for v in report.sites] == [Status.PASS, Status.PASS]
    assert report.sites[0].reason == ""
    assert report.sites[1].reason.startswith("tapping it changed the outputs of the network by up to ")
    assert report.runtimes[0].taps == "1 of 2 GroupNorms tapped without changing a bit of the outputs"


@pytest.mark.parametrize("how", ["per_opening", "per_run"])
def test_a_runtime_that_is_never_the_same_is_told_apart(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    report = judged(monkeypatch, Fusing(**{how: True}))
    assert report.runtimes[0].taps.startswith("not deterministic: without taps two runs differ by up to ")
    assert [v.status for v in report.sites] == [Status.PASS, Status.PASS]
    assert all("not deterministic" in v.reason for v in report.sites)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_real_runtimes_are_steady(name: str) -> None:
    model = network(native())
    (runtime,) = compare(model, model, runtimes=(name,)).runtimes
    assert "not deterministic" not in runtime.taps
    assert runtime.taps.endswith("of 2 GroupNorms tapped without changing a bit of the outputs")


def test_memory_is_bounded_and_guesses_are_corrected() -> None:
    model = network(native())
    sites = find(model).sites
    pairs = pair(model, sites, model, sites).pairs * 4
    cases = model_cases(input_specs(model))
    size = next(iter(cases[0].feeds.values())).shape[0] * 8 * 6 * 6 * 4  # bytes of a GroupNorm's input

    def counts(limit: int) -> list[int]:
        chunks, found = Chunks(pairs, model, cases, limit), []
        while chunk := chunks.next():
            found.append(len(chunk))
        return found

    assert counts(16 * size) == [8]
    assert counts(4 * size) == [2, 2, 2, 2]
    assert counts(1) == [1] * 8
    for value in {p.input for p in pairs}:
        value.shape = None
    chunks = Chunks(pairs, model, cases, 16 * size)
    assert len(chunks.next()) == 1  # nothing is known: a guess that is too large
    chunks.learn(pairs[0], size)
    assert len(chunks.next()) == 7


def test_batches_of_cases_tap_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network(native())
    rng = np.random.default_rng(0)
    cases = [Case(f"c{i}", {"x": rng.standard_normal((1, 3, 6, 6)).astype(np.float32)}, "user", True) for i in range(3)]
    monkeypatch.setattr("gn_deploy.parity.stream.BATCH", 1)
    whole = compare(model, model, cases=cases)
    monkeypatch.setattr(in_place, "TAP_BYTES", 1)
    assert compare(model, model, cases=cases).to_dict() == whole.to_dict()
    assert whole.runtimes[0].taps.startswith("2 of 2")
