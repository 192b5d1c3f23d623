"""Times one case: every variant, copies and torch in turn, on one ring of buffers, each result verified once."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from gn_deploy.decision import Rejected
from gn_deploy.errors import GnDeployError, UnavailableError
from gn_deploy.plugin.binding import VARIANTS, CProblem, Selected, struct
from scripts.gpu.cases import Case
from scripts.gpu.operands import Operands, in_torch, sized_ring
from scripts.gpu.timing import Ring, drift, rounds, spread, turns
from scripts.gpu.verify import error_over_bound

MICRO = 1e6
SECONDS = 1.0  # of replays for one case; forty cases then take about as many seconds as they have candidates to warm up
OTHERS = ("own_copy", "torch_copy", "eager", "compile")
POISON = 0xFF  # a NaN in every float type

Launch = Callable[[], object]
Say = Callable[[str], None]


def measure(
    machine: Any,
    case: Case,
    *,
    without: Mapping[str, str] | None = None,
    only: Collection[str] = VARIANTS,
    compiled: bool = False,
    seconds: float = SECONDS,
    say: Say = lambda step: None,
) -> dict[str, Any]:
    """One row of the results, times in microseconds.

    ``without`` names variants (or "eager", "compile") that must not run, and why; ``only`` leaves out all other
    variants. ``compiled`` times torch.compile, and nothing but the selected variant beside it. ``say`` is told each
    step before it is begun, for whoever must explain why there was no answer.
    """
    import torch

    say("start")
    without = without or {}
    problem = struct(CProblem, case.problem())
    selected = machine.library.select(problem, machine.device)
    if isinstance(selected, Rejected):
        return {"why": selected.reason, "variants": {}}
    asked = [selected.variant] if compiled else [v for v in VARIANTS if v in only or v == selected.variant]
    ring = sized_ring(case, int(machine.device.l2), machine.free_memory())
    operands = Operands(case, torch, machine.torch_device, ring.buffers)
    row: dict[str, Any] = {"selected": selected.variant, "why": selected.reason, "variants": {}}
    candidates: dict[str, Callable[[int], object]] = {}
    held: list[Any] = []
    for variant in asked:
        say(variant)
        told = row["variants"][variant] = {}
        if variant in without:
            told["fault"] = without[variant]
            continue
        chosen = machine.library.select(problem, machine.device, variant)
        if isinstance(chosen, Rejected):
            told["reason"] = chosen.reason
            continue
        launch, counters = _ours(machine, operands, problem, chosen, ring.buffers)
        held.append(launch)
        told |= {"slices": chosen.choice.slices, "vectors": chosen.choice.vectors, "blocks": chosen.choice.blocks}
        told["error_over_bound"], fault = verified(machine, operands, launch, counters, torch)
        if fault:
            told["fault"] = fault
        else:
            candidates[variant] = launch
    candidates |= copies(machine, operands)
    layer = in_torch(case, torch)
    for name, function in (("compile" if compiled else "eager", layer),):
        say(name)
        if name in without:
            row[f"{name}_fault"] = without[name]
            continue
        candidates[name] = _torch(operands, machine.compiled(function) if compiled else function, ring.buffers)
    row |= _timed(machine, candidates, ring, seconds, say, row)
    if compiled:
        machine.forget_compiled()
    elif case.tensor_bytes < machine.device.l2 // 8 and row.get("us"):  # in a network it is still in the cache
        say("hot")
        hot = Ring(1, ring.launches, 0.0)
        names = {selected.variant, "own_copy", "torch_copy"} & candidates.keys()
        found = _times(machine, {name: candidates[name] for name in names}, hot, seconds / 4, say, row)
        row["hot_us"] = spread(found[selected.variant]).median / hot.launches * MICRO
        row["hot_copy_us"] = min(spread(found[n]).median for n in names - {selected.variant}) / hot.launches * MICRO
    return row


def _ours(
    machine: Any, operands: Operands, problem: CProblem, chosen: Selected, buffers: int
) -> tuple[Callable[[int], None], Any]:
    """One workspace and one set of counters for all launches, as an engine has them."""
    import torch

    choice, device = chosen.choice, machine.torch_device
    workspace = torch.empty(max(choice.workspace, 1), dtype=torch.uint8, device=device)
    counters = torch.zeros(max(choice.counters, 1), dtype=torch.int32, device=device)
    addresses = [operands.addresses(i, workspace, counters) for i in range(buffers)]

    def launch(i: int, held: object = (workspace, counters)) -> None:  # held as long as the launch may be called
        machine.library.enqueue(problem, choice, addresses[i], machine.stream())

    return launch, counters


def verified(
    machine: Any, operands: Operands, launch: Callable[[int], None], counters: Any, torch: Any
) -> tuple[float | None, str]:
    """The worst error over its bound of one launch, and what is wrong with it."""
    operands.outputs[0].fill_(POISON)
    try:
        launch(0)
        machine.wait()
    except GnDeployError as error:
        return None, error.message
    ratio = error_over_bound(operands.case, operands, 0, torch)
    first = operands.outputs[0].clone()
    for _ in range(2):
        launch(0)
        machine.wait()
        if not torch.equal(first, operands.outputs[0]):
            return ratio, "other bits when run again"
    if bool(counters.any()):
        return ratio, "counters are not left zero"
    return ratio, "" if ratio <= 1 else f"{ratio:.3g} times the bound off"


def copies(machine: Any, operands: Operands) -> dict[str, Callable[[int], object]]:
    """Half the bytes that the case moves, read and written."""
    import torch

    size = operands.case.moved_bytes // 2 // 16 * 16
    inputs, outputs = operands.inputs, operands.outputs
    found: dict[str, Callable[[int], object]] = {"torch_copy": lambda i: outputs[i][:size].copy_(inputs[i][:size])}
    own = machine.own_copy()
    if own is not None:
        outputs[0].fill_(POISON)
        try:
            own(outputs[0].data_ptr(), inputs[0].data_ptr(), size)
            machine.wait()
        except UnavailableError:
            return found
        if torch.equal(outputs[0][:size], inputs[0][:size]):
            found["own_copy"] = lambda i: own(outputs[i].data_ptr(), inputs[i].data_ptr(), size)
    return found


def _torch(operands: Operands, layer: Callable[..., Any], buffers: int) -> Callable[[int], None]:
    """Outputs are kept as long as the ring, so that torch has no smaller footprint than the others."""
    import torch

    kept: list[Any] = [None] * buffers
    given = [operands.given(i) for i in range(buffers)]

    def launch(i: int) -> None:
        with torch.no_grad():
            kept[i] = layer(*given[i])

    return launch


def _timed(
    machine: Any,
    candidates: dict[str, Callable[[int], object]],
    ring: Ring,
    seconds: float,
    say: Say,
    row: dict[str, Any],
) -> dict[str, Any]:
    before = machine.clock_mhz()
    found = _times(machine, candidates, ring, seconds, say, row)
    each = {name: spread(times) for name, times in found.items()}
    us = {name: s.median / ring.launches * MICRO for name, s in each.items()}
    for name, variant in row["variants"].items():
        if name in us:
            variant["us"] = us[name]
    told: dict[str, Any] = {f"{name}_us": us[name] for name in OTHERS if name in us}
    copies = [us[name] for name in OTHERS[:2] if name in us]
    told |= {"copy_us": min(copies)} if copies else {}
    ours = {name: us[name] for name in row["variants"] if name in us}
    if row["selected"] in ours:
        told["us"] = ours[row["selected"]]
        told["spread_us"] = [s / ring.launches * MICRO for s in (each[row["selected"]].low, each[row["selected"]].high)]
        told |= {f"{name}_beside_us": told["us"] for name in ("eager", "compile") if name in us}
    told |= {"best": min(ours, key=ours.__getitem__)} if ours else {}
    told["ring"] = {"buffers": ring.buffers, "launches": ring.launches, "over_cache": ring.over_cache}
    told["rounds"] = len(next(iter(found.values()), []))
    steady = next((name for name in OTHERS if name in found), None)
    told["drift"] = drift(found[steady]) if steady else None
    told["clock_mhz"] = [before, machine.clock_mhz()]
    return told


def _times(
    machine: Any,
    candidates: dict[str, Callable[[int], object]],
    ring: Ring,
    seconds: float,
    say: Say,
    row: dict[str, Any],
) -> dict[str, list[float]]:
    """Seconds of each replay; a candidate that cannot be recorded is left out, and says why in ``row``."""
    replays: dict[str, Launch] = {}
    once = 0.0
    for name, launch in candidates.items():
        say(name)
        launches = [bound(launch, i % ring.buffers) for i in range(ring.launches)]
        try:
            replays[name] = machine.record(launches)
            once += machine.elapsed(replays[name])
        except (GnDeployError, RuntimeError) as error:
            machine.wait()  # raises again where the device is lost, which is then told as this step's doing
            replays.pop(name, None)
            fault = f"not recorded: {str(error).splitlines()[0]}"
            if name in row["variants"]:
                row["variants"][name]["fault"] = fault
            else:
                row[f"{name}_fault"] = fault
    found: dict[str, list[float]] = {name: [] for name in replays}
    for order in turns(list(replays), rounds(once, seconds)):
        for name in order:
            say(name)
            found[name].append(machine.elapsed(replays[name]))
    return found


def bound(launch: Callable[[int], object], i: int) -> Launch:
    return lambda: launch(i)
