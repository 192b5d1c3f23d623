"""Pointwise functions as polynomials in x and in what erf, sigmoid and the like make of such polynomials."""

import math
from dataclasses import dataclass
from typing import NamedTuple, Union

_LARGEST = 64  # monomials; the longest activation, a cube of a sum inside a sigmoid, has 4


class Atom(NamedTuple):
    """A function applied to an expression; ``x`` itself is one without argument."""

    name: str
    argument: "Expression"


@dataclass(frozen=True, order=True, slots=True)
class Expression:
    """A sum of monomials, each a sorted product of atoms and its coefficient.

    1. Sorted, without zero coefficients: two that were built in different orders are equal.
    2. The functions below bring what is known to be equal to one form: tanh is a sigmoid, every bounded ramp a
       difference of two ReLUs, the sign and the scale of an argument stand before the function where they can.
    """

    terms: tuple[tuple[tuple[Atom, ...], float], ...] = ()

    def __add__(self, other: "Operand") -> "Expression":
        return _sum([*self.terms, *_expression(other).terms])

    def __mul__(self, other: "Operand") -> "Expression":
        return _sum([(tuple(sorted(a + b)), c * d) for a, c in self.terms for b, d in _expression(other).terms])

    def __sub__(self, other: "Operand") -> "Expression":
        return self + _expression(other) * -1.0

    def __rsub__(self, other: float) -> "Expression":
        return number(other) - self

    def __truediv__(self, other: float) -> "Expression":
        return self * (1 / other)

    def __neg__(self) -> "Expression":
        return self * -1.0

    __radd__ = __add__
    __rmul__ = __mul__

    @property
    def constant(self) -> float | None:
        """The number that an expression without x is."""
        if not self.terms:
            return 0.0
        return self.terms[0][1] if len(self.terms) == 1 and not self.terms[0][0] else None

    @property
    def leading(self) -> float:
        """The coefficient of the first monomial that is not a number."""
        return next((c for atoms, c in self.terms if atoms), 1.0)


Operand = Union[Expression, float]  # noqa: UP007 (a forward reference inside | is a string)


def number(value: float) -> Expression:
    return Expression((((), value),) if value else ())


def _expression(operand: Operand) -> Expression:
    return operand if isinstance(operand, Expression) else number(operand)


def _sum(terms: list[tuple[tuple[Atom, ...], float]]) -> Expression:
    total: dict[tuple[Atom, ...], float] = {}
    for atoms, coefficient in terms:
        total[atoms] = total.get(atoms, 0.0) + coefficient
    kept = sorted((atoms, c) for atoms, c in total.items() if c)
    if len(kept) > _LARGEST or not all(math.isfinite(c) for _, c in kept):
        raise ArithmeticError("too long, or infinite")
    return Expression(tuple(kept))


def close(a: Expression, b: Expression, tolerance: float) -> bool:
    """Whether two expressions differ in nothing but coefficients, and these by ``tolerance`` of themselves."""
    return len(a.terms) == len(b.terms) and all(
        math.isclose(c, d, rel_tol=tolerance)
        and [atom.name for atom in p] == [atom.name for atom in q]
        and all(close(m.argument, n.argument, tolerance) for m, n in zip(p, q, strict=True))
        for (p, c), (q, d) in zip(a.terms, b.terms, strict=True)
    )


def atom(name: str, argument: Expression) -> Expression:
    return Expression((((Atom(name, argument),), 1.0),))


X = atom("x", Expression())


def relu(p: Expression) -> Expression:
    scale = abs(p.leading)
    return scale * atom("relu", p / scale)


def positive(p: Expression) -> Expression:
    return atom("positive", p)


def maximum(p: Expression, low: float) -> Expression:
    return low + relu(p - low)


def minimum(p: Expression, high: float) -> Expression:
    """min(p, high); where p is ``low + scale * relu(q)``, a ramp from low to high."""
    *rest, (atoms, scale) = p.terms or [((), 0.0)]
    low = Expression(tuple(rest)).constant
    if low is not None and low < high and scale > 0 and [a.name for a in atoms] == ["relu"]:
        return p - scale * relu(atoms[0].argument - (high - low) / scale)
    return p - relu(p - high)


def sigmoid(p: Expression) -> Expression:
    return 1.0 - atom("sigmoid", -p) if p.leading < 0 else atom("sigmoid", p)


def tanh(p: Expression) -> Expression:
    return 2.0 * sigmoid(2.0 * p) - 1.0


def erf(p: Expression) -> Expression:
    return -atom("erf", -p) if p.leading < 0 else atom("erf", p)


def exp(p: Expression) -> Expression:
    return atom("exp", p)


def softplus(p: Expression) -> Expression:
    return atom("softplus", p)


def log(p: Expression) -> Expression:
    exponent = _one_plus_exp(p)
    return atom("log", p) if exponent is None else softplus(exponent)


def reciprocal(p: Expression) -> Expression:
    if p.constant is not None:
        return number(1 / p.constant)
    exponent = _one_plus_exp(p)
    return atom("reciprocal", p) if exponent is None else sigmoid(-exponent)


def _one_plus_exp(p: Expression) -> Expression | None:
    """q, where p is 1 + exp(q)."""
    match (p - 1.0).terms:
        case [([Atom("exp", exponent)], 1.0)]:
            return exponent
    return None


def silu(p: Expression) -> Expression:
    return p * sigmoid(p)


def hard_sigmoid(p: Expression, alpha: float, beta: float) -> Expression:
    return minimum(maximum(alpha * p + beta, 0.0), 1.0)


def hard_swish(p: Expression) -> Expression:
    return p * hard_sigmoid(p, 1 / 6, 0.5)


def gelu(p: Expression) -> Expression:
    return 0.5 * p * (1.0 + erf(p * math.sqrt(0.5)))


def gelu_tanh(p: Expression) -> Expression:
    """The approximation of Hendrycks & Gimpel 2016; 0.044715 is by definition, not by rounding."""
    return 0.5 * p * (1.0 + tanh(math.sqrt(2 / math.pi) * (p + 0.044715 * p * p * p)))


def mish(p: Expression) -> Expression:
    return p * tanh(softplus(p))
