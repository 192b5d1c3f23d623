"""Formats in their order, and rounding to them."""

import numpy as np

from gn_deploy.rounding import FORMATS, below, coarser, rounded


def test_tf32_is_rounded_half_to_even() -> None:
    ulp = np.float32(2**-10)
    values = np.array([1 + ulp / 2, 1 + 3 * ulp / 2, 1 + ulp / 4, -1 - 3 * ulp / 4, np.inf, np.nan], np.float32)
    np.testing.assert_array_equal(rounded(values, "tf32"), np.float32([1, 1 + 2 * ulp, 1, -1 - ulp, np.inf, np.nan]))


def test_tf32_of_float64_overflows_where_float32_does() -> None:
    values = np.array([3.4028235e38, -1e39, 1e-50, 1 + 2.0**-40])
    np.testing.assert_array_equal(rounded(values, "tf32"), [np.inf, -np.inf, 0.0, 1.0])


def test_the_coarser_and_the_lower_formats() -> None:
    assert list(below("float32")) == ["tf32", "float16", "bfloat16"]
    assert coarser("float32", "no format", "bfloat16", "float16") == "bfloat16"


def test_the_numbers_of_a_format_are_numpys() -> None:
    import ml_dtypes

    for name in set(FORMATS) - {"tf32"}:
        found = ml_dtypes.finfo(name)
        assert (2 * FORMATS[name].u, FORMATS[name].largest) == (float(found.eps), float(found.max))
        assert FORMATS[name].least == float(found.smallest_subnormal)
