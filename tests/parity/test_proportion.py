"""Exact bounds of a proportion against scipy's beta quantile."""

import pytest
from scipy.stats import beta

from gn_deploy.parity.proportion import clopper_pearson_lower


@pytest.mark.parametrize(
    ("k", "n"), [(1, 1), (540, 540), (539, 540), (1, 10), (5, 10), (990, 1000), (20_000, 20_000), (12_345, 20_000)]
)
def test_clopper_pearson_is_the_beta_quantile(k: int, n: int) -> None:
    assert clopper_pearson_lower(k, n) == pytest.approx(beta.ppf(0.05, k, n - k + 1), rel=1e-9)


def test_nothing_right_bounds_nothing() -> None:
    assert clopper_pearson_lower(0, 10) == 0.0
    assert clopper_pearson_lower(0, 0) == 0.0
