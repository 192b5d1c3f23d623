"""Whether a comparison would have noticed: what it says it would, it does, and what it would not, with the reason."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import gn_deploy as gn
from gn_deploy.decision import Accepted, Rejected
from gn_deploy.errors import ExitCode, InputError
from gn_deploy.faults import FAULTS
from gn_deploy.mutation import rehearsal
from gn_deploy.mutation.rehearsal import Rehearsal, _spread
from gn_deploy.parity import subject as subjects
from gn_deploy.parity.cases import Case, input_specs, model_cases
from gn_deploy.parity.harness import Subject, judge
from gn_deploy.parity.oracle import open_oracle, reference_runtime
from gn_deploy.parity.report import Noticed, ParityReport
from gn_deploy.runtimes.base import Array, Probe, RuntimeFailure
from gn_deploy.sites import find
from tests.parity.spellings import CHANNELS, RIGHT, instance_norm, native, network

NEUTRAL = {"scale": np.ones(CHANNELS, np.float32), "bias": np.zeros(CHANNELS, np.float32)}


def noticed(a: ir.Model, b: ir.Model, *faults: str, **options: Any) -> tuple[ParityReport, dict[str, Noticed]]:
    report = gn.would_notice(a, b, faults=faults, isolate=False, **options)
    return report, {row.fault: row for row in report.noticed}


def counts(row: Noticed) -> tuple[int, int, int, int]:
    return row.seeded, row.effective, row.noticed, row.named


def test_what_is_wrong_is_noticed_and_named() -> None:
    model = network(instance_norm())
    report, rows = noticed(model, model, "epsilon x10", "bias dropped", "activation missing", "stored in bfloat16")
    assert counts(rows["epsilon x10"]) == counts(rows["bias dropped"]) == counts(rows["stored in bfloat16"]) == (2,) * 4
    assert counts(rows["activation missing"]) == (1,) * 4  # only the first one has any
    assert rows["activation missing"].reason == "it has no activation"
    assert report.held
    assert report.exit_code is ExitCode.OK
    assert ParityReport.from_dict(report.to_dict()).noticed == report.noticed


def test_a_fault_in_a_model_written_another_way() -> None:
    _, rows = noticed(
        network(native()), network(RIGHT["layer norm"], prefix="other_"), "unbiased variance", "per channel"
    )
    assert {counts(row) for row in rows.values()} <= {(2, 2, 2, 2), (2, 2, 2, 0)}


def test_data_that_hides_a_fault_is_told_what_would_show_it() -> None:
    model = network(native(**NEUTRAL))
    report, rows = noticed(model, model, "bias dropped", "affine tiled", "NaN swallowed")
    assert {counts(row) for row in rows.values()} == {(2, 0, 0, 0)}
    assert "scale is 1 and bias is 0: --redraw-affine" in rows["bias dropped"].reason
    assert "no input brings NaN" in rows["NaN swallowed"].reason
    assert report.exit_code is ExitCode.OK  # there was nothing to notice


def test_with_other_scales_and_biases_it_does_show() -> None:
    model = network(native(**NEUTRAL))
    report, rows = noticed(model, model, "bias dropped", redraw_affine=True)
    assert counts(rows["bias dropped"]) == (2,) * 4
    assert report.held


def test_a_tolerance_that_is_too_wide_is_deaf() -> None:
    model = network(instance_norm())
    report, rows = noticed(model, model, "unbiased variance", "half the groups", atol=0.1)
    deaf = rows["unbiased variance"]
    assert (deaf.effective, deaf.noticed) == (2, 0)
    assert deaf.missed == tuple(site.name for site in reversed(find(model).sites))
    assert "leave out --atol" in deaf.reason
    assert report.held
    assert report.exit_code is ExitCode.PARITY_BROKEN


def test_what_is_broken_as_it_is_is_left_out() -> None:
    a, b = network(native()), network(native())
    second = [n for n in b.graph if n.op_type == "GroupNormalization"][1]
    second.attributes["epsilon"] = ir.AttrFloat32("epsilon", 1e-2)
    report, rows = noticed(a, b, "half the groups")
    assert counts(rows["half the groups"]) == (1, 1, 1, 1)
    assert "put that right first" in rows["half the groups"].reason
    assert not report.held


def test_the_time_that_is_given_leaves_an_even_part_undone() -> None:
    model = network(instance_norm())
    _, rows = noticed(model, model, "epsilon x10", "bias dropped", seconds=0)
    assert {counts(row) for row in rows.values()} == {(1,) * 4}
    assert "1 of 2 GroupNorms were tried in 0 seconds" in rows["epsilon x10"].reason


@pytest.mark.parametrize("count", [1, 2, 7, 53, 100])
def test_the_order_is_spread_over_the_depth(count: int) -> None:
    order = [*_spread(count)]
    assert sorted(order) == [*range(count)]
    for tried in range(3, count):
        gaps = np.diff([-1, *sorted(order[:tried]), count])
        assert gaps.max() <= 4 * count / tried


def test_a_name_that_no_fault_has() -> None:
    with pytest.raises(InputError, match="no fault is called 'espilon x10'"):
        noticed(network(native()), network(native()), "espilon x10")


def test_only_what_may_have_changed_is_judged_again(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network(instance_norm())
    probed: list[int] = []
    listened: list[int] = []
    probe, listen = subjects.probe, subjects.evidence_in_place

    def count_probes(pairs: Any, *rest: Any) -> Any:
        probed.append(len(pairs))
        return probe(pairs, *rest)

    def count_taps(pairs: Any, *rest: Any) -> Any:
        listened.append(len(pairs))
        return listen(pairs, *rest)

    monkeypatch.setattr(subjects, "probe", count_probes)
    monkeypatch.setattr(subjects, "evidence_in_place", count_taps)
    noticed(model, model, "epsilon x10")
    assert probed == [2, 1, 1]
    assert listened == [2, 1, 2]  # the last one first, then the first, whose answer reaches both


class Counting:
    """An oracle that counts its runs."""

    def __init__(self, model: ir.Model) -> None:
        self._session = open_oracle(model)
        self.runtime, self.precision, self.runs = "oracle", "float64", 0

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        self.runs += 1
        return self._session.run(feeds)

    def close(self) -> None:
        self._session.close()


def test_the_oracle_answers_each_case_once() -> None:
    model = network(instance_norm())
    oracle, cases = Counting(model), model_cases(input_specs(model), ["normal", "post_relu"])
    cases = [Case(c.name, c.feeds, c.family, True) for c in cases]
    report = judge(
        model, find(model).sites, [Subject("s", "onnx-reference", model)], cases,
        oracle=oracle, after=Rehearsal(("epsilon x10", "unbiased variance", "padding counted")),
    )  # fmt: skip
    assert [counts(row) for row in report.noticed] == [(2,) * 4] * 3
    assert oracle.runs == 2


class Picky:
    """onnx.reference without one operator."""

    name = "picky"

    def probe(self) -> Probe:
        return Probe(self.name, "1", Accepted(), Rejected("no"))

    def open(self, model: ir.Model, *, precision: str | None = None) -> Any:
        if any(node.op_type == "ScatterElements" for node in model.graph):
            raise RuntimeFailure("no kernel for ScatterElements")
        return reference_runtime().open(model)

    def build(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError


def test_what_the_runtime_cannot_run_is_no_fault_found(monkeypatch: pytest.MonkeyPatch) -> None:
    class Registry:
        def get(self, name: str) -> Picky:
            return Picky()

        require = get

    monkeypatch.setattr(subjects, "RUNTIMES", Registry())
    monkeypatch.setattr(rehearsal, "RUNTIMES", Registry())
    model = network(instance_norm())
    _, rows = noticed(model, model, "one element 5 % off", "scale dropped", runtimes=["onnx-reference"])
    assert counts(rows["one element 5 % off"]) == (0,) * 4
    assert "no kernel for ScatterElements" in rows["one element 5 % off"].reason
    assert counts(rows["scale dropped"]) == (2,) * 4


def test_without_a_runtime_nothing_is_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Registry:
        def get(self, name: str) -> Any:
            raise RuntimeFailure("gone")

    class Falls(Picky):
        def open(self, model: ir.Model, *, precision: str | None = None) -> Any:
            raise RuntimeFailure("it fell over")

    monkeypatch.setattr(Registry, "get", lambda self, name: Falls())
    monkeypatch.setattr(subjects, "RUNTIMES", Registry())
    report, rows = noticed(network(native()), network(native()), "scale dropped")
    assert counts(rows["scale dropped"]) == (0,) * 4
    assert "no runtime ran the candidate" in rows["scale dropped"].reason
    assert report.exit_code is ExitCode.PARITY_BROKEN


def test_probes_alone_notice_too() -> None:
    model = network(instance_norm())
    _, rows = noticed(model, model, "epsilon x10", "groups interleaved", network=False)
    assert {counts(row) for row in rows.values()} == {(2,) * 4}


def test_users_own_data() -> None:
    model = network(instance_norm())
    one = np.random.default_rng(0).standard_normal((1, 3, 6, 6)).astype(np.float32)
    own = [{"x": one}] * 3
    _, rows = noticed(model, model, "epsilon x10", "one element 5 % off", data=own, runtimes=["onnxruntime"])
    assert {counts(row) for row in rows.values()} == {(2,) * 4}


@pytest.mark.slow
def test_all_faults_are_tried_unless_told_otherwise() -> None:
    model = network(instance_norm())
    report = gn.would_notice(model, model, isolate=False)
    assert [row.fault for row in report.noticed] == [*FAULTS]
    assert all(row.noticed == row.named == row.effective for row in report.noticed)
    assert sum(row.effective > 0 for row in report.noticed) >= 40
