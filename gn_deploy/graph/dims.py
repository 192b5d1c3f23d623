"""Sizes of tensors as exact products of integers and named unknowns, so that equal sizes can be proved equal."""

import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

_PRODUCT = re.compile(r"\w+(\s*\*\s*\w+)*")  # "4*s0*s53", as torch writes sizes it derived


@dataclass(frozen=True, slots=True)
class Dim:
    """``coefficient`` times the product of ``symbols`` (sorted, with repetition); no symbols: a known integer."""

    coefficient: int
    symbols: tuple[str, ...] = ()

    @property
    def known(self) -> int | None:
        return None if self.symbols else self.coefficient

    def __mul__(self, other: "Dim") -> "Dim":
        symbols = self.symbols + other.symbols
        return Dim(self.coefficient * other.coefficient, tuple(sorted(symbols)) if len(symbols) > 1 else symbols)

    def divided_by(self, other: "Dim") -> "Dim | None":
        """The exact quotient, or None when it cannot be proved to be a whole number."""
        if other.coefficient == 0 or self.coefficient % other.coefficient:
            return None
        left, right = Counter(self.symbols), Counter(other.symbols)
        if right - left:
            return None
        return Dim(self.coefficient // other.coefficient, tuple(sorted((left - right).elements())))

    def plus(self, other: "Dim") -> "Dim | None":
        """The sum, or None when it is not such a product."""
        if 0 in (self.coefficient, other.coefficient):
            return other if self.coefficient == 0 else self
        total = self.coefficient + other.coefficient
        return Dim(total, self.symbols if total else ()) if self.symbols == other.symbols else None

    def __str__(self) -> str:
        if not self.symbols:
            return str(self.coefficient)
        factors = [*([str(self.coefficient)] if self.coefficient != 1 else []), *self.symbols]
        return "*".join(factors)


Shape = tuple[Dim, ...]


@cache
def known(size: int) -> Dim:
    """A size that is a number; the same object every time, which makes shapes quick to compare."""
    return Dim(size)


ONE = known(1)


def unknown(of: str | None, axis: int) -> Dim:
    """A size of which nothing is known but whose it is."""
    return Dim(1, (f"{of}.{axis}",))


@cache
def parse(text: str) -> Dim:
    """A symbolic dimension as files spell it; anything but a product is one opaque unknown."""
    if not _PRODUCT.fullmatch(text):
        return Dim(1, (text,))
    factors = [f.strip() for f in text.split("*")]
    numbers = [int(f) for f in factors if f.isdecimal()]
    return Dim(math.prod(numbers), tuple(sorted(f for f in factors if not f.isdecimal())))


def product(dims: Iterable[Dim]) -> Dim:
    coefficient, symbols = 1, list[str]()
    for dim in dims:
        coefficient *= dim.coefficient
        symbols += dim.symbols
    return Dim(coefficient, tuple(sorted(symbols)))


def spelled(shape: Iterable[Dim]) -> str:
    """``[N, 32, H, W]`` for messages."""
    return f"[{', '.join(map(str, shape))}]"
