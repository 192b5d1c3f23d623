"""What surrounds the judgement: crashes, missing oracles, chunks of taps, run-time parameters, half precision."""

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
import pytest

from gn_deploy.decision import Accepted, Rejected
from gn_deploy.errors import InputError
from gn_deploy.graph.cut import cut
from gn_deploy.parity import harness, in_place
from gn_deploy.parity import probe as probing
from gn_deploy.parity import subject as subjects
from gn_deploy.parity.cases import Case, input_specs, model_cases
from gn_deploy.parity.end_to_end import EndToEnd, decisions
from gn_deploy.parity.families import FAMILIES
from gn_deploy.parity.harness import Subject, compare, judge
from gn_deploy.parity.inputs import match_inputs
from gn_deploy.parity.oracle import open_oracle, reference_runtime
from gn_deploy.parity.report import OutputVerdict
from gn_deploy.parity.status import Status
from gn_deploy.runtimes.base import Array, Probe, RuntimeFailure, TimeLimitExceeded
from gn_deploy.runtimes.isolated import Limits
from gn_deploy.sites import find
from tests.parity.spellings import CHANNELS, GROUPS, RIGHT, Graph, alone, native, network, with_dynamic_scale


class Broken:
    """A runtime that opens everything and fails at its first run."""

    name, runtime, precision = "broken", "broken", "float32"

    def probe(self) -> Probe:
        return Probe(self.name, "1", Accepted(), Rejected("no"))

    def open(self, model: object, *, precision: str | None = None) -> "Broken":
        return self

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        raise RuntimeFailure("it fell over")

    def close(self) -> None:
        pass


class Registry:
    def __init__(self, runtime: object) -> None:
        self.runtime = runtime

    def get(self, name: str) -> object:
        return self.runtime


def test_a_crash_is_a_verdict_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def get(name: str) -> object:
        return Broken() if name == "openvino" else reference_runtime()

    registry = Registry(None)
    monkeypatch.setattr(registry, "get", get)
    monkeypatch.setattr(subjects, "RUNTIMES", registry)
    report = compare(alone(native()), alone(native()), runtimes=("openvino", "onnx-reference"))
    assert [v.status for v in report.runtimes] == [Status.CRASH, Status.PASS]
    assert "fell over" in report.runtimes[0].reason
    assert not report.held


def test_without_an_oracle_the_sites_still_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(model: ir.Model) -> None:
        raise RuntimeFailure("an operator it does not know")

    monkeypatch.setattr(harness, "open_oracle", refuse)
    report = compare(network(native()), network(native()))
    assert report.held
    assert {v.status for v in report.outputs} == {Status.NOTRUN}
    assert "does not know" in report.outputs[0].reason


def test_an_oracle_that_fails_is_not_the_candidates_crash() -> None:
    model = network(native())
    report = judge(model, find(model).sites, [Subject("s", "onnx-reference", model)],
                   model_cases(input_specs(model)), oracle=Broken())  # fmt: skip
    assert report.runtimes[0].status is Status.PASS
    assert "fell over" in report.outputs[0].reason


def test_chunks_and_batches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = network(native()), network(RIGHT["instance norm"])
    whole = compare(a, b)
    monkeypatch.setattr(in_place, "TAP_BYTES", 1)
    monkeypatch.setattr(probing, "MAX_ELEMENTS", 1)
    assert compare(a, b).to_dict() == whole.to_dict()


def test_a_scale_known_at_run_time_is_judged_in_place() -> None:
    report = compare(with_dynamic_scale(alone(native())), with_dynamic_scale(alone(native())))
    assert report.held
    assert "only known at run time" in report.sites[0].reason
    wrong = compare(with_dynamic_scale(alone(native())), with_dynamic_scale(alone(native()), wrong=True))
    assert wrong.sites[0].status is Status.FAIL


