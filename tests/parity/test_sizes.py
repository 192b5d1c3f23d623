"""Sizes of dynamic dimensions: which are tried, and what it means when one is refused."""

import math
from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gn_deploy.errors import InputError
from gn_deploy.parity import subject as subjects
from gn_deploy.parity.cases import InputSpec, bind
from gn_deploy.parity.harness import compare
from gn_deploy.parity.oracle import reference_runtime
from gn_deploy.parity.sizes import MOST, automatic, combined, drawn
from gn_deploy.parity.status import Status
from gn_deploy.runtimes.base import Array, RuntimeFailure
from tests.parity.spellings import RIGHT, Graph, _model, native, network

IMAGE = InputSpec("image", "float32", ("batch", 3, "h", "w"))
STEP = InputSpec("step", "int64", ("batch",))
NAMES = st.sampled_from(["batch", "h", "w"])


@given(dims=st.dictionaries(NAMES, st.lists(st.integers(1, 5), min_size=1, max_size=3)))
def test_every_combination_is_drawn_once_with_its_shape(dims: dict[str, list[int]]) -> None:
    chosen = combined(dims)
    assert len(chosen) == math.prod(len(set(sizes)) for sizes in dims.values())
    assert len({tuple(c.items()) for c in chosen}) == len(chosen)
    cases = list(drawn([IMAGE, STEP], dims=dims))
    assert len(cases) == 4 * len(chosen)
    assert len({c.name for c in cases}) == len(cases)
    for i, sizes in enumerate(chosen):
        usual = {"batch": 2, "h": 32, "w": 32} | sizes
        for case in cases[4 * i : 4 * i + 4]:
            assert case.feeds["image"].shape == (usual["batch"], 3, usual["h"], usual["w"])
            assert case.feeds["step"].shape == (usual["batch"],)
            assert bool(case.size) == (len(chosen) > 1)
            assert all(f"{name}={size}" in case.size for name, size in sizes.items()) or len(chosen) == 1


@given(fixed=st.dictionaries(NAMES, st.integers(1, 40)))
def test_automatic_sizes_leave_what_is_fixed(fixed: dict[str, int]) -> None:
    found = automatic([IMAGE, STEP], fixed)
    assert all(sizes.items() >= fixed.items() for sizes in found)
    assert found[0] == fixed
    assert len(found) == len({tuple(sorted(sizes.items())) for sizes in found})
    free = {"batch", "h", "w"} - fixed.keys()
    for name in free:
        assert any(sizes.get(name) == 1 for sizes in found), f"{name} is never 1"
        assert any(sizes.get(name, 2) % 2 and sizes[name] > 1 for sizes in found if name in sizes), (
            f"{name} is never odd"
        )
    if {"h", "w"} <= free:
        assert any(sizes.get("h") != sizes.get("w") for sizes in found)


def test_what_has_nothing_free_is_drawn_as_it_is() -> None:
    static = InputSpec("image", "float32", (2, 3, 8, 8))
    assert {c.size for c in drawn([static], sizes="auto")} == {""}
    assert {c.feeds["image"].shape for c in drawn([IMAGE], [static], sizes="auto")} == {(2, 3, 8, 8)}
    cases = drawn([IMAGE], [InputSpec("x", "float32", ("n", 3, 8, 8))], sizes="auto")
    assert {c.feeds["image"].shape for c in cases} == {(n, 3, 8, 8) for n in (1, 2, 3)}


def test_sizes_without_a_name_have_one() -> None:
    nameless = InputSpec("image", "float32", (None, 3, None, 8))
    assert bind([nameless])[0].shape == (2, 3, 32, 8)
    assert bind([nameless], {"image[2]": 5})[0].shape == (2, 3, 5, 8)
    with pytest.raises(InputError, match="no input has a dim named 'h'") as refused:
        list(drawn([nameless], dims={"h": 3}))
    assert "image[0], image[2]" in refused.value.hint


