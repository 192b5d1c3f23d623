"""More samples than a model takes, or than should be held, are judged in several cases: the same numbers, in order."""

import math
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gn_deploy.errors import InputError
from gn_deploy.parity.cases import InputSpec
from gn_deploy.parity.sources import fit
from gn_deploy.parity.sources.data import Data

FREE = InputSpec("x", "float32", ("batch", 3, "h"))
FIXED = InputSpec("x", "float32", (2, 3, "h"))
ROWS = InputSpec("row", "int64", ("batch",))
SIZE = InputSpec("size", "int64", (2,))


@given(samples=st.integers(1, 9), rows=st.integers(1, 5), width=st.integers(1, 4), packed=st.booleans())
def test_pieces_put_together_are_the_array(samples: int, rows: int, width: int, packed: bool) -> None:
    x = np.random.default_rng(0).random((samples, 3, width)).astype(np.float32)
    row = np.arange(samples)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit, "PIECE_BYTES", rows * (x[:1].nbytes + row[:1].nbytes))
        cases = list(Data([(x, row)] if packed else {"x": x, "row": row}, [FREE, ROWS]))
    np.testing.assert_array_equal(np.concatenate([c.feeds["x"] for c in cases]), x)
    np.testing.assert_array_equal(np.concatenate([c.feeds["row"] for c in cases]), row)
    assert len(cases) == math.ceil(samples / rows)
    assert all(len(c.feeds["x"]) <= rows for c in cases)


@given(samples=st.integers(1, 9))
def test_a_fixed_batch_is_taken_over_and_over(samples: int) -> None:
    x, size = np.random.default_rng(0).random((samples, 3, 4)), np.array([5, 6])
    data = Data({"x": x, "size": size}, [FIXED, SIZE])
    if samples % 2:
        with pytest.raises(InputError, match=r"the model takes \(2, 3, h\)"):
            list(data)
        return
    cases = list(data)
    np.testing.assert_array_equal(np.concatenate([c.feeds["x"] for c in cases]), x.astype(np.float32))
    assert {len(c.feeds["x"]) for c in cases} == {2}
    assert all(c.feeds["size"].tolist() == [5, 6] for c in cases)
    assert cases[-1].name == (f"data 0[{samples - 2}:{samples}]" if samples > 2 else "data 0")


def test_nothing_is_cut_where_the_batch_is_also_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "PIECE_BYTES", 1)
    square = InputSpec("mask", "float32", ("batch", "batch"))
    (case,) = Data({"x": np.ones((4, 3, 2)), "mask": np.ones((4, 4))}, [FREE, square])
    assert case.feeds["mask"].shape == (4, 4)
    other = InputSpec("other", "float32", ("queries", 2))
    (case,) = Data({"x": np.ones((4, 3, 2)), "other": np.ones((4, 2))}, [FREE, other])
    assert case.feeds["x"].shape == (4, 3, 2)


@pytest.mark.parametrize("ending", ["npy", "npz", "compressed"])
def test_an_array_much_larger_than_a_piece_is_never_held(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit, "PIECE_BYTES", 1 << 18)
    x = np.random.default_rng(0).integers(0, 9, (512, 3, 4096)).astype(np.float32)  # 25 MB
    path = tmp_path / f"x.{'npy' if ending == 'npy' else 'npz'}"
    if ending == "npy":
        np.save(path, x)
    else:
        (np.savez if ending == "npz" else np.savez_compressed)(path, x=x)
    expected = x.sum(dtype=np.float64)
    size = x.nbytes
    del x
    tracemalloc.start()
    try:
        total = sum(float(c.feeds["x"].sum(dtype=np.float64)) for c in Data(path, [FREE]))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert total == expected
    assert peak < size / 8  # a piece, its copy, and a buffer for unpacking
