"""parity --would-notice as a user types it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

FAULTS = ("--fault", "bias dropped", "--fault", "epsilon /10")


def test_what_would_be_noticed(here: Callable[..., Any], saved: Callable[..., Path]) -> None:
    model = saved()
    ended = here("parity", model, model, "--would-notice", *FAULTS, "--in-process", "--report", "out")
    assert ended.code == 0
    assert "✓ Would it notice? 2 of 2 kinds of fault" in ended.err
    assert "bias dropped (1), epsilon /10 (1)" in ended.err
    assert "Would it notice" in Path("out/report.html").read_text() or "noticed" in Path("out/report.html").read_text()


def test_what_would_go_unnoticed(here: Callable[..., Any], saved: Callable[..., Path]) -> None:
    model = saved()
    ended = here("parity", model, model, "--would-notice", *FAULTS, "--in-process", "--atol", "3", "--json")
    document = ended.document
    assert ended.code == 1
    assert document["held"]
    deaf = next(row for row in document["noticed"] if row["fault"] == "epsilon /10")
    assert (deaf["effective"], deaf["noticed"], deaf["missed"]) == (1, 0, ["norm"])
    assert "leave out --atol" in deaf["reason"]


def test_in_a_process_of_its_own(here: Callable[..., Any], saved: Callable[..., Path], tmp_path: Path) -> None:
    model = saved()
    np.save(tmp_path / "x.npy", np.random.default_rng(0).standard_normal((1, 4, 4, 4)).astype(np.float32))
    ended = here("parity", model, model, "--would-notice", "--fault", "per channel", "--data", "x.npy", "--json")
    assert ended.code == 0
    (row,) = ended.document["noticed"]
    assert (row["seeded"], row["effective"], row["noticed"], row["named"]) == (1, 1, 1, 1)


def test_arguments_that_do_not_fit(here: Callable[..., Any], saved: Callable[..., Path]) -> None:
    model = saved()
    ended = here("parity", model, model, "--would-notice", "--fault", "bias droped")
    assert ended.code == 2
    assert "did you mean 'bias dropped'?" in ended.err
    for extra in (("--fault", "bias dropped"), ("--budget", "5")):
        ended = here("parity", model, model, *extra)
        assert ended.code == 2
        assert "add --would-notice" in ended.err
    ended = here("parity", model, model, "--would-notice", "--budget", "-1")
    assert ended.code == 2
