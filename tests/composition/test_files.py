"""Exporters' files as other tools rewrite them: recognised, lowered and right, or wrong before we see them."""

from collections import Counter

import onnx
import onnx_ir as ir
import pytest

import gn_deploy as gn
from gn_deploy.errors import InputError
from gn_deploy.graph.normalize import normalize
from gn_deploy.parity.region import sums_serially
from gn_deploy.parity.status import Status
from gn_deploy.runtimes import RUNTIMES
from gn_deploy.runtimes.base import NoKernelError, RuntimeFailure
from tests.composition.optimizers import CONVERTERS, OPTIMIZERS
from tests.corpus.exemplars import EXEMPLARS, GOLDEN, LOOK_ALIKES, Trial
from tests.corpus.test_lowered import FORMS

TOOLS = OPTIMIZERS | CONVERTERS
FILES = [*EXEMPLARS, *LOOK_ALIKES]
PART = 8  # of the files, one in so many by default: another part for each tool, so that all files are met
NO_KERNEL = ("spec21__native_bfloat16.onnx", "contrib__")
REFUSED = {
    "onnxsim": ("spec18__native", "spec20__native"),  # it takes no model with a deprecated operator
    "ort-basic": NO_KERNEL,  # what the CPU provider cannot run it does not optimize
    "ort-extended": NO_KERNEL,
    "ort-all": NO_KERNEL,
    "onnxscript-21": ("dyn23__", "jax2onnx__nnx_r4_op23", "spec22__", "spec23__"),  # it only goes up
}
"""Files that a tool may refuse, by how their names begin."""
WRONG = {
    "onnxoptimizer",  # takes Reshape(Reshape(x, s), [0, 0, -1]) for Reshape(x, [0, 0, -1])
    "onnxslim",  # makes the float constants of a function float64
    "onnx-21",  # keep a scale per group where it must be per channel, and drop functions
    "onnx-23",
    "onnxscript-21",  # drop epsilon, and leave ReduceMean its attribute ``axes``
    "onnxscript-23",
}
"""Tools whose models may compute something else, or be invalid."""


@pytest.mark.parametrize("part", [PART, pytest.param(1, marks=pytest.mark.slow)], ids=["some", "all"])
@pytest.mark.parametrize("tool", TOOLS)
def test_rewritten_files_are_recognised_and_lowered(tool: str, part: int) -> None:
    right = 0
    for at, exemplar in enumerate(FILES[list(TOOLS).index(tool) % part :: part]):
        try:
            made = TOOLS[tool](onnx.load(GOLDEN / exemplar.file))
        except Exception:  # each tool has exceptions of its own
            assert exemplar.file.startswith(REFUSED.get(tool, ())), f"{tool} refuses {exemplar.file}"
            continue
        if Status.FAIL in answers(ir.from_proto(made), exemplar.trials) or any(site.invalid for site in gn.find(made)):
            assert tool in WRONG, f"{tool} broke {exemplar.file}"
            continue
        right += 1
        assert kinds(made) == kinds(exemplar.model), f"{exemplar.file} after {tool}"
        form = FORMS[at % len(FORMS)]
        lowered = gn.lower(made, f"onnx+{form}")
        for decision in lowered.decisions:
            assert "not proved" not in decision.decision.reason, f"{exemplar.file}: {decision.decision.reason}"
        assert Status.FAIL not in answers(lowered.model, exemplar.trials), f"{exemplar.file} after {tool} as {form}"
    assert right > 80 / part


def kinds(model: onnx.ModelProto | ir.Model) -> Counter[tuple[int, int, float]]:
    """What is found, whatever form it has."""
    specs = [site.spec for site in gn.find(model)]
    return Counter((spec.num_groups, spec.num_channels, spec.epsilon) for spec in specs)


def answers(model: ir.Model, trials: list[Trial]) -> set[Status]:
    """What ONNX Runtime, which knows nothing of us, makes of a model, judged by the file before anybody rewrote it."""
    try:
        session = RUNTIMES.require("onnxruntime").open(model)
        told = [(t, next(iter(session.run(t.case.feeds).values()))) for t in trials]
        serial = sums_serially(normalize(model.clone()).graph)
        return {t.judge(answer, session.precision, serial=serial) for t, answer in told}
    except NoKernelError:
        return set()
    except RuntimeFailure as error:  # it inlines the op again, under names the file has
        return set() if "_inlfunc_" in error.message else {Status.FAIL}


@pytest.mark.parametrize("converter", ["onnx-21", "onnx-23"])
def test_a_scale_left_per_group_is_diagnosed(converter: str) -> None:
    made = CONVERTERS[converter](onnx.load(GOLDEN / "spec18__native_eps1e-3.onnx"))
    (site,) = gn.find(made)
    assert "were needed" in site.invalid
    with pytest.raises(InputError, match="were needed"):
        gn.lower(made, "onnx")


def test_an_epsilon_that_was_dropped_is_what_onnx_says() -> None:
    """Nothing in the file tells that it was another: the default of the standard, which is what every runtime takes."""
    made = CONVERTERS["onnxscript-21"](onnx.load(GOLDEN / "spec18__native_eps1e-3.onnx"))
    assert not any(a.name == "epsilon" for node in made.graph.node for a in node.attribute)
    assert [site.spec.epsilon for site in gn.find(made)] == [1e-5]


@pytest.mark.parametrize("tool", ["onnxoptimizer", "onnxslim"])
def test_the_comparison_fails_exactly_where_the_groups_are_not_kept(tool: str) -> None:
    """onnxoptimizer 0.4 makes 32 groups of the 8; the file takes a one-pass variance, which is UNSTABLE in any case."""
    source = onnx.load(GOLDEN / "spec21__fnbody_r3.onnx")
    made = TOOLS[tool](source)
    report = gn.compare(source, made)
    failed = Status.FAIL in {verdict.status for verdict in (*report.sites, *report.outputs)}
    assert failed is (kinds(made) != kinds(source))
