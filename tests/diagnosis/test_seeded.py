"""The rows of the table in tests/parity/README.md: located where they were made wrong, blamed rightly, cut down."""

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from scripts.figures.located import ROWS, Seeded, rows


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.what)
def test_what_was_made_wrong_is_found(row: Seeded) -> None:
    ((what, _, _, place, fault, shown, nodes),) = rows([row])
    assert (what, place, shown) == (row.what, "yes", "yes")
    assert ", not " not in fault
    assert int(nodes) <= 8


def test_there_are_ten_at_least_and_some_are_a_runtimes_own() -> None:
    assert len(ROWS) >= 10
    assert {row.model for row in ROWS} == {"digits_resnet", "diffusion_unet"}
    assert {row.culprit for row in ROWS if row.runtime} >= {"DoubleQDQPairsRemover", ""}
