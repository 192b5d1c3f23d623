"""Less precision than promised is LOWPREC and says which; another function is not, however small the difference."""

import numpy as np
import pytest

from gn_deploy.faults import FAULTS
from gn_deploy.parity.cases import deal, hands
from gn_deploy.parity.lower_precision import Lower, Shown
from gn_deploy.parity.per_site import Evidence, judge_arrays, settled
from gn_deploy.parity.promise import Promise
from gn_deploy.parity.status import Status, worst
from gn_deploy.rounding import rounded
from gn_deploy.spec import Activation, GroupNormSpec
from tests.parity.implementations import RIGHT, Array, Implementation

FLOAT32 = Promise(written=("float32",))
SHAPES = [((2, 16, 7, 9), 4), ((1, 8, 24, 24), 2)]


def judged(
    compute: Implementation, shape: tuple[int, ...], groups: int, promise: Promise = FLOAT32
) -> tuple[Status, str]:
    spec = GroupNormSpec(groups, shape[1])
    rng = np.random.default_rng(0)
    scale, bias = rng.standard_normal((2, shape[1])).astype(np.float32)
    evidence: list[Evidence] = []
    for x, hand in zip(deal(shape, spec), hands(shape, spec), strict=True):
        with np.errstate(all="ignore"):
            y = compute(x, spec, scale, bias).astype(np.float32)
        evidence += judge_arrays(x, y, spec, scale, bias, case="probe", hand=hand, promise=promise)
    evidence, precision = settled(evidence, promise)
    return worst(e.status for e in evidence), precision


def _input(dtype: str) -> Implementation:
    return lambda x, spec, w, b: RIGHT["pairwise"](rounded(x, dtype), spec, w, b)


def _parameters(dtype: str) -> Implementation:
    return lambda x, spec, w, b: RIGHT["pairwise"](x, spec, rounded(w, dtype), rounded(b, dtype))


LOW: dict[str, tuple[Implementation, set[str]]] = {
    "bfloat16 arithmetic": (FAULTS["bfloat16 arithmetic"].compute, {"bfloat16"}),
    "float16 arithmetic": (FAULTS["float16 arithmetic"].compute, {"float16", "tf32"}),  # as many bits
    "TF32 arithmetic": (FAULTS["TF32 arithmetic"].compute, {"tf32"}),
    "stored in bfloat16": (FAULTS["stored in bfloat16"].compute, {"bfloat16"}),
    "stored in float16": (FAULTS["stored in float16"].compute, {"float16", "tf32"}),
    "input in bfloat16": (_input("bfloat16"), {"bfloat16"}),
    "parameters in bfloat16": (_parameters("bfloat16"), {"bfloat16"}),
}


@pytest.mark.parametrize(("shape", "groups"), SHAPES)
@pytest.mark.parametrize("name", LOW)
def test_it_is_named(name: str, shape: tuple[int, ...], groups: int) -> None:
    compute, precisions = LOW[name]
    status, precision = judged(compute, shape, groups)
    assert status is Status.LOWPREC
    assert precision in precisions


def _one_channel(x: Array, spec: GroupNormSpec, scale: Array, bias: Array) -> Array:
    return RIGHT["pairwise"](x, spec, scale * np.where(np.arange(len(scale)) == 1, np.float32(1.001), 1), bias)


def _one_element(x: Array, spec: GroupNormSpec, scale: Array, bias: Array) -> Array:
    y = RIGHT["pairwise"](x, spec, scale, bias)
    y.reshape(-1)[7] += np.float32(0.01)
    return y


OTHER: dict[str, Implementation] = {
    name: FAULTS[name].compute
    for name in ("epsilon x10", "epsilon /10", "unbiased variance", "half the groups", "affine one channel off",
                 "last element left out", "approximate root", "one element stale")
} | {"one channel 0.1 % off": _one_channel, "one element 0.01 off": _one_element}  # fmt: skip
"""The smaller of them are well inside the bound of bfloat16 on these shapes."""


@pytest.mark.parametrize(("shape", "groups"), SHAPES)
@pytest.mark.parametrize("name", OTHER)
def test_another_function_is_a_failure(name: str, shape: tuple[int, ...], groups: int) -> None:
    assert judged(OTHER[name], shape, groups) == (Status.FAIL, "")


