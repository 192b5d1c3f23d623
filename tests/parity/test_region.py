"""What the nodes tell about the order of sums."""

import numpy as np
import onnx_ir as ir
import pytest

from gn_deploy.parity.region import sums_serially


def _reduce(op: str, axes: list[int] | None, *, as_input: bool, rank: int | None = 4) -> ir.Node:
    x = ir.Value(name="x", shape=None if rank is None else ir.Shape([2] * rank))
    if axes is None or not as_input:
        return ir.node(op, [x], {} if axes is None else {"axes": axes})
    given = ir.Value(name="axes", const_value=ir.tensor(np.array(axes)))
    return ir.node(op, [x, given])


@pytest.mark.parametrize("as_input", [True, False])
@pytest.mark.parametrize(
    ("axes", "serial"), [([1, 2], True), ([-3, -2], True), ([2, 3], False), ([-1], False), ([0], True), ([1, 3], True)]
)
def test_axes_that_are_not_innermost(axes: list[int], serial: bool, as_input: bool) -> None:
    assert sums_serially([_reduce("ReduceMean", axes, as_input=as_input)]) is serial


def test_what_is_not_told_counts_as_innermost() -> None:
    assert not sums_serially([_reduce("ReduceMean", [1], as_input=True, rank=None)])
    assert not sums_serially([_reduce("ReduceMean", None, as_input=False)])
    assert not sums_serially([_reduce("ReduceMax", [1], as_input=True)])
    assert sums_serially([_reduce("ReduceMax", [1], as_input=True), _reduce("ReduceSum", [1], as_input=True)])
