"""Taps on a running network: how many fit into memory at once, and the proof that they changed nothing."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gn_deploy.parity.cases import Array, Case
from gn_deploy.parity.pairing import Pair

if TYPE_CHECKING:
    import onnx_ir as ir

    from gn_deploy.runtimes.base import Opener, Session

MAX_SPLITS = 16  # openings of the network spent on finding taps that change it, beyond one for each chunk
_GUESS = 1 << 23  # bytes of a value of which not even the rank is known: 2 x 256 x 64 x 64 float32
_DOUBT = 4.0  # by how much a guessed size may be too small, until one was seen


class Taps:
    """The tapped network from one batch of cases to the next, and what it answers without taps.

    1. ``session`` is kept open where it taps everything at once.
    2. A runtime whose answers change from run to run, or from opening to opening, is no witness: ``steady`` is then
       False, and nothing that its outputs do is put down to a tap.
    """

    def __init__(self, judged: Callable[[int], None] = lambda _: None) -> None:
        """``judged`` is told how many more GroupNorms have been."""
        self.judged = judged
        self.session: Session | None = None
        self._groups: list[list[Pair]] = []
        self._changed: set[Pair] = set()
        self._splits = MAX_SPLITS
        self._answers: Mapping[str, Mapping[str, Array]] = {}
        self._witness: Case | None = None
        self._reopened = False
        self._apart = self._largest = 0.0

    def compare_with(self, answers: Mapping[str, Mapping[str, Array]], cases: Sequence[Case], session: Any) -> None:
        """``answers`` are the outputs on some of the ``cases``, by their names, without taps; the first time one of
        them is asked again of ``session``."""
        self._answers = answers
        if self._witness is None and (known := [case for case in cases if case.name in answers]):
            self._witness = known[0]
            self._compare(self._witness, session.run(self._witness.feeds))

    def chunks(self, pairs: Sequence[Pair], model: "ir.Model", cases: Sequence[Case], limit: int) -> "Chunks":
        """Of the same pairs the second time as the first."""
        chunks = Chunks(pairs, model, cases, limit)
        if self._groups:
            chunks.take(self._groups)
            self._groups = []
        return chunks

    @property
    def may_split(self) -> bool:
        return self._splits >= 2  # halves, each to be opened

    def split(self, chunk: list[Pair], chunks: "Chunks") -> None:
        self._splits -= 2
        self._largest = 0.0
        chunks.again(chunk[: len(chunk) // 2], chunk[len(chunk) // 2 :])

    def settle(self, chunk: list[Pair]) -> None:
        """These are tapped together from now on."""
        self._groups.append(chunk)

    def same(self, case: Case, values: Mapping[str, Array]) -> bool:
        """Whether every output has the same bits as without taps, if that is known; ``values`` may hold more."""
        wanted = self._answers.get(case.name, {})
        self._largest = max([self._largest, *(_distance(array, values[name]) for name, array in wanted.items())])
        return all(array.tobytes() == values[name].tobytes() for name, array in wanted.items())

    def steady(self, runtime: "Opener", model: "ir.Model") -> bool:
        """Whether the runtime answers the same when it opens the network once more; asked once."""
        if not self._reopened and not self._apart and self._witness and self._witness.name in self._answers:
            self._reopened = True
            session = runtime.open(model)
            try:
                self._compare(self._witness, session.run(self._witness.feeds))
            finally:
                session.close()
        return self._apart == 0.0

    def words(self, chunk: Sequence[Pair]) -> str:
        """What is to be said of a chunk after ``same`` found a difference."""
        self._changed.update(chunk)
        size, self._largest = self._largest, 0.0
        if self._apart:
            return (
                f"the runtime is not deterministic: without taps its outputs differ by up to {self._apart:.2g} from "
                f"run to run, with them by {size:.2g}, so it is not proved that tapping changed nothing"
            )
        which = f"tapping it, or one of {len(chunk) - 1} others," if len(chunk) > 1 else "tapping it"
        return f"{which} changed the outputs of the network by up to {size:.2g}: other kernels ran than without taps"

    @property
    def proof(self) -> str:
        """One line for the report; "" when nothing was tapped or compared."""
        tapped = sum(map(len, self._groups))
        if self._witness is None or not tapped:
            return ""
        if self._apart:
            return f"not deterministic: without taps two runs differ by up to {self._apart:.2g}"
        return f"{tapped - len(self._changed)} of {tapped} GroupNorms tapped without changing a bit of the outputs"

    def close(self) -> None:
        if self.session is not None:
            self.session.close()
        self.session = None

    def _compare(self, case: Case, values: Mapping[str, Array]) -> None:
        for name, array in self._answers[case.name].items():
            if array.tobytes() != values[name].tobytes():
                self._apart = max(self._apart, _distance(array, values[name]), float(np.finfo(np.float64).tiny))


class Chunks:
    """Pairs in the order they came, as many at once as ``limit`` bytes of tapped values allow, and at least one.

    The size of a value is known from its shape, the free dims from what the inputs are fed; where it is not, it is
    guessed, and what was seen corrects the guess for those that follow.
    """

    def __init__(self, pairs: Sequence[Pair], model: "ir.Model", cases: Sequence[Case], limit: int) -> None:
        self._left = list(pairs)
        self._ready: list[list[Pair]] = []
        self._first = True
        self.only = False
        """Whether the chunk at hand is all there is."""
        self._limit = limit
        self._dims: dict[str, int] = {}
        self._doubt = _DOUBT
        self._seen = False
        for case in cases:
            for value in model.graph.inputs:
                array = case.feeds.get(str(value.name))
                if array is not None and value.shape is not None and len(value.shape) == array.ndim:
                    for dim, size in zip(value.shape, array.shape, strict=True):
                        symbol = getattr(dim, "value", None)
                        if symbol is not None:
                            self._dims[symbol] = max(size, self._dims.get(symbol, 0))
        sizes = [size for case in cases for array in case.feeds.values() for size in array.shape]
        self._usual = max(sizes, default=1)

    def next(self) -> list[Pair]:
        """The next chunk; empty when there is none."""
        if self._ready:
            return self._ready.pop(0)
        chunk: list[Pair] = []
        held = 0.0
        while self._left:
            size, known = self._bytes(self._left[0].input)
            held += 2 * size * (1 if known else self._doubt)  # input and output
            if chunk and held > self._limit:
                break
            chunk.append(self._left.pop(0))
        self.only = self._first and not self._left
        self._first = False
        return chunk

    def take(self, chunks: Sequence[list[Pair]]) -> None:
        """These instead."""
        self._left, self._ready = [], list(chunks)
        self.only = len(self._ready) == 1

    def again(self, *chunks: list[Pair]) -> None:
        """Puts smaller ones in front."""
        self.only = False
        self._ready[:0] = chunks

    def learn(self, pair: Pair, size: int) -> None:
        """What a pair's input really took, in bytes."""
        guess, known = self._bytes(pair.input)
        if not known and guess:
            self._doubt = max(self._doubt if self._seen else 0.0, size / guess)
            self._seen = True

    def _bytes(self, value: "ir.Value") -> tuple[int, bool]:
        width = 4 if value.dtype is None else value.dtype.itemsize
        if value.shape is None:
            return _GUESS, False
        sizes = [d if isinstance(d, int) else self._dims.get(str(d.value)) for d in value.shape]
        return int(width * math.prod(self._usual if s is None else s for s in sizes)), None not in sizes


def _distance(a: Array, b: Array) -> float:
    """The largest difference of two arrays, infinite when exactly one is NaN or their shapes differ."""
    if a.shape != b.shape:
        return math.inf
    a, b = (np.asarray(v).astype(np.float64) for v in (a, b))
    with np.errstate(all="ignore"):
        apart = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
    return float(np.nan_to_num(apart, nan=np.inf).max(initial=0.0))