def test_what_one_pass_arithmetic_explains_needs_no_lower_precision() -> None:
    """Rounded inputs explain a NaN on a constant image as well; a runtime that admits it is taken at its word."""
    mark = Lower(("bfloat16",), (Shown(1, "bfloat16", "it is right for its input rounded to bfloat16"),))
    evidence = [Evidence("probe constant", Status.UNSTABLE, lower=mark)]
    assert settled(evidence, FLOAT32) == (evidence, "")
    assert settled(evidence, FLOAT32.heard("bfloat16"))[1] == "bfloat16"
    with_a_failure = [*evidence, Evidence("probe offset", Status.FAIL, lower=mark)]
    assert settled(with_a_failure, FLOAT32)[1] == "bfloat16"


def test_one_pass_arithmetic_stays_unstable() -> None:
    assert judged(FAULTS["one-pass variance"].compute, *SHAPES[0]) == (Status.UNSTABLE, "")


@pytest.mark.parametrize("name", ["pairwise", "24 lanes", "fused"])
def test_what_was_promised_passes(name: str) -> None:
    assert judged(RIGHT[name], *SHAPES[0]) == (Status.PASS, "")


def test_what_the_runtime_admits_needs_no_mark() -> None:
    """A slope of one group is no mark of rounding; a runtime that says bfloat16 is taken at its word."""
    name = "approximate root"
    assert judged(FAULTS[name].compute, *SHAPES[0])[0] is Status.FAIL
    admitted = FLOAT32.heard("bfloat16")
    assert admitted.admitted == "bfloat16"
    assert judged(FAULTS[name].compute, *SHAPES[0], admitted) == (Status.LOWPREC, "bfloat16")
    assert judged(FAULTS["epsilon x10"].compute, *SHAPES[0], admitted)[0] is Status.FAIL


def test_what_was_asked_for_is_the_promise() -> None:
    asked = Promise("bfloat16", ("float32",)).heard("bfloat16")

    def both(x: Array, spec: GroupNormSpec, scale: Array, bias: Array) -> Array:
        return RIGHT["pairwise"](rounded(x, "bfloat16"), spec, *(rounded(p, "bfloat16") for p in (scale, bias)))

    assert judged(both, *SHAPES[0], asked)[0] is Status.PASS
    assert judged(FAULTS["epsilon x10"].compute, *SHAPES[0], asked)[0] is Status.FAIL


def test_a_promise_listens() -> None:
    float32 = Promise(written=("float32",))
    assert float32.heard("float32").admitted == ""
    assert float32.heard("float32+tf32").admitted == "tf32"
    assert Promise("bfloat16", ("float32",)).heard("float32").asked == ""  # better than asked: judged as what it is
    assert Promise(written=("float16",)).heard("float32").admitted == ""
    assert Promise().heard("float16").admitted == ""  # an engine is promised as it is
    assert Promise().heard("float32+tf32").admitted == "tf32"


def test_a_smooth_difference_is_no_rounding() -> None:
    """GELU and its tanh approximation are up to 4.7e-4 apart, well inside the bound of bfloat16."""
    from gn_deploy.reference import activate

    spec = GroupNormSpec(4, 16, activation=Activation.GELU)
    x = np.random.default_rng(0).standard_normal((2, 16, 8, 8)).astype(np.float32)
    plain = RIGHT["pairwise"](x, spec, np.ones(16, np.float32), np.zeros(16, np.float32)).astype(np.float64)
    y = activate(plain, Activation.GELU_TANH).astype(np.float32)
    evidence, _ = settled(judge_arrays(x, y, spec, case="mine"), FLOAT32)
    assert [e.status for e in evidence] == [Status.FAIL]


def test_data_without_a_number_is_not_a_pass() -> None:
    spec = GroupNormSpec(2, 4)
    x = np.full((1, 4, 8), np.nan, np.float32)
    (evidence,) = judge_arrays(x, x, spec, case="mine")
    assert (evidence.status, evidence.reason) == (Status.NOTRUN, "it holds no number")
    assert judge_arrays(x, np.zeros_like(x), spec, case="mine")[0].status is Status.NAN
    x[0, :2] = np.random.default_rng(0).standard_normal((2, 8))
    y = RIGHT["pairwise"](x, spec, np.ones(4, np.float32), np.zeros(4, np.float32))
    assert judge_arrays(x, y, spec, case="mine")[0].status is Status.PASS  # the other group is one
