"""A stream of cases is read once, a few cases at a time, and says the same as the cases all at once."""

import gc
import tracemalloc
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gn_deploy.parity import per_site, stream
from gn_deploy.parity.cases import Case, input_specs
from gn_deploy.parity.harness import compare
from gn_deploy.parity.per_site import Evidence, gather
from gn_deploy.parity.progress import Progress
from gn_deploy.parity.report import Metrics
from gn_deploy.parity.sources import fit
from gn_deploy.parity.sources.data import Data
from gn_deploy.parity.status import Status
from gn_deploy.parity.stream import batches
from tests.parity.spellings import RIGHT, WRONG, native, network


def images(count: int, *, name: str = "image", seed: int = 0) -> Iterator[Case]:
    rng = np.random.default_rng(seed)
    for i in range(count):
        feeds = {"x": rng.standard_normal((1, 3, 6, 6)).astype(np.float32)}
        yield Case(f"{name} {i}", feeds, "user", True)


def test_batches_hold_few_cases_and_every_one_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "BATCH", 3)
    found = list(batches(images(7)))
    assert [(len(batch), last) for batch, last in found] == [(3, False), (3, False), (1, True)]
    assert [c.name for batch, _ in found for c in batch] == [f"image {i}" for i in range(7)]
    assert list(batches([])) == []
    monkeypatch.setattr(stream, "BATCH_BYTES", 1)
    assert [len(batch) for batch, _ in batches(images(3))] == [1, 1, 1]


def test_cases_of_one_name_are_told_apart() -> None:
    twice = [*images(2), *images(1, seed=1)]
    ((batch, last),) = batches(twice)
    assert [c.name for c in batch] == ["image 0", "image 1", "image 0 (2)"]
    assert last


@pytest.mark.parametrize("spelling", [RIGHT["instance norm"], WRONG["epsilon 1e-3"]], ids=["right", "wrong"])
def test_batches_change_no_verdict(spelling: object, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = network(native()), network(spelling)  # type: ignore[arg-type]
    at_once = compare(a, b, cases=list(images(5)))
    monkeypatch.setattr(stream, "BATCH", 2)
    streamed = compare(a, b, cases=images(5))
    assert streamed.to_dict() == at_once.to_dict()
    assert {f"image {i}" for i in range(5)} < set(streamed.sites[0].cases)


def test_nothing_of_a_case_is_kept_once_it_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "BATCH", 2)
    alive: list[int] = []
    arrays: list[weakref.ref[np.ndarray]] = []

    def watched() -> Iterator[Case]:
        for case in images(8):
            gc.collect()
            alive.append(sum(array() is not None for array in arrays))
            arrays.append(weakref.ref(case.feeds["x"]))
            yield case

    report = compare(network(native()), network(RIGHT["layer norm"]), cases=watched(), runtimes=["onnxruntime"] * 2)
    assert report.held
    assert max(alive) <= 3  # a batch, and the case that showed it to be full
    assert len(alive) == 8


def test_progress_tells_how_many_of_how_many() -> None:
    told: list[Progress] = []
    model = network(native())
    compare(model, model, cases=list(images(2)), progress=told.append)
    compare(model, model, cases=images(2), progress=told.append)
    compare(model, model, network=False, progress=told.append)
    assert [(p.done, p.total) for p in told if p.unit == "inputs"] == [(0, 2), (0, None), (0, None)]
    norms = [(p.done, p.total) for p in told if p.unit == "GroupNorms"]  # two of them, probed and on two inputs
    assert norms == [(2, 6), (3, 6), (4, 6), (5, 6), (6, 6), *((n, None) for n in range(2, 7)), (2, 2)]
    told = [p for p in told if p.unit == "inputs"]
    assert str(told[0]) == "onnx-reference: judging 2 GroupNorm(s) (0 of 2 inputs)"
    assert str(told[2]) == "onnx-reference: probing 2 GroupNorm(s)"
    assert str(Progress("judging", 7)) == "judging (7 inputs)"


def test_of_very_many_cases_the_gravest_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(per_site, "KEPT", 20)
    held: list[Evidence] = []
    for i in range(200):
        status = {33: Status.FAIL, 44: Status.NOTRUN}.get(i, Status.PASS)
        metrics = None if status is Status.NOTRUN else Metrics((37 * i % 200) / 200, 0.0, 0.0, 1.0, 0.0)
        gather(held, [Evidence(str(i), status, metrics)])
    assert len(held) <= 2 * 20 + 1
    told = {e.case: e.metrics.error_over_bound for e in held if e.metrics}
    assert {"33"} < told.keys()
    assert max(told.values()) == 199 / 200
    assert [e.case for e in held if e.status is Status.NOTRUN] == ["44"]
    assert [int(e.case) for e in held] == sorted(int(e.case) for e in held)


@pytest.mark.slow
def test_a_data_set_larger_than_what_may_be_held_is_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole way, from the file to the verdict: what Python and NumPy hold never comes near the data."""
    monkeypatch.setattr(fit, "PIECE_BYTES", 1 << 17)
    monkeypatch.setattr(stream, "BATCH_BYTES", 1 << 18)
    x = np.random.default_rng(0).standard_normal((60_000, 3, 6, 6)).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    size, count = x.nbytes, len(x)
    del x
    model = network(native())
    data = Data(tmp_path / "x.npz", input_specs(model))
    compare(model, model, cases=Data(tmp_path / "x.npz", input_specs(model), limit=2))  # imports and caches
    tracemalloc.start()
    try:
        report = compare(model, network(RIGHT["instance norm"]), cases=data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert report.held
    samples = [name for name in report.sites[0].cases if name.startswith("x[")]
    assert samples[-1].endswith(f":{count}]")
    assert peak < size / 1.5, "13 MB of a batch's working set, whatever the data's size; these are 26 MB"
