"""The smallest piece of a network, on the smallest inputs, that still goes wrong by itself."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from gn_deploy.diagnosis.judge import Wrong
from gn_deploy.diagnosis.locate import Located, Tell
from gn_deploy.diagnosis.piece import Piece, piece, shows, sized
from gn_deploy.diagnosis.search import Open
from gn_deploy.diagnosis.stretches import Row, names, row
from gn_deploy.graph.cut import tap
from gn_deploy.parity.cases import Array
from gn_deploy.parity.end_to_end import WARN_RATIO
from gn_deploy.parity.oracle import open_oracle

_TRIES = 60  # runs of the runtime: a child process takes a second for each
_PLAIN = 3  # axes that may be shortened: batch and space, but not channels, which weights know


def smallest(located: Located, opened: Open, tell: Tell | None = None) -> tuple[Piece, Wrong] | None:
    """The piece that was located if it goes wrong alone, else more of what stands before it, as little as shows it;
    its inputs then shortened, sample by sample and half by half. None when only the whole network shows it."""
    tell = tell or (lambda _: None)
    if located.piece is None:
        return None
    tries = _Tries(opened)
    tell("looking for the smallest model that shows it")
    held = tries.shown(located.piece)
    if held is None and located.wider is not None:
        held = _wider(located.wider(), tries)
    if held is None:
        return None
    if held[0].truth is held[0].model:
        held = _fewer_nodes(held, tries)
    return _shorter(held, tries)


class _Tries:
    def __init__(self, opened: Open) -> None:
        self._open, self._left = opened, _TRIES

    def shown(self, what: Piece) -> tuple[Piece, Wrong] | None:
        if not self._left:
            return None
        self._left -= 1
        wrong = shows(what, self._open, WARN_RATIO)
        return None if wrong is None else (what, wrong)


def _wider(whole: Piece, tries: _Tries) -> tuple[Piece, Wrong] | None:
    """Of all that makes the value, the last one, two, four ... nodes."""
    nodes = row(whole.model)
    values = _values(nodes, whole)
    size = len(nodes.nodes)
    for count in [1 << k for k in range(size.bit_length())]:
        start = size - count
        if start > 0 and (found := tries.shown(_from(nodes, start, values, whole))):
            return found
    return tries.shown(whole)


def _fewer_nodes(held: tuple[Piece, Wrong], tries: _Tries) -> tuple[Piece, Wrong]:
    """Nodes left out at the front, as many as can be."""
    what = held[0]
    nodes = row(what.model)
    if len(nodes.nodes) < 2:
        return held
    values = _values(nodes, what)
    for start in range(len(nodes.nodes) - 1, 0, -1):
        if found := tries.shown(_from(nodes, start, values, what)):
            return found
    return held


def _from(nodes: Row, start: int, values: dict[str, Array], whole: Piece) -> Piece:
    feeds = {n: values[n] for n in names(nodes.alive[start]) if n in values}
    return piece(nodes.model, feeds, whole.output, whole.types)


def _values(nodes: Row, what: Piece) -> dict[str, Array]:
    """Everything inside, as float64 gives it, in the file's types: what a right runtime has there."""
    inner = [v for n in nodes.nodes for v in n.outputs if v.name and v.dtype is not None]
    session = open_oracle(tap(what.model, names(inner)))
    values = session.run({str(v.name): what.feeds[str(v.name)] for v in what.model.graph.inputs})
    session.close()
    types = {str(v.name): v.dtype.numpy() for v in inner if v.dtype is not None}
    return {**{n: a.astype(types[n]) for n, a in values.items() if n in types}, **what.feeds}


def _shorter(held: tuple[Piece, Wrong], tries: _Tries) -> tuple[Piece, Wrong]:
    done = False
    while not done:
        done = True
        for feeds in _halved(held[0].feeds, held[1]):
            if found := tries.shown(_sized(held[0], feeds)):
                held, done = found, False
                break
    return held


def _halved(feeds: dict[str, Array], wrong: Wrong) -> Iterator[dict[str, Array]]:
    """One sample instead of several, the worst; then either half of every axis of space, in all inputs that have it."""
    main = max(feeds.values(), key=lambda a: a.size, default=None)
    if main is None or main.ndim < 2:
        return
    if main.shape[0] > 1:
        at = _worst_sample(wrong, main.shape[0])
        yield {n: a[at : at + 1] if a.ndim > 1 and a.shape[0] == main.shape[0] else a for n, a in feeds.items()}
    for axis in range(2, min(main.ndim, 2 + _PLAIN)):
        size = main.shape[axis]
        if size < 2:
            continue
        for part in (slice(0, -(-size // 2)), slice(size // 2, None)):
            yield {
                n: np.ascontiguousarray(a[(slice(None),) * axis + (part,)])
                if a.ndim == main.ndim and a.shape[axis] == size
                else a
                for n, a in feeds.items()
            }


def _worst_sample(wrong: Wrong, count: int) -> int:
    if wrong.actual.ndim < 1 or wrong.actual.shape[0] != count or wrong.actual.shape != wrong.expected.shape:
        return 0
    with np.errstate(all="ignore"):
        error = np.abs(wrong.actual.astype(np.float64) - wrong.expected.astype(np.float64))
    error = np.nan_to_num(error, nan=np.inf).reshape(count, -1)
    return int(error.max(axis=1).argmax())


def _sized(what: Piece, feeds: dict[str, Array]) -> Piece:
    """The same on smaller inputs."""
    same = what.truth is what.model
    model = sized(what.model, feeds)
    return replace(what, model=model, truth=model if same else sized(what.truth, feeds), feeds=feeds)
