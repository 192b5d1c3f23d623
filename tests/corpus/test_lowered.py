"""Every exporter's file, written in every form, computes what the file itself computes in float64."""

import re
from collections.abc import Iterable

import onnx
import onnx_ir as ir
import pytest

import gn_deploy as gn
from gn_deploy.parity.status import Status
from gn_deploy.runtimes import RUNTIMES
from gn_deploy.runtimes.base import NoKernelError
from tests.corpus.exemplars import EXEMPLARS, LOOK_ALIKES, Exemplar, Trial

FORMS = ("native", "native18", "instance_norm", "layer_norm", "primitives", "statistics_affine")
REFUSALS = re.compile(
    "needs opset 18 to 20|is too old to be raised|ReduceMean changed between|statistics in float16|fit in float16"
)
"""Why a form may not be written: all that ONNX itself does not allow."""
ALLOWED = {
    "onnx-reference": {Status.PASS},
    "onnxruntime": {Status.PASS, Status.UNSTABLE},  # it inlines GroupNormalization with a one-pass variance
}


@pytest.mark.parametrize("part", [3, pytest.param(1, marks=pytest.mark.slow)], ids=["some", "all"])
@pytest.mark.parametrize("form", FORMS)
def test_lowered_files_compute_the_same(form: str, part: int) -> None:
    """By default one file in three in each form, others in the next form."""
    wrote, broken = judge_all(form, [(e, e.trials) for e in EXEMPLARS[FORMS.index(form) % part :: part]])
    assert not broken
    assert wrote > 45 // part


def judge_all(form: str, tried: Iterable[tuple[Exemplar, list[Trial]]]) -> tuple[int, list[str]]:
    """How many files were written in ``form``, and what was wrong."""
    broken: list[str] = []
    wrote = 0
    for exemplar, trials in tried:
        model, (decision,) = gn.lower(exemplar.model, f"onnx+{form}", verify=False)
        if decision.wrote is None:
            if not decision.decision and not REFUSALS.search(decision.decision.reason):
                broken.append(f"{exemplar.file}: {decision.decision.reason}")
            continue
        wrote += 1
        check(model)
        for runtime, allowed in ALLOWED.items():
            seen = statuses(model, runtime, trials)
            broken += [f"{exemplar.file}: {s} on {case} by {runtime}" for case, s in seen.items() if s not in allowed]
    return wrote, broken


def statuses(model: ir.Model, runtime: str, trials: Iterable[Trial]) -> dict[str, Status]:
    """The verdict on each trial; none where ONNX Runtime has no kernel."""
    try:
        session = RUNTIMES.require(runtime).open(model)
    except NoKernelError:
        return {}
    try:
        answers = ((t, next(iter(session.run(t.case.feeds).values()))) for t in trials)
        return {t.case.name: t.judge(answer, session.precision) for t, answer in answers}
    finally:
        session.close()


def check(model: ir.Model) -> None:
    """The checker and strict inference of shapes, of a deprecated GroupNormalization-18 only of what is around it."""
    checked = ir.from_proto(ir.to_proto(model))
    if model.opset_imports[""] < 21:
        for node in checked.graph.all_nodes():
            if node.op_type == "GroupNormalization":
                node.op_type = "Identity"
                node.resize_inputs(1)
                node.attributes.clear()
    proto = ir.to_proto(checked)
    onnx.checker.check_model(proto, full_check=True)
    onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)


@pytest.mark.parametrize("file", ["ts17__fp16.onnx", "ts17__gelu.onnx", "dyn21__native_gn.onnx", "dyn18__skip.onnx"])
def test_wrong_answers_are_seen(file: str) -> None:
    for trial in Exemplar(file).trials:
        right = trial.answer.astype(trial.exemplar.spec.dtype)
        wrong = right.copy()
        wrong[:, 5] = wrong[:, 5] * 1.02 + 0.02  # one channel, by 2 %: more than half precision loses
        assert trial.judge(right, trial.exemplar.spec.dtype) is Status.PASS
        assert trial.judge(wrong, trial.exemplar.spec.dtype) is not Status.PASS


@pytest.mark.parametrize("look_alike", LOOK_ALIKES, ids=lambda e: e.file.removesuffix(".onnx"))
@pytest.mark.parametrize("form", FORMS)
def test_look_alikes_are_untouched(look_alike: Exemplar, form: str) -> None:
    lowered = gn.lower(look_alike.model, f"onnx+{form}")
    assert not lowered.decisions
    assert ir.to_proto(lowered.model).SerializeToString() == ir.to_proto(look_alike.model).SerializeToString()
