"""Whether two values of a graph are provably equal."""

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from gn_deploy.graph.derive import REDUCTIONS
from gn_deploy.graph.fold import integer
from gn_deploy.graph.nodes import is_plain

if TYPE_CHECKING:
    from gn_deploy.graph.facts import Facts

_RANDOM = frozenset(
    "RandomNormal RandomNormalLike RandomUniform RandomUniformLike Multinomial Bernoulli Dropout".split()
)
_INTEGERS = (ir.DataType.INT64, ir.DataType.INT32)


def same(a: ir.Value, b: ir.Value, facts: "Facts") -> bool:
    """Whether two values are provably equal: the same value, or the same operation on equal values."""
    left, right = facts.constant(a), facts.constant(b)
    if left is not None and right is not None:
        return left.dtype == right.dtype and left.shape == right.shape and bool(np.array_equal(left, right))
    told = facts.contents(a) if a.dtype in _INTEGERS and a.dtype == b.dtype else None
    if told is not None and told == facts.contents(b) and facts.shape(a) == facts.shape(b) is not None:
        return True
    p, q = a.producer(), b.producer()
    for node, other in ((p, b), (q, a)):
        if node is not None and node.op_type == "Identity" and is_plain(node) and node.inputs[0] is not None:
            return facts.same(node.inputs[0], other)
    if p is None or q is None or p.op_identifier() != q.op_identifier() or a.index() != b.index():
        return False
    if not is_plain(p) or not is_plain(q) or p.op_type in _RANDOM:
        return False
    if p.op_type in REDUCTIONS:  # axes may be spelled -1 here and 2 there
        axes = facts.axes(p)
        equal = axes is not None and axes == facts.axes(q) and integer(p, "keepdims", 1) == integer(q, "keepdims", 1)
        return equal and p.inputs[0] is not None and q.inputs[0] is not None and facts.same(p.inputs[0], q.inputs[0])
    if len(p.inputs) != len(q.inputs) or p.attributes.keys() != q.attributes.keys():
        return False
    if any(p.attributes[k].value != q.attributes[k].value for k in p.attributes):
        return False
    pairs = zip(p.inputs, q.inputs, strict=True)
    return all(x is y or (x is not None and y is not None and facts.same(x, y)) for x, y in pairs)