@pytest.mark.parametrize(
    ("dims", "words"),
    [
        ({"h": 0}, "'h' is given 0"),
        ({"h": []}, "no size"),
        ({"h": range(1, 9), "w": range(1, 10)}, f"more than {MOST}"),
    ],
)
def test_sizes_that_cannot_be(dims: Mapping[str, int], words: str) -> None:
    with pytest.raises(InputError, match=words):
        drawn([IMAGE], dims=dims)
    with pytest.raises(InputError, match="only word is auto"):
        drawn([IMAGE], sizes="all")


def fixed_rows(spelling: object = None) -> ir.Model:
    """A network that takes any batch but breaks for 3 samples: it cuts the batch into pairs and puts it together."""
    g = Graph()
    (spelling or native())(g, "x", "norm1")  # type: ignore[operator]
    pairs = g.add("Reshape", ["norm1", g.constant(np.array([-1, 2, 8, 36]))], "pairs")
    g.add("Reshape", [pairs, g.constant(np.array([-1, 8, 6, 6]))], "y")
    return _model(g, "x", ["N", 8, 6, 6], "y", ["N", 8, 6, 6])


def test_a_size_that_the_reference_refuses_is_told_and_not_counted() -> None:
    report = compare(fixed_rows(), fixed_rows(RIGHT["instance norm"]), dims={"N": (2, 3, 4)})
    assert report.held
    (tried, left_out) = report.notes
    assert tried == "judged at N=2; N=4"
    assert left_out.startswith("not run at N=3: the reference does not take it: ")
    assert not any("N=3" in name for v in report.sites for name in v.cases)
    assert any("N=4" in name for v in report.sites for name in v.cases)


def test_a_size_that_only_the_candidate_refuses_breaks_parity(monkeypatch: pytest.MonkeyPatch) -> None:
    class Picky:
        """Takes any batch but one, and has to be opened again after it."""

        name, dead = "picky", False

        def probe(self) -> object:
            return reference_runtime().probe()

        def open(self, model: object, *, precision: str | None = None) -> object:
            session, own = reference_runtime().open(model), reference_runtime().open(model).run

            def run(feeds: Mapping[str, Array]) -> dict[str, Array]:
                if session.__dict__.get("dead") or next(iter(feeds.values())).shape[0] == 1:
                    session.__dict__["dead"] = True
                    raise RuntimeFailure("one sample is too few")
                return own(feeds)

            session.run = run
            return session

    class Registry:
        def get(self, name: str) -> object:
            return Picky()

    monkeypatch.setattr(subjects, "RUNTIMES", Registry())
    report = compare(network(native()), network(RIGHT["layer norm"]), runtimes=["openvino"], sizes="auto")
    assert not report.held
    assert report.runtimes[0].status is Status.CRASH
    assert report.runtimes[0].reason == "it does not take N=1: one sample is too few"
    assert {v.status for v in report.sites} == {Status.PASS}
    assert any("N=3" in name for name in report.sites[0].cases)
    assert {v.status for v in report.outputs} == {Status.PASS}


def test_a_fault_that_only_one_size_shows_is_found() -> None:
    """Statistics over the batch are right for one sample."""
    g = Graph()
    flat = g.add("Reshape", ["x", g.constant(np.array([0, 4, -1]))], "flat")
    axes = g.constant(np.array([0, 2]))
    mean = g.add("ReduceMean", [flat, axes], "mean", keepdims=1)
    centred = g.add("Sub", [flat, mean], "centred")
    var = g.add("ReduceMean", [g.add("Mul", [centred, centred], "square"), axes], "var", keepdims=1)
    std = g.add("Sqrt", [g.add("Add", [var, g.constant(np.float32(1e-5))], "sum")], "std")
    back = g.add("Reshape", [g.add("Div", [centred, std], "z"), g.add("Shape", ["x"], "size")], "back")
    g.add("Identity", [back], "y")
    mixed = _model(g, "x", ["N", 8, 6, 6], "y", ["N", 8, 6, 6])
    h = Graph()
    native(scale=np.ones(8, np.float32), bias=np.zeros(8, np.float32))(h, "x", "y")
    right = _model(h, "x", ["N", 8, 6, 6], "y", ["N", 8, 6, 6])
    report = compare(right, mixed, dims={"N": (1, 3)})
    (site,) = report.sites
    assert site.cases["normal at N=1"] < 1 < site.cases["normal at N=3"]
    assert not report.held
