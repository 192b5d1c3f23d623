"""Times many choices for one layer: all of them shortly, the most promising first, and then the fastest in turn."""

import statistics
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from gn_deploy.errors import GnDeployError
from gn_deploy.plugin.binding import VARIANTS, CChoice, CProblem, as_dict, struct
from gn_deploy.plugin.problem import Device, Problem
from gn_deploy.plugin.select import Choice
from scripts.gpu.cases import Case
from scripts.gpu.choices import Key, broken, choices, key, name
from scripts.gpu.fit import chosen
from scripts.gpu.measure import MICRO, bound, copies, verified
from scripts.gpu.model import current, parts
from scripts.gpu.operands import Operands, sized_ring
from scripts.gpu.timing import Ring, drift, turns

MOST = 400  # choices of a layer: some 15 ms each, of which most is the recording of a graph
FEWEST = 4  # of a variant that are timed however much is expected of others
HOPELESS = 3.0  # times the best: expected, it is left out; seen, it is not timed again
BATCH = 16  # graphs at a time, a copy among them
ROUNDS, FINAL_ROUNDS = 3, 9
FINALISTS = 10
SCREENING = 0.7  # of the time of a layer; the finals and the verification have the rest

Launch = Callable[[], object]
Say = Callable[[str], None]


def ranked(p: Problem, d: Device, most: int = MOST, only: Collection[str] = VARIANTS) -> list[Choice]:
    """What is selected; then the best of each variant by the model, the next best of each, ..."""
    first, expected = chosen(p, d), current()
    cost = {c: parts(p, d, key(c)).nanoseconds(expected) for c in choices(p, d)}
    least = min(cost.values())
    each = []
    for variant in VARIANTS:
        mine = sorted((c for c in cost if c.variant == variant and variant in only), key=lambda c: (cost[c], key(c)))
        each.append([c for i, c in enumerate(mine) if i < FEWEST or cost[c] < HOPELESS * least])
    listed = [c for one in zip_longest(*each) for c in one if c is not None]
    return sorted(listed, key=lambda c: key(c) != first)[:most]


def sweep(
    machine: Any,
    case: Case,
    *,
    seconds: float,
    without: Mapping[str, str] | None = None,
    only: Collection[str] = VARIANTS,
    most: int = MOST,
    say: Say = lambda step: None,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, Any]:
    """One layer of the results: ``rows`` of a key, microseconds and rounds. ``without`` names choices not to be run,
    and why; ``say`` is told each before it runs. What is not consistent is never launched."""
    import torch

    say("start")
    begun = clock()
    p, d = Problem(**case.problem()), Device(**as_dict(machine.device))
    listed, without = ranked(p, d, most, only), without or {}
    ring = sized_ring(case, int(machine.device.l2), machine.free_memory())
    operands = Operands(case, torch, machine.torch_device, ring.buffers)
    shared = Shared(machine, operands, case, listed, ring)
    copy = copies(machine, operands)
    row: dict[str, Any] = {"selected": list(chosen(p, d)), "listed": len(listed), "faults": dict(without)}
    times: dict[Key, list[float]] = {}
    steady: list[float] = []
    waiting = [c for c in listed if name(key(c)) not in without]
    row["clock_mhz"] = [machine.clock_mhz()]
    while waiting and (not times or clock() - begun < SCREENING * seconds):
        batch, waiting = waiting[:BATCH], waiting[BATCH:]
        steady += _batch(shared, batch, copy, times, ROUNDS, row["faults"], say)
    finals = sorted(times, key=lambda k: statistics.median(times[k]))[:FINALISTS]
    finals += [k for k in (chosen(p, d),) if k in times and k not in finals]
    last: dict[Key, list[float]] = {}
    by_key = {key(c): c for c in listed}
    found = _batch(shared, [by_key[k] for k in finals], copy, last, FINAL_ROUNDS, row["faults"], say)
    times |= {k: taken for k, taken in last.items() if len(taken) > 1 or k not in times}

    def on_time() -> bool:
        return clock() - begun < seconds

    row["verified"] = _verify(shared, by_key, chosen(p, d), times, row["faults"], say, on_time)
    row["rows"] = [
        [*k, statistics.median(taken) / ring.launches * MICRO, len(taken)]
        for k, taken in sorted(times.items(), key=lambda one: statistics.median(one[1]))
    ]
    row["not_reached"] = len(waiting)
    row["copy_us"] = statistics.median(found or steady) / ring.launches * MICRO if steady else None
    row["drift"] = drift(steady) if steady else None
    row["clock_mhz"].append(machine.clock_mhz())
    row["ring"] = {"buffers": ring.buffers, "launches": ring.launches, "over_cache": ring.over_cache}
    row["seconds"] = clock() - begun
    return row