def test_a_region_that_reads_the_batch_size_elsewhere_is_still_probed() -> None:
    m = network(native())
    norm = next(n for n in m.graph if n.name == "n_norm1")
    x = m.graph.inputs[0]
    size, rest = ir.node("Shape", [x], {"start": 0, "end": 1}, name="s"), ir.Value(name="rest")
    m.graph.register_initializer(ir.Value(name="tail", const_value=ir.tensor(np.array([CHANNELS, 6, 6]))))
    whole = ir.node("Concat", [size.outputs[0], m.graph.initializers["tail"]], {"axis": 0}, name="c")
    again = ir.node("Reshape", [norm.inputs[0], whole.outputs[0]], name="r", outputs=[rest])
    again.outputs[0].type, again.outputs[0].shape = norm.inputs[0].type, norm.inputs[0].shape
    m.graph.insert_before(norm, [size, whole, again])
    norm.replace_input_with(0, again.outputs[0])
    report = compare(network(native()), m)
    assert report.held
    assert any(name.startswith("probe") for name in report.sites[0].cases)


def test_a_probe_does_not_touch_the_model() -> None:
    m = network(native())
    before = {v.name: v.dtype for node in m.graph for v in node.outputs}
    compare(m, m)
    open_oracle(cut(m, ["conv1"], ["norm1"]))
    assert {v.name: v.dtype for node in m.graph for v in node.outputs} == before


def test_noise_ratio_is_about_one_for_float32_and_large_for_a_changed_weight() -> None:
    m = network(native())
    case = model_cases(input_specs(m), ["normal"])[0]
    whole = EndToEnd(m, open_oracle(m))
    right = reference_runtime().open(m).run(case.feeds)["y"]

    def got(y: Array, types: str = "float32") -> OutputVerdict:
        return whole.judge("rt", "y", {"normal": y}, [case], types=types)

    assert got(right).status is Status.PASS
    assert 0.05 < got(right).noise_ratio < 3
    moved = right + np.float32(8 * got(right).metrics.max_abs / got(right).noise_ratio)  # type: ignore[union-attr]
    assert got(moved).status is Status.WARN
    assert got(right * np.float32(1 + 1e-4)).status is Status.FAIL
    assert got(right * np.float32(1 + 1e-4), "float32+tf32").status is Status.PASS
    assert got(right + np.float32(0.1), "float32+tf32").status is Status.FAIL
    assert got(right * np.float32("nan")).status is Status.NAN


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_an_image_of_one_value_is_noisy_and_no_false_alarm(value: float) -> None:
    m = network(native())
    feeds = {"x": np.full((2, 3, 6, 6), value, np.float32)}
    report = compare(
        m, network(RIGHT["instance norm"]), runtimes=("onnxruntime",), cases=[Case("flat", feeds, "user", True)]
    )
    assert report.held
    assert report.outputs[0].status is Status.PASS


def test_a_weight_outside_the_group_norms_breaks_parity() -> None:
    """Every GroupNorm holds; the network answers otherwise all the same."""
    m = network(native())
    weight = next(n for n in m.graph if n.op_type == "Conv").inputs[1]
    assert weight is not None
    assert weight.const_value is not None
    changed = weight.const_value.numpy().copy()
    changed[0] *= np.float32(1.01)
    weight.const_value = ir.Tensor(changed, name=weight.name)
    report = compare(network(native()), m)
    assert {v.status for v in report.sites} == {Status.PASS}
    assert [v.status for v in report.outputs] == [Status.FAIL]
    assert report.outputs[0].noise_ratio > 100
    assert not report.held


def test_probes_alone_run_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was opened")

    monkeypatch.setattr(harness, "open_oracle", refuse)
    monkeypatch.setattr(subjects, "evidence_in_place", refuse)
    report = compare(network(native()), network(RIGHT["layer norm"]), network=False)
    assert report.held
    assert {v.status for v in report.outputs} == {Status.NOTRUN}
    assert all(name.startswith("probe") for v in report.sites for name in v.cases)
    assert not compare(network(native()), network(native(epsilon=1e-6)), network=False).held


def test_what_probes_alone_cannot_judge_has_not_held() -> None:
    m = with_dynamic_scale(network(native()))
    assert compare(m, m).held
    report = compare(m, m, network=False)
    assert len(report.sites) == 2
    assert len(report.unjudged) == 1
    assert not report.held


