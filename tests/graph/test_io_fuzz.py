"""Damaged files: whatever the bytes are, loading gives a model that can be used or an InputError."""

import logging
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from gn_deploy.errors import InputError
from gn_deploy.graph.io import load, save
from gn_deploy.graph.normalize import normalize

RICH = """
<ir_version: 10, opset_import: ["" : 18, "own" : 1], producer_name: "me", metadata_props: ["k": "v"]>
main (float[N, 4] x, bool c) => (float[N, 4] y)
<float[4] w = {1, 2, 3, 4}, int64[2] s = {-1, 4}>
{
    a = Add (x, w)
    d = own.twice <factor = 2.0> (a)
    e = Reshape <allowzero = 1> (d, s)
    k = Constant <value_floats = [1.0, 2.0, 3.0, 4.0]> ()
    f = Mul (e, k)
    y = If (c) <
        then_branch = one () => (float[N, 4] p) { p = Identity (f) },
        else_branch = two () => (float[N, 4] q) <float[4] z = {0, 0, 0, 1}> { q = Sub (f, z) }
    >
}
<domain: "own", opset_import: ["" : 18]>
twice <factor> (v) => (r) { t = Constant <value_float: float = @factor> () r = Mul (v, t) }
"""


def rich() -> bytes:
    """A small model with weights, a function, a subgraph, an attribute of each common kind, and a raw tensor."""
    proto = onnx.parser.parse_model(RICH)
    proto.graph.initializer.append(numpy_helper.from_array(np.arange(6, dtype=np.float16).reshape(2, 3), "half"))
    proto.graph.value_info.append(helper.make_tensor_value_info("a", 1, ["N", 4]))
    return proto.SerializeToString()


VALID = rich()
few = settings(
    deadline=None,
    max_examples=150,
    derandomize=True,  # the same bytes on every machine: a failure is a failure for everybody
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


def survives(data: bytes, folder: Path) -> bool:
    """Whether ``data`` is a model; then it must be possible to read all of it, normalize it and write it."""
    path = folder / "in.onnx"
    path.write_bytes(data)
    try:
        model = load(path)
        for value in model.graph.initializers.values():
            assert value.const_value is not None
            value.const_value.numpy()
        save(model, folder / "same.onnx")
    except InputError as error:
        if not error.message or "\n" in str(error):
            raise AssertionError("an error is one line") from error
        return False
    load(folder / "same.onnx")
    try:
        normalize(model)
    except InputError:
        return False
    save(model, folder / "out.onnx")
    load(folder / "out.onnx")
    return True


def test_the_undamaged_model_is_a_model(tmp_path: Path) -> None:
    assert survives(VALID, tmp_path)


@few
@given(data=st.binary(max_size=300))
def test_random_bytes(data: bytes, tmp_path: Path) -> None:
    survives(data, tmp_path)


@few
@given(length=st.integers(0, len(VALID) - 1))
def test_truncations(length: int, tmp_path: Path) -> None:
    survives(VALID[:length], tmp_path)


@few
@given(
    edits=st.lists(st.tuples(st.integers(0, len(VALID) - 1), st.integers(0, 255)), min_size=1, max_size=3),
)
def test_changed_bytes(edits: list[tuple[int, int]], tmp_path: Path) -> None:
    data = bytearray(VALID)
    for position, byte in edits:
        data[position] = byte
    survives(bytes(data), tmp_path)


@few
@given(start=st.integers(0, len(VALID) - 1), size=st.integers(1, 8), new=st.binary(max_size=8))
def test_cut_and_inserted_bytes(start: int, size: int, new: bytes, tmp_path: Path) -> None:
    survives(VALID[:start] + new + VALID[start + size :], tmp_path)
