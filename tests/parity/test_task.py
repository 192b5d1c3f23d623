"""The task metric against scipy's beta quantile and counted by hand."""

import numpy as np
import pytest
from scipy.stats import beta

from gn_deploy.errors import InputError
from gn_deploy.parity.proportion import clopper_pearson_lower
from gn_deploy.parity.task import judge_task


@pytest.mark.parametrize(
    ("k", "n"), [(1, 1), (540, 540), (539, 540), (1, 10), (5, 10), (990, 1000), (20_000, 20_000), (12_345, 20_000)]
)
def test_clopper_pearson_is_the_beta_quantile(k: int, n: int) -> None:
    assert clopper_pearson_lower(k, n) == pytest.approx(beta.ppf(0.05, k, n - k + 1), rel=1e-9)


def test_nothing_right_bounds_nothing() -> None:
    assert clopper_pearson_lower(0, 10) == 0.0
    assert clopper_pearson_lower(0, 0) == 0.0


def test_counts() -> None:
    reference = np.array([[2.0, 0.0], [0.0, 1.0], [1.0, 0.9], [3.0, 0.0]])
    actual = np.array([[2.1, 0.0], [0.6, 0.4], [1.0, 0.8], [np.nan, 0.0]], np.float32)
    got = judge_task("rt", reference, actual, np.array([0, 1, 1, 0]))
    assert (got.reference_value, got.value) == (0.75, 0.25)
    assert (got.agreement, got.samples) == (0.5, 4)  # the flipped one and the NaN disagree
    assert got.certified == 1  # only the first: margins 2, 1, 0.1 against 2 x 0.1, 0.6, 0.1
    assert judge_task("rt", reference, actual).metric == "agreement"


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(InputError, match="logits"):
        judge_task("rt", np.zeros((3, 2)), np.zeros((3, 4)))
    with pytest.raises(InputError, match="labels"):
        judge_task("rt", np.zeros((3, 2)), np.zeros((3, 2)), np.zeros(4, int))
