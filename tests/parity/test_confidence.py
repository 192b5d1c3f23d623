"""How sure a verdict is: the numbers against SciPy, the rule against simulated rates, and what stops it."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta

from gn_deploy.errors import ExitCode, InputError
from gn_deploy.parity.cases import Case, InputSpec, fresh_cases
from gn_deploy.parity.confidence import MOST, Tally, Until
from gn_deploy.parity.harness import compare
from gn_deploy.parity.proportion import clopper_pearson_upper, trials_needed
from gn_deploy.parity.report import Confidence
from gn_deploy.reports.sentences import confidence
from tests.parity.spellings import RIGHT, native, network

SMALL = Until(rate=0.2)  # 14 inputs


@given(k=st.integers(0, 20), more=st.integers(0, 400), level=st.sampled_from([0.9, 0.95, 0.99]))
def test_the_upper_bound_is_the_beta_quantile(k: int, more: int, level: float) -> None:
    n = k + more
    expected = 1.0 if not more else beta.ppf(level, k + 1, n - k)
    assert clopper_pearson_upper(k, n, level) == pytest.approx(expected, rel=1e-9)


@given(rate=st.floats(1e-4, 0.9), level=st.floats(0.5, 0.999))
def test_just_enough_inputs_are_asked_for(rate: float, level: float) -> None:
    n = trials_needed(rate, level)
    assert (1 - rate) ** n <= (1 - level) * (1 + 1e-9)
    assert n == 1 or (1 - rate) ** (n - 1) > (1 - level) * (1 - 1e-9)
    assert clopper_pearson_upper(0, n, level) <= rate * (1 + 1e-9)


def test_the_usual_numbers() -> None:
    assert Until().needed == 299
    assert Until(level=0.99).needed == 459
    assert Until(rate=0.001).needed == 2995
    for wrong in ({"level": 1.0}, {"rate": 0.0}, {"rate": math.nan}, {"seconds": 0}, {"rate": 1e-9}):
        with pytest.raises(InputError):
            Until(**wrong)  # type: ignore[arg-type]


def _run(until: Until, broken: Iterator[bool], batch: int = 4) -> Confidence:
    """The rule alone, on inputs that break or not."""
    tally = Tally(until, clock=lambda: 0.0)
    while not tally.over:
        most = min(batch, until.needed - tally.confidence().inputs)
        tally.add(most, sum(itertools.islice(broken, most)))
    return tally.confidence()


@pytest.mark.parametrize("rate", [0.2, 0.25, 0.5])
def test_looking_after_every_batch_does_not_inflate_the_confidence(rate: float) -> None:
    """Models that break on ``rate`` of inputs or more are called right at most once in twenty."""
    rng = np.random.default_rng(0)
    trials = 1000
    fooled = sum(not _run(SMALL, iter(lambda: bool(rng.random() < rate), None)).violations for _ in range(trials))
    assert fooled / trials <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / trials)  # three standard errors
    assert rate > 0.2 or fooled / trials > 0.03  # the rule is not more careful than it says either


def test_families_in_turn_claim_no_more_than_their_mixture() -> None:
    """One family in four always breaks: it is met in the first turn."""
    turns = itertools.cycle([False, False, False, True])
    found = _run(SMALL, turns)
    assert (found.inputs, found.violations, found.settled) == (4, 1, True)


def test_fresh_inputs_are_never_the_same_and_the_same_every_time() -> None:
    spec = InputSpec("x", "float32", (1, 3, 4, 4))
    first, second = ([*itertools.islice(fresh_cases([spec]), 12)] for _ in range(2))
    assert [c.name for c in first[:5]] == ["normal 1", "offset 1", "constant 1", "small 1", "normal 2"]
    assert len({c.feeds["x"].tobytes() for c in first}) == 12
    assert all((a.feeds["x"] == b.feeds["x"]).all() for a, b in zip(first, second, strict=True))


def test_a_right_model_is_judged_on_as_many_inputs_as_it_takes() -> None:
    report = compare(network(native()), network(RIGHT["instance norm"]), until=SMALL)
    assert report.held
    sure = report.confidence
    assert sure is not None
    assert (sure.inputs, sure.violations, sure.settled, sure.reason) == (14, 0, True, "")
    assert sure.rate_below == pytest.approx(1 - 0.05 ** (1 / 14))
    assert confidence(sure) == (
        "Held on 14 inputs: with 95 % confidence fewer than 19.3 % of inputs like these break it."
    )
    assert len([name for name in report.sites[0].cases if not name.startswith("probe")]) == 14


def images(broken: int | None = None) -> Iterator[Case]:
    """Right inputs, but number ``broken`` is a NaN to the network of ``poisoned``."""
    rng = np.random.default_rng(0)
    for i in itertools.count():
        x = rng.standard_normal((1, 3, 6, 6)).astype(np.float32)
        yield Case(f"image {i}", {"x": x + 100 * (i == broken)}, "user", True)


def _clipped() -> object:
    """A network whose inputs above 50 are cut off: only one image in ``images(broken)`` shows it."""
    model = network(native())
    import onnx_ir as ir

    conv = next(n for n in model.graph if n.op_type == "Conv")
    x = model.graph.inputs[0]
    top = ir.Value(name="top", const_value=ir.tensor(np.float32(50)))
    model.graph.register_initializer(top)
    clip = ir.node("Min", [x, top], name="clip")
    clip.outputs[0].type, clip.outputs[0].shape = x.type, x.shape
    model.graph.insert_before(conv, clip)
    conv.replace_input_with(0, clip.outputs[0])
    return model


def test_the_first_violation_ends_it_and_is_repeated() -> None:
    model = _clipped()
    report = compare(network(native()), model, cases=images(9), until=SMALL)  # type: ignore[arg-type]
    assert not report.held
    sure = report.confidence
    assert sure is not None
    assert (sure.inputs, sure.violations, sure.settled) == (12, 1, True)
    assert sure.reason == "broken on input 'image 9', and again when it was repeated"
    assert confidence(sure) == f"Broken on 1 of 12 inputs ({sure.reason})."
    held = compare(network(native()), model, cases=images(), until=SMALL)  # type: ignore[arg-type]
    assert held.held
    assert held.confidence is not None
    assert held.confidence.settled


def test_what_ends_it_before_it_is_settled() -> None:
    right = network(RIGHT["layer norm"])
    report = compare(network(native()), right, cases=list(itertools.islice(images(), 3)), until=SMALL)
    assert (report.held, report.broken, report.exit_code) == (False, False, ExitCode.PARITY_BROKEN)
    few = report.confidence
    assert few == Confidence(3, 0, pytest.approx(1 - 0.05 ** (1 / 3)), 0.95, False,
                             "there was no more data after 3 of 14 inputs")  # fmt: skip
    late = compare(network(native()), right, until=replace(SMALL, seconds=1e-9)).confidence
    assert late is not None
    assert (late.inputs, late.settled) == (4, False)
    assert confidence(late).startswith("Not settled (the time was up after 4 of 14 inputs). Held on 4 inputs: ")
    absent = compare(network(native()), right, runtimes=["tensorrt"], until=SMALL).confidence
    assert absent is not None
    assert (absent.settled, absent.reason) == (False, "no runtime ran")


def test_a_rate_without_a_bound_is_refused() -> None:
    with pytest.raises(InputError, match=f"takes {trials_needed(1e-7)} inputs") as refused:
        Until(rate=1e-7)
    assert f"more than {MOST}" in refused.value.hint