def test_a_half_precision_candidate_is_judged_in_half_precision() -> None:
    def half(m: ir.Model) -> ir.Model:
        for value in [*m.graph.inputs, *m.graph.outputs]:
            value.type = ir.TensorType(ir.DataType.FLOAT16)
        for value in m.graph.initializers.values():
            if value.const_value.dtype == ir.DataType.FLOAT:
                value.const_value = ir.Tensor(value.const_value.numpy().astype(np.float16), name=value.name)
                value.type = ir.TensorType(ir.DataType.FLOAT16)
        for node in m.graph:
            for value in node.outputs:
                value.type = ir.TensorType(ir.DataType.FLOAT16)
        return m

    report = compare(alone(native()), half(alone(native())))
    assert report.held, report
    assert not compare(alone(native()), half(alone(native(epsilon=1e-3)))).held
    assert not compare(alone(native()), half(alone(native(groups=GROUPS // 2)))).held


def test_inputs_are_matched_or_refused() -> None:
    a, b = alone(native()), alone(native(), names=("p", "q"))
    assert match_inputs(a, input_specs(b))["x"].name == "p"
    a.graph.inputs.append(ir.Value(name="extra", type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([1])))
    with pytest.raises(InputError, match="take 2 and 1 inputs"):
        match_inputs(a, input_specs(b))
    with pytest.raises(InputError, match="no array for input 'x'"):
        compare(alone(native()), alone(native()), cases=[Case("mine", {}, "user", True)])


def test_integer_outputs_may_differ_as_often_as_rounding_makes_them() -> None:
    want = np.arange(100)
    runs = np.stack([want, np.where(want < 3, -1, want)])
    for wrong, status in ((0, Status.PASS), (1, Status.WARN), (16, Status.WARN), (17, Status.FAIL)):
        assert decisions(np.where(want < wrong, -1, want), want, runs)[0] is status, wrong


class Slow(Broken):
    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        raise TimeLimitExceeded("it took more than 1 s while running the model")


def test_a_runtime_that_is_too_slow_is_a_verdict_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow()
    monkeypatch.setattr(subjects, "RUNTIMES", Registry(slow))
    opened: list[object] = []
    monkeypatch.setattr(slow, "open", lambda model, precision=None: opened.append(model) or slow)
    report = compare(network(native()), network(native()), runtimes=("openvino",))
    assert report.runtimes[0].status is Status.TIMEOUT
    assert "more than 1 s" in report.runtimes[0].reason
    assert report.exit_code == 1
    opened.clear()
    probes = compare(network(native()), network(native()), runtimes=("openvino",), network=False)
    assert [v.status for v in probes.sites] == [Status.TIMEOUT, Status.NOTRUN]
    assert "not tried after another" in probes.sites[1].reason
    assert len(opened) == 2, "both at once, then the first alone: the limit is not paid for each"


def test_a_process_of_its_own_changes_no_number() -> None:
    a, b = network(native()), network(RIGHT["instance norm"])
    here = compare(a, b, runtimes=("onnxruntime", "openvino", "onnx-reference"))
    assert [v.process for v in here.runtimes] == ["shared", "own", "shared"]
    there = compare(a, b, runtimes=("onnxruntime", "openvino", "onnx-reference"), limits=Limits())
    assert [v.process for v in there.runtimes] == ["own"] * 3
    assert there.sites == here.sites
    assert there.outputs == here.outputs


def test_a_group_norm_right_behind_another_is_probed_on_its_own() -> None:
    """One's output is the other's input: in one model with it, what is fed would be taken for what came out."""

    def twice(g: Graph, x: str, y: str) -> None:
        native(groups=1)(g, x, "between")
        native(groups=4)(g, "between", y)

    report = compare(alone(twice), alone(twice), network=False)
    assert report.held, [v.reason for v in report.sites]
    assert all(len(v.cases) == len(FAMILIES) for v in report.sites)