class Shared:
    """Buffers, workspace and counters of all choices of a layer; they run one after another."""

    def __init__(self, machine: Any, operands: Operands, case: Case, listed: Sequence[Choice], ring: Ring) -> None:
        import torch

        self.machine, self.operands, self.ring, self.torch = machine, operands, ring, torch
        self.problem = Problem(**case.problem())
        self._c_problem = struct(CProblem, self.problem)
        self._device = Device(**as_dict(machine.device))
        device = machine.torch_device
        workspace = torch.empty(max([1, *(c.workspace for c in listed)]), dtype=torch.uint8, device=device)
        self.counters = torch.zeros(max([1, *(c.counters for c in listed)]), dtype=torch.int32, device=device)
        self._held = workspace
        self._addresses = [operands.addresses(i, workspace, self.counters) for i in range(ring.buffers)]

    def launch(self, c: Choice) -> Callable[[int], None]:
        """Raises AssertionError for a choice that the kernels must not be given."""
        why = broken(self.problem, self._device, c)
        assert not why, why
        choice, machine = struct(CChoice, c), self.machine

        def launch(i: int) -> None:
            machine.library.enqueue(self._c_problem, choice, self._addresses[i], machine.stream())

        return launch

    def recorded(self, launch: Callable[[int], object]) -> Launch:
        launches = [bound(launch, i % self.ring.buffers) for i in range(self.ring.launches)]
        replay: Launch = self.machine.record(launches)
        return replay

    def left_zero(self) -> bool:
        """Of the counters, which are made so for the next."""
        if not bool(self.counters.any()):
            return True
        self.counters.zero_()
        return False


def _batch(
    shared: Shared,
    batch: Sequence[Choice],
    copy: Mapping[str, Callable[[int], object]],
    times: dict[Key, list[float]],
    rounds: int,
    faults: dict[str, str],
    say: Say,
) -> list[float]:
    """Adds seconds of a replay to ``times``, and returns those of the faster copy."""
    machine, replays = shared.machine, {}
    best = min((min(taken) for taken in times.values()), default=float("inf"))
    for c in batch:
        k = key(c)
        say(name(k))
        try:
            replay = shared.recorded(shared.launch(c))
            times[k] = [machine.elapsed(replay)]
        except (GnDeployError, RuntimeError) as error:
            machine.wait()  # raises again where the device is lost, which is then told as this choice's doing
            faults[name(k)] = f"not recorded: {str(error).splitlines()[0]}"
            times.pop(k, None)
            continue
        if not shared.left_zero():
            faults[name(k)] = "counters are not left zero"
            del times[k]
            continue
        best = min(best, times[k][0])
        replays[k] = replay
    again: dict[Any, Launch] = {k: r for k, r in replays.items() if times[k][0] < HOPELESS * best}
    say("copy")
    again |= {n: shared.recorded(c) for n, c in copy.items()}
    taken: dict[Any, list[float]] = {one: [] for one in again}
    for order in turns(list(again), rounds):
        for one in order:
            say(one if isinstance(one, str) else name(one))
            taken[one].append(machine.elapsed(again[one]))
    copied = [taken.pop(n) for n in copy]
    times |= taken
    return min(copied, key=statistics.median, default=[])


def _verify(
    shared: Shared,
    by_key: Mapping[Key, Choice],
    selected: Key,
    times: dict[Key, list[float]],
    faults: dict[str, str],
    say: Say,
    on_time: Callable[[], bool],
) -> dict[str, float | None]:
    """The worst error over its bound of the fastest choice of each variant and of the selected one; those of the two
    that matter most whatever the time. What is wrong loses its times."""
    fastest: dict[str, Key] = {}
    for k in sorted(times, key=lambda k: statistics.median(times[k])):
        fastest.setdefault(k[0], k)
    found: dict[str, float | None] = {}
    for k in dict.fromkeys(
        [*list(fastest.values())[:1], *([selected] if selected in times else []), *fastest.values()]
    ):
        if len(found) >= 2 and not on_time():
            break
        say(name(k))
        launch = shared.launch(by_key[k])
        found[name(k)], fault = verified(shared.machine, shared.operands, launch, shared.counters, shared.torch)
        if fault:
            shared.counters.zero_()
            faults[name(k)] = fault
            del times[k]
    return found
