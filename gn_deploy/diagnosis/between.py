"""Where two runtimes part from each other: at the first value at which either leaves the oracle."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gn_deploy.diagnosis.deployed import Deployed
from gn_deploy.diagnosis.locate import Located
from gn_deploy.errors import GnDeployError
from gn_deploy.parity.appearance import appearance
from gn_deploy.parity.end_to_end import PASS_RATIO
from gn_deploy.parity.metrics import measure
from gn_deploy.parity.report import Divergence
from gn_deploy.rounding import FORMATS

Run = tuple[Located, Deployed]


def between(runs: Sequence[Run]) -> list[Divergence]:
    """For every runtime after the first, where it and the first one part; nothing for two that never leave the oracle.

    The part of the network that one runtime gets wrong is run by the other on the same values, so that what is told is
    what this one place does and not what came before it.
    """
    if not runs:
        return []
    first, *others = runs
    return [found for other in others if (found := _parting(first, other)) is not None]


def _parting(one: Run, other: Run) -> Divergence | None:
    wrong = [run for run in (one, other) if run[0].piece is not None and run[0].wrong is not None]
    if not wrong:
        return None
    located, who = min(wrong, key=lambda run: run[0].at)
    them = other[1] if who is one[1] else one[1]
    told = replace(located.divergence, against=them.label, looks_like="", reason="", files=())
    piece, mine = located.piece, located.wrong
    assert piece is not None
    assert mine is not None
    try:
        session = them.opened(piece.model)
        try:
            theirs = session.run({str(v.name): piece.feeds[str(v.name)] for v in piece.model.graph.inputs})[
                piece.output
            ]
        finally:
            session.close()
    except GnDeployError as error:
        return replace(told, reason=f"{them.label} does not run this part by itself: {error.message}")
    allowed = 2 * PASS_RATIO * mine.noise  # each may be so far from what is right
    words = appearance(mine.actual, theirs.astype(np.float64), allowed)
    if not words:
        return replace(told, value="", reason=f"at '{mine.value}' both leave the oracle, with the same numbers")
    metrics = None
    if mine.actual.shape == theirs.shape and mine.noise and mine.actual.dtype.name in FORMATS:
        metrics = measure(mine.actual, theirs.astype(np.float64), allowed, dtype=mine.actual.dtype.name)
    right = not appearance(theirs, mine.expected, PASS_RATIO * mine.noise)
    state = "is right" if right else "is wrong as well, otherwise"
    return replace(told, metrics=metrics, looks_like=words, reason=f"{them.label} {state} there")
