"""Labelled data through models, and the verdicts that come of it."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from gn_deploy.errors import InputError
from gn_deploy.parity.cases import InputSpec
from gn_deploy.parity.status import Status
from gn_deploy.parity.subject import Subject
from gn_deploy.parity.task.asked import asked, judge_asked
from gn_deploy.parity.task.labelled import read_labelled
from gn_deploy.parity.task.metric import METRICS
from gn_deploy.parity.task.verdict import Tally, judged, parse_drop

RNG = np.random.default_rng(0)


def verdict(before: Any, after: Any, allowed: float | None = None, metric: str = "top-1") -> Any:
    rows = [np.asarray(a, float) for a in (before, after)]
    return judged("rt", METRICS[metric], metric, *(Tally([r[:7], r[7:]]) for r in rows), allowed_drop=allowed)


def test_verdicts_of_changed_answers() -> None:
    right = np.ones(1000)
    few, many = right.copy(), right.copy()
    few[:2], many[:100] = 0, 0
    assert verdict(right, few).status is Status.NOTRUN  # nothing was asked
    passed, failed, open_ = (verdict(right, a, 0.01) for a in (few, many, right[:]))
    assert passed.status is Status.PASS
    assert failed.status is Status.FAIL
    assert failed.reason.startswith("a drop of at least 8")
    assert open_.status is Status.PASS
    assert verdict(right, right, 0.001).status is Status.WARN
    assert "about 3,900 like these would settle it" in verdict(right, right, 0.001).reason
    assert passed.difference == pytest.approx(-0.002)
    assert passed.interval[0] < -0.002 < passed.interval[1]
    assert "2 samples lost, 0 gained" in passed.reason


def test_a_gain_is_no_drop() -> None:
    before, after = np.zeros(500), np.zeros(500)
    after[:50] = 1
    assert verdict(before, after, 0.0).status is Status.PASS


def test_scores_that_are_not_numbers() -> None:
    before, after = RNG.random(50), RNG.random(50)
    broken = after.copy()
    broken[3] = np.nan
    assert verdict(before, broken, metric="ssim").status is Status.NAN
    assert "first on sample 3" in verdict(before, broken, metric="ssim").reason
    assert verdict(np.full(50, np.inf), after, metric="psnr").status is Status.NOTRUN
    assert verdict(broken, broken, 0.1, metric="ssim").status is Status.NAN  # nothing to judge either


def test_classes_that_one_batch_did_not_have() -> None:
    batches = [np.ones((7, 2, 2)), np.ones((3, 2, 4))]
    got = judged("rt", METRICS["iou"], "iou", Tally(batches), Tally([b.copy() for b in batches]))
    assert (got.reference_value, got.difference, got.interval) == (1.0, 0.0, (0.0, 0.0))


@pytest.mark.parametrize(
    ("text", "value"), [("0.5%", 0.005), ("0.005", 0.005), (0.01, 0.01), ("0.1 dB", 0.1), ("0", 0.0)]
)
def test_allowed_drops(text: str | float, value: float) -> None:
    assert parse_drop(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["-1%", "much", "nan", "inf", ""])
def test_no_allowed_drop(text: str) -> None:
    with pytest.raises(InputError, match="allowed drop"):
        parse_drop(text)


SPECS = [InputSpec("x", "float32", ("N", 3)), InputSpec("t", "int64", ("N",))]


def test_where_labelled_data_may_stand(tmp_path: Path) -> None:
    x, t, labels = RNG.random((70, 3)), np.arange(70), np.arange(70) % 5
    np.savez(tmp_path / "a.npz", x=x, t=t, labels=labels, more=x)
    np.savez(tmp_path / "b.npz", x=x, t=t, truth=labels)
    folder = tmp_path / "c"
    folder.mkdir()
    for name, array in {"x": x, "t": t, "label": labels}.items():
        np.save(folder / f"{name}.npy", array)
    np.save(tmp_path / "labels.npy", labels)
    found = [
        read_labelled(tmp_path / "a.npz", SPECS),
        read_labelled(tmp_path / "b.npz", SPECS, "truth"),
        read_labelled(folder, SPECS),
        read_labelled({"x": x, "t": t}, SPECS, tmp_path / "labels.npy"),
        read_labelled({"x": x, "t": t}, SPECS, labels),
    ]
    for data in found:
        assert data.labels is not None
        np.testing.assert_array_equal(data.labels, labels)
        assert [rows.stop for rows, _ in data.batches()] == [32, 64, 70]
        np.testing.assert_array_equal(np.concatenate([case.feeds["x"] for _, case in data.batches()]), x)
    only = read_labelled(tmp_path / "labels.npy", [InputSpec("image", "int64", ("N",))])
    assert only.labels is None
    assert list(only.inputs) == ["image"]  # a model of one input and one array


def test_a_fixed_batch_is_filled_up() -> None:
    data = read_labelled({"x": np.arange(10.0)[:, None]}, [InputSpec("x", "float32", (4, 1))])
    assert [case.feeds["x"][:, 0].tolist() for _, case in data.batches()][-1] == [8, 9, 9, 9]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"t": None}, "no array for input 't'"),
        ({"t": np.arange(9)}, "one row per sample"),
        ({"labels": np.arange(9)}, "9 of 'labels'"),
        ({"labels": np.int64(3)}, "one number"),
        ({"x": np.zeros((10, 4))}, "takes"),
        ({"x": np.zeros((0, 3)), "t": np.zeros(0, int), "labels": np.zeros(0, int)}, "holds no sample"),
    ],
)
def test_labelled_data_that_do_not_fit(change: dict[str, Any], words: str) -> None:
    arrays = {"x": np.zeros((10, 3)), "t": np.arange(10), "labels": np.arange(10)} | change
    with pytest.raises(InputError, match=words):
        read_labelled({k: v for k, v in arrays.items() if v is not None}, SPECS)


def network(bias: float = 0.0, batch: int | str = "N", outputs: int = 1) -> ir.Model:
    """x (N, 5) -> the same with ``bias`` on class 0."""
    names = ["y", "z"][:outputs]
    nodes = [helper.make_node("Add", ["x", "b"], [name]) for name in names]
    row = helper.make_tensor("b", TensorProto.FLOAT, [5], [bias, 0, 0, 0, 0])
    x, *ends = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, 5]) for name in ["x", *names])
    graph = helper.make_graph(nodes, "g", [x], ends, [row])
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10))


def told(reference: ir.Model, candidate: ir.Model, metric: Any, **options: Any) -> Any:
    task = asked(reference, candidate, metric=metric, **options)
    assert task is not None
    subjects = [Subject(name, name, candidate) for name in ("onnx-reference", "onnxruntime")]
    one, other = judge_asked(reference, subjects, task)
    assert (one.value, one.difference, one.interval) == (other.value, other.difference, other.interval)
    return one


X = RNG.normal(size=(100, 5)).astype(np.float32)
TRUTH = X.argmax(1)


@pytest.mark.parametrize("batch", ["N", 7])
def test_models_over_labelled_data(batch: int | str) -> None:
    reference, wrong = network(), network(0.5, batch)
    shifted = (X + np.array([0.5, 0, 0, 0, 0], np.float32)).argmax(1)
    got = told(reference, wrong, "top-1", data={"x": X}, labels=TRUTH, allowed_drop="1%")
    assert (got.reference_value, got.value, got.samples) == (1.0, (shifted == TRUTH).mean(), 100)
    assert got.agreement == pytest.approx((shifted == TRUTH).mean())
    assert got.status is Status.FAIL


def test_without_labels_the_reference_stands_for_them() -> None:
    got = told(network(), network(0.5), "top-1", data={"x": X})
    assert (got.reference_value, got.value) == (1.0, got.agreement)
    assert got.metric == "top-1, reference as label"
    similar = told(network(), network(0.1), "psnr", data={"x": X})
    assert similar.value == pytest.approx(20 * np.log10((X[:32].max() - X[:32].min()) / (0.1 / 5**0.5)), rel=1e-5)
    assert (similar.status, similar.interval) == (Status.NOTRUN, ())
    with pytest.raises(InputError, match="infinite"):
        told(network(), network(), "psnr", data={"x": X}, allowed_drop="1")


def test_a_function_sees_every_output() -> None:
    seen = []

    def score(outputs: Any, labels: Any) -> Any:
        seen.append(sorted(outputs))
        return (outputs["z"].argmax(1) == labels).astype(float)

    assert told(network(outputs=2), network(outputs=2), score, data={"x": X}, labels=TRUTH).value == 1.0
    assert all(names == ["y", "z"] for names in seen)


def test_a_precision_that_was_asked_for_is_what_runs() -> None:
    def rounded(outputs: Any, labels: Any) -> Any:
        return (outputs == outputs.astype(np.float16)).mean(1)

    reference = network(0.3)
    task = asked(reference, reference, metric=rounded, data={"x": X})
    assert task is not None
    subjects = [Subject(name, name, reference) for name in ("onnx-reference", "onnx-reference:fp16")]
    plain, half = judge_asked(reference, subjects, task, runtime="onnx-reference:fp16")
    assert plain.value < 0.5
    assert (half.value, half.reference_value) == (1.0, 1.0)


def test_a_runtime_that_fails_is_told() -> None:
    reference = network()
    task = asked(reference, None, metric="top-1", data={"x": X}, labels=TRUTH)
    assert task is not None
    broken = network()
    broken.graph.node(0).op_type = "NoSuchOp"
    (got,) = judge_asked(reference, [Subject("rt", "onnxruntime", broken)], task)
    assert got.status is Status.CRASH
    assert got.reason


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"metric": None, "data": None, "allowed_drop": "1%"}, "allowed_drop without a metric"),
        ({"metric": "top-1", "data": None}, "needs data"),
        ({"metric": "top-1", "data": {"x": X}, "data_range": 1.0}, "no data range"),
        ({"metric": "psnr", "data": {"x": X}, "data_range": -1.0}, "not a range"),
        ({"metric": "top-1", "data": {"x": X}, "labels": "absent"}, "no array 'absent'"),
    ],
)
def test_what_cannot_be_asked(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        asked(network(), network(), **options)
