"""How times are taken fairly: rings of buffers beyond the cache, candidates in turn, medians, drift."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

BEYOND_CACHE = 4  # times the L2 that a ring of buffers covers: what was written last is gone when its turn comes again
FEWEST_BUFFERS = 4  # the last one's end would still be in the cache where there were fewer
MOST_BUFFERS = 256  # nodes of a graph; below 1/64 of the L2 a tensor stays in it whatever is done, as in a network
MEMORY_SHARE = 0.5  # of the free memory, for all that a case allocates
FEWEST_LAUNCHES = 16  # in a recording: its own start, 1 to 2 us, is then less than 1 % of even the shortest kernels
LARGE = 64 << 20  # bytes a launch moves from which one lap of the ring is long enough


@dataclass(frozen=True, slots=True)
class Ring:
    """Buffers that launches go through in turn, so that no launch finds its data in the cache."""

    buffers: int
    launches: int
    """In one recording; whole laps."""
    over_cache: float
    """Bytes of all buffers over those of the L2; below 1 the tensors stay in it."""


def ring(bytes_each: int, l2: int, free: int, held_each: int) -> Ring:
    """``bytes_each`` is what one launch moves, ``held_each`` what one buffer takes of the ``free`` memory."""
    wanted = min(max(math.ceil(BEYOND_CACHE * l2 / max(bytes_each, 1)), FEWEST_BUFFERS), MOST_BUFFERS)
    fitting = max(int(free * MEMORY_SHARE / max(held_each, 1)), 1)
    buffers = min(wanted, fitting)
    laps = 1 if bytes_each >= LARGE else math.ceil(FEWEST_LAUNCHES / buffers)
    return Ring(buffers, buffers * laps, buffers * bytes_each / max(l2, 1))


def turns(names: Sequence[str], rounds: int) -> list[list[str]]:
    """Each round all names, another one first, every second round backwards: nobody always follows the same one."""
    order = []
    for i in range(rounds):
        start = i % max(len(names), 1)
        turned = [*names[start:], *names[:start]]
        order.append(turned[::-1] if i % 2 else turned)
    return order


def rounds(once: float, seconds: float, least: int = 7, most: int = 30) -> int:
    """How often everything, which takes ``once``, is repeated in about ``seconds``; 7 make a median with quartiles."""
    return max(least, min(most, int(seconds / once))) if once > 0 else most


@dataclass(frozen=True, slots=True)
class Spread:
    """The median and the quartiles of repeated times."""

    median: float
    low: float
    high: float


def spread(times: Sequence[float]) -> Spread:
    if len(times) < 2:
        return Spread(times[0], times[0], times[0])
    low, middle, high = statistics.quantiles(times, n=4, method="inclusive")
    return Spread(middle, low, high)


def drift(times: Sequence[float]) -> float:
    """The later half's median over the earlier half's: a GPU that changes its clock shows here."""
    half = len(times) // 2
    if not half:
        return 1.0
    return statistics.median(times[-half:]) / statistics.median(times[:half])
