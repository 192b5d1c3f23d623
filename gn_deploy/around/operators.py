"""What ONNX's pointwise operators do to expressions, and which number a rounded constant stands for."""

import math
import operator
from collections.abc import Callable, Sequence

import onnx_ir as ir

from gn_deploy.around import expression as of
from gn_deploy.around.expression import Expression
from gn_deploy.graph.nodes import says_all

_FLOAT32_U = 2.0**-24  # unit roundoff of float32, in which every attribute is stored
_TORCH_THRESHOLD = 20.0  # from which torch takes x for softplus(x); there they differ by 2e-9, tanh of them by 1e-26
_ROUNDED = (math.sqrt(2), math.sqrt(0.5), math.sqrt(2 / math.pi), math.sqrt(8 / math.pi), 0.044715, 1 / 6)
"""The numbers that define an activation and that no binary type holds."""


def exact(stored: float, u: float) -> float:
    """What a constant was before it was rounded to a type of unit roundoff ``u``, where that can be told."""
    tolerance = 2 * u  # rounded at most twice: to the framework's type and to the file's
    return next((math.copysign(n, stored) for n in _ROUNDED if math.isclose(abs(stored), n, rel_tol=tolerance)), stored)


def read(node: ir.Node, operands: Sequence[Expression | None]) -> Expression | None:
    """What a node makes of its operands (None for one it lacks); None when that cannot be told."""
    if not says_all(node):
        return None
    try:
        if node.op_type == "Clip" and not node.domain and not node.attributes:  # limits were attributes before opset 11
            return _clip(*operands)
        match node.domain, node.op_type, *operands:
            case "", "Where", Expression() as condition, Expression() as a, Expression() as b:
                return _where(condition, a, b)
            case "", op_type, Expression() as p, Expression() as q if op_type in _BINARY and not node.attributes:
                return _BINARY[op_type](p, q)
            case "", op_type, Expression() as p if op_type in _UNARY and not node.attributes:
                return _UNARY[op_type](p)
            case _, _, Expression() as p:
                return _with_attributes(node, p)
    except ArithmeticError:
        pass
    return None


def _with_attributes(node: ir.Node, p: Expression) -> Expression | None:
    number = node.attributes.get_float
    match node.domain, node.op_type:
        case "", "Cast":
            return p
        case "", "HardSigmoid":
            alpha, beta = number("alpha", 0.2), number("beta", 0.5)
            return of.hard_sigmoid(p, exact(alpha, _FLOAT32_U), exact(beta, _FLOAT32_U))
        case "", "Swish":
            return p * of.sigmoid(p * number("alpha", 1.0))
        case "com.microsoft", "QuickGelu":  # ONNX Runtime fuses SiLU to this, with alpha 1
            return p * of.sigmoid(p * number("alpha", 1.702))
        case "", "Gelu":
            return of.gelu_tanh(p) if node.attributes.get_string("approximate", "none") == "tanh" else of.gelu(p)
        case "com.microsoft", "Gelu":
            return of.gelu(p)
        case "com.microsoft", "FastGelu":
            return of.gelu_tanh(p)
    return None


def _limit(p: Expression) -> float:
    if p.constant is None:
        raise ArithmeticError("the greater of two functions is no expression")
    return p.constant


def _maximum(p: Expression, q: Expression) -> Expression:
    return of.maximum(p, _limit(q)) if p.constant is None else of.maximum(q, p.constant)


def _minimum(p: Expression, q: Expression) -> Expression:
    return of.minimum(p, _limit(q)) if p.constant is None else of.minimum(q, p.constant)


def _clip(p: Expression | None, low: Expression | None = None, high: Expression | None = None) -> Expression | None:
    if p is not None and low is not None:
        p = _maximum(p, low)
    return p if p is None or high is None else _minimum(p, high)


def _power(p: Expression, q: Expression) -> Expression:
    match q.constant:
        case 2.0:
            return p * p
        case 3.0:
            return p * p * p
        case -1.0:
            return of.reciprocal(p)
    raise ArithmeticError("other powers are no polynomials")


def _where(condition: Expression, a: Expression, b: Expression) -> Expression | None:
    """torch's softplus: Where(x > threshold, x, softplus(x))."""
    torch = condition == of.positive(a - _TORCH_THRESHOLD) and b == of.softplus(a)
    return b if torch else None


_UNARY: dict[str, Callable[[Expression], Expression]] = {
    "Identity": lambda p: p,
    "Neg": operator.neg,
    "Reciprocal": of.reciprocal,
    "Relu": of.relu,
    "Sigmoid": of.sigmoid,
    "Tanh": of.tanh,
    "Erf": of.erf,
    "Exp": of.exp,
    "Log": of.log,
    "Softplus": of.softplus,
    "HardSwish": of.hard_swish,
    "Mish": of.mish,
}
_BINARY: dict[str, Callable[[Expression, Expression], Expression]] = {
    "Add": operator.add,
    "Sum": operator.add,
    "Sub": operator.sub,
    "Mul": operator.mul,
    "Div": lambda p, q: p * of.reciprocal(q),
    "Max": _maximum,
    "Min": _minimum,
    "Pow": _power,
    "Greater": lambda p, q: of.positive(p - q),
}
POINTWISE = frozenset("Cast Clip FastGelu Gelu HardSigmoid QuickGelu Swish Where".split()).union(_UNARY, _BINARY)
"""Ops that activations are made of."""
