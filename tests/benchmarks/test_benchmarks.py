"""What the benchmarks measure is right: valid graphs, every site found, the numbers of each spelling correct."""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from gn_deploy.graph.io import as_model, load
from gn_deploy.graph.normalize import normalize
from gn_deploy.sites import find
from tests.benchmarks.graphs import CHANNELS, FORM, GROUPS, SPELLINGS, Writer, finished, heavy, synthetic

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("spelling", [s for s in SPELLINGS if s != "native"])
def test_each_spelling_is_group_normalization(spelling: str) -> None:
    writer = Writer()
    output = writer.norm("x", spelling)
    proto = finished(writer, output)
    x = np.random.default_rng(0).normal(3, 2, (2, CHANNELS, 16, 16)).astype(np.float32)
    (y,) = ReferenceEvaluator(proto).run(None, {"x": x})
    grouped = x.reshape(2, GROUPS, -1).astype(np.float64)
    right = (grouped - grouped.mean(-1, keepdims=True)) / np.sqrt(grouped.var(-1, keepdims=True) + 1e-5)
    channels = np.arange(CHANNELS).reshape(CHANNELS, 1, 1)
    right = right.reshape(x.shape) * (1 + channels / 64) + channels / 32
    assert np.abs(y - right).max() < 1e-5  # float32 sums of 1024 numbers; measured 2e-6


def test_the_synthetic_graph_is_valid_and_every_site_is_found() -> None:
    proto = synthetic(nodes=400, sites=10)
    onnx.checker.check_model(proto, full_check=True)
    assert len(proto.graph.node) == 400
    found = find(normalize(as_model(proto))).sites
    assert Counter(site.form for site in found) == Counter(FORM[SPELLINGS[k % len(SPELLINGS)]] for k in range(10))
    assert {(site.spec.num_groups, site.spec.num_channels) for site in found} == {(GROUPS, CHANNELS)}


def test_the_heavy_model_is_valid(tmp_path: Path) -> None:
    heavy(tmp_path / "heavy.onnx", 0.125)
    onnx.checker.check_model(tmp_path / "heavy.onnx")
    assert (tmp_path / "heavy.onnx.data").stat().st_size == 1 << 27
    assert len(find(normalize(load(tmp_path / "heavy.onnx"))).sites) == 10


@pytest.mark.slow
def test_the_benchmark_runs() -> None:
    arguments = ["--nodes", "400", "--sites", "10", "--repeat", "1", "--gigabytes", "2"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.find_and_lower", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "find + lower + clean" in done.stdout
    if memory := re.search(r"(\d+) MB more", done.stdout):
        assert int(memory[1]) < 500
