"""Test cases that others wrote, through every form and runtime here."""

import math
from collections.abc import Sequence

import pytest

from gn_deploy.graph.normalize import normalize
from gn_deploy.parity.status import Status
from gn_deploy.sites import find
from tests.forms.writing import WRITTEN
from tests.parity.others.peers import DTYPES, Peer, module_info, never_none, node_tests, op_info
from tests.parity.others.rounds import (
    BODIES,
    ONNX_RUNTIMES,
    Check,
    as_given,
    expected_over,
    in_torch,
    known,
    opset_of,
    read_back,
    rounds,
)

NODES, NO_NODES = node_tests()


def wrong(checks: Sequence[Check]) -> list[str]:
    """Everything but a pass, and what is known of a runtime."""
    return [
        f"{c.peer.name} as {c.form} on {c.runtime}: {c.status} {c.over:.3g} {c.reason}"
        for c in checks
        if c.status is not Status.PASS and not known(c)
    ]


def test_onnx_node_tests_are_all_there() -> None:
    """12 that are GroupNorms: 4 of the op and its function body, 2 InstanceNorms, 6 LayerNorms over (N, C)."""
    assert len(NODES) == 12
    assert len(NO_NODES) == 51
    assert all(expected_over(peer) <= 1 for peer in NODES)  # recorded in float32 themselves


def test_onnx_node_tests_in_every_form() -> None:
    runtimes = ("onnx-reference", "onnxruntime")
    checks = [*rounds(NODES, runtimes=runtimes), *as_given(NODES, runtimes), *in_torch(NODES)]
    assert len(checks) == 252
    assert wrong(checks) == []
    assert max(c.expected_over for c in checks) <= 1  # and not only near the oracle but near the author's answer


@pytest.mark.parametrize("case", [*NODES, *NO_NODES], ids=lambda case: case.name)
def test_onnx_node_tests_are_found_or_left_alone(case: Peer) -> None:
    """The op and its body are found as what they are; what is normalized per channel or over C alone, and what is no
    GroupNorm at all, is not touched."""
    from onnx_ir import from_proto

    sites = find(normalize(from_proto(case.model))).sites
    if not isinstance(case, Peer) or "group_norm" not in case.name:
        assert sites == ()
        return
    (site,) = sites
    spec = site.spec
    assert (spec.num_groups, spec.num_channels, spec.epsilon) == (2, 4, case.spec.epsilon)


def test_what_is_written_of_them_is_found_again() -> None:
    """Not asked of the others: rank 2 over all channels, and InstanceNorms, are written as what find() leaves alone."""
    grouped = [peer for peer in NODES if "group_norm" in peer.name]
    for form in (*WRITTEN, *BODIES):
        held = [(peer, form) for peer in grouped if opset_of(form, peer.spec)]
        assert held, form
        assert read_back(held, opset_of(form, held[0][0].spec)) == []


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
def test_torch_samples_in_every_form(dtype: str) -> None:
    """A minute each on two cores: torch's tables take half of it to be imported."""
    samples, left_out = op_info(dtype)
    peers = [*samples, *module_info(dtype)]
    assert (len(samples), len(peers), len(left_out)) == (36, 46, 12)
    checks = [*rounds(peers), *in_torch(peers)]
    assert wrong(checks) == []
    for runtime in (*ONNX_RUNTIMES, "torch"):
        assert any(c.runtime == runtime and c.status is Status.PASS for c in checks)
    assert not math.isnan(max(c.over for c in checks if c.status is Status.PASS))


@pytest.mark.slow
def test_onnx_node_tests_on_openvino() -> None:
    checks = [*rounds(NODES, runtimes=["openvino"]), *as_given(NODES, ["openvino"])]
    assert len(checks) == 96
    assert wrong(checks) == []


@pytest.mark.slow
def test_the_none_affine_samples_are_repaired() -> None:
    """torch yields weight and bias four times where it means to leave one or both out: dead code, put back here."""
    kinds = {(p.scale is None, p.bias is None) for p in op_info("float32")[0] if "group_norm" in p.name}
    assert kinds == {(a, b) for a in (True, False) for b in (True, False)}
    assert never_none(), "torch has repaired its samples: op_info may take them as they are"
