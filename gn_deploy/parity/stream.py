"""Cases as a stream: read once, a few at a time, each with a name of its own."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from gn_deploy.parity.cases import Case

BATCH = 16  # cases judged together: enough that a network with many GroupNorms is opened rarely
BATCH_BYTES = 1 << 26  # of their inputs; the answers and the tapped values of a batch are held beside them


def batches(cases: Iterable[Case], most: int | None = None) -> Iterator[tuple[list[Case], bool]]:
    """Batches of ``most`` cases (BATCH) or fewer, each with whether it is the last one.

    No more than one batch and one case are held at once.
    """
    batch: list[Case] = []
    held = 0
    for case in _distinct(cases):
        size = sum(array.nbytes for array in case.feeds.values())
        if batch and (len(batch) == (most or BATCH) or held + size > BATCH_BYTES):
            yield batch, False
            batch, held = [], 0
        batch.append(case)
        held += size
    if batch:
        yield batch, True


def _distinct(cases: Iterable[Case]) -> Iterator[Case]:
    """Two files may name their cases alike; verdicts are told by the name."""
    met: dict[str, int] = {}
    for case in cases:
        count = met[case.name] = met.get(case.name, 0) + 1
        yield case if count == 1 else replace(case, name=f"{case.name} ({count})")
