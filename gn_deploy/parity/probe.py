"""GroupNorms cut out of a network and run alone on the families, all of them in one model where that can be."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gn_deploy.errors import GnDeployError, UnavailableError
from gn_deploy.graph.cut import cut
from gn_deploy.parity.cases import Array, deal, hands
from gn_deploy.parity.families import FAMILIES
from gn_deploy.parity.operands import draw
from gn_deploy.parity.pairing import Pair
from gn_deploy.parity.per_site import (
    Evidence,
    Override,
    gather,
    is_dynamic,
    judge_pair,
)
from gn_deploy.parity.promise import Promise
from gn_deploy.parity.status import Status
from gn_deploy.rounding import coarser
from gn_deploy.runtimes.base import TimeLimitExceeded
from gn_deploy.spec import FLOAT_DTYPES, GroupNormSpec

if TYPE_CHECKING:
    import onnx_ir as ir

    from gn_deploy.runtimes.base import Opener

MAX_ELEMENTS = 1 << 26  # of all inputs of one probing model; more GroupNorms go into the next one
LARGE = 1 << 22  # elements; a larger static shape is probed with one tensor, its slots shared by the families
_SPATIAL = {3: ((96,), (35,)), 4: ((12, 8), (5, 7)), 5: ((4, 6, 4), (3, 5, 2))}  # two sizes, nowhere square


@dataclass(frozen=True, slots=True, eq=False)
class _Plan:
    pair: Pair
    shape: tuple[int, ...]
    others: dict[str, Array]
    reads: "frozenset[ir.Value]"


def probe(
    pairs: Sequence[Pair],
    model: "ir.Model",
    runtime: "Opener",
    override: Override | None = None,
    promise: Promise = Promise(),  # noqa: B008 -- immutable
    judged: Callable[[int], None] = lambda _: None,
) -> dict[Pair, list[Evidence]]:
    """Each pair's region of ``model`` alone on the runtime, on the families dealt over its groups.

    NOTRUN with the reason where the region needs other values of the network, or its shape is only guessed and refused.
    Regions that do not touch share one model, so that a runtime compiles once; if it fails, each is tried alone.
    ``judged`` is told how many more have been.
    """
    found: dict[Pair, list[Evidence]] = {}
    plans = []
    for pair in pairs:
        plan = _plan(pair, model)
        if isinstance(plan, str):
            found[pair] = [Evidence("probe", Status.NOTRUN, reason=plan)]
        else:
            plans.append(plan)
    for batch in _batches(plans, model):
        try:
            found |= _run(batch, model, runtime, override, promise)
        except GnDeployError:
            found |= _one_by_one(batch, model, runtime, override, promise)
        judged(len(batch))
    return found


def probe_shapes(spec: GroupNormSpec, values: "Sequence[ir.Value]") -> list[tuple[int, ...]]:
    """Shapes of x to probe with: the static one; two different ones when a dim is dynamic (equal for equal names).

    ``values`` are those known to stand for x, the one that is fed first.
    """
    known = [list(v.shape) for v in values if v.shape is not None]
    rank = len(known[0]) if known else spec.rank or 4
    dims: list[Any] = [
        next((s[i] for s in known if len(s) == rank and isinstance(s[i], int)), None) for i in range(rank)
    ]
    dims[spec.channel_axis] = spec.num_channels
    if None not in dims:
        return [tuple(dims)]
    batch = max(2, -(-len(FAMILIES) // (2 * spec.num_groups)))  # two tensors have a slot for every family
    shapes = []
    for more, spatial in enumerate(_SPATIAL.get(rank, ((2,) * (rank - 2), (3,) * (rank - 2)))):
        sizes = [batch + more, *spatial]
        sizes.insert(spec.channel_axis if spec.channel_axis == 1 else rank - 1, spec.num_channels)
        named: dict[str, int] = {}
        symbols = [getattr(d, "value", None) for d in known[0]] if known else [None] * rank
        for i, symbol in enumerate(symbols):
            if isinstance(symbol, str):
                sizes[i] = named.setdefault(symbol, sizes[i])
        shapes.append(tuple(s if d is None else d for d, s in zip(dims, sizes, strict=True)))
    return shapes


def shape_feeds(alone: "ir.Model", shape: Sequence[int], known: Sequence[str] = ()) -> dict[str, Array] | str:
    """Arrays for the inputs of a cut region of which it only reads the shape, given the shape of its first input.

    Exporters read a dynamic batch size off the network's own input. A region that needs another input's numbers gets
    the reason as a string; ``known`` inputs are fed by the caller.
    """
    entry, *others = alone.graph.inputs
    symbols = {getattr(d, "value", None): size for d, size in zip(entry.shape or (), shape, strict=bool(entry.shape))}
    feeds = {}
    for value in others:
        if value.name in known:
            continue
        if value.shape is None or value.dtype is None or any(use.node.op_type != "Shape" for use in value.uses()):
            return f"it also depends on '{value.name}'"
        sizes = [d if isinstance(d, int) else symbols.get(d.value, shape[0]) for d in value.shape]
        feeds[str(value.name)] = np.zeros(sizes, value.dtype.numpy())
    return feeds


def _plan(pair: Pair, model: "ir.Model") -> _Plan | str:
    if is_dynamic(pair.site.scale) or is_dynamic(pair.site.bias):
        return "scale or bias is only known at run time"
    theirs = (layer.input for layer in pair.site.layers if layer.spec == pair.spec)
    shape = probe_shapes(pair.spec, [pair.input, *theirs])[0]
    alone = cut(model, [pair.input, *pair.operands.values()], [pair.output])
    others = shape_feeds(alone, shape, known=[str(value.name) for value in pair.operands.values()])
    if isinstance(others, str):
        return others
    reads = frozenset(v for node in pair.region for v in node.inputs if v is not None)
    return _Plan(pair, shape, others, reads)


def _batches(plans: Sequence[_Plan], model: "ir.Model") -> Iterator[list[_Plan]]:
    """Plans whose regions share no input and read or give no other's; those with other inputs stay alone."""
    main = {v for node in model.graph for v in node.outputs}
    batch: list[_Plan] = []
    for plan in plans:
        if plan.others or plan.pair.operands or plan.pair.output not in main:
            yield [plan]
            continue
        clash = any(_touch(plan, other) or _touch(other, plan) for other in batch)
        if batch and (clash or sum(math.prod(p.shape) for p in [*batch, plan]) > MAX_ELEMENTS):
            yield batch
            batch = []
        batch.append(plan)
    if batch:
        yield batch


def _one_by_one(
    plans: Sequence[_Plan], model: "ir.Model", runtime: "Opener", override: Override | None, promise: Promise
) -> dict[Pair, list[Evidence]]:
    """Each alone; after one that takes too long no other is tried, or the limit would be paid once for each."""
    found: dict[Pair, list[Evidence]] = {}
    late = ""
    for plan in plans:
        if late:
            found[plan.pair] = [Evidence("probe", Status.NOTRUN, reason=f"not tried after another: {late}")]
            continue
        found[plan.pair] = _alone(plan, model, runtime, override, promise)
        late = next((e.reason for e in found[plan.pair] if e.status is Status.TIMEOUT), "")
    return found


def _touch(plan: _Plan, other: _Plan) -> bool:
    """Whether what is fed to ``plan`` is something that ``other`` reads or gives: then it would not be computed."""
    return plan.pair.input in other.reads or plan.pair.input is other.pair.output


def _alone(
    plan: _Plan, model: "ir.Model", runtime: "Opener", override: Override | None, promise: Promise
) -> list[Evidence]:
    try:
        return _run([plan], model, runtime, override, promise)[plan.pair]
    except UnavailableError as error:
        return [Evidence("probe", Status.NOTRUN, reason=error.message)]
    except TimeLimitExceeded as error:
        return [Evidence("probe", Status.TIMEOUT, reason=error.message)]
    except GnDeployError as error:
        given = plan.pair.input.shape
        guessed = given is None or any(not isinstance(d, int) for d in given)
        return [Evidence("probe", Status.NOTRUN if guessed else Status.CRASH, reason=error.message)]


def _run(
    plans: Sequence[_Plan], model: "ir.Model", runtime: "Opener", override: Override | None, promise: Promise
) -> dict[Pair, list[Evidence]]:
    import onnx_ir as ir

    operands = [(plan, value) for plan in plans for value in plan.pair.operands.values()]
    starts = [*(p.pair.input for p in plans), *(value for _, value in operands)]
    joint = cut(model, starts, [p.pair.output for p in plans])
    entries = list(joint.graph.inputs)[: len(plans)]
    for entry, plan in zip(joint.graph.inputs, [*plans, *(plan for plan, _ in operands)], strict=False):
        if entry.dtype is None:
            entry.type = ir.TensorType(ir.DataType.from_numpy(np.dtype(plan.pair.spec.dtype)))
        if entry.shape is not None:  # one name may stand for different sizes here
            entry.shape = ir.Shape([d if isinstance(d, int) else None for d in entry.shape])
    found: dict[Pair, list[Evidence]] = {plan.pair: [] for plan in plans}
    session = runtime.open(joint)
    try:
        promise = promise.heard(session.precision)
        dealt = [_dealt(plan, str(e.dtype.numpy()), promise.asked) for plan, e in zip(plans, entries, strict=True)]  # type: ignore[union-attr]
        for turn in range(max(map(len, dealt))):
            feeds = {n: a for plan in plans for n, a in plan.others.items()}
            for plan, entry, hand in zip(plans, entries, dealt, strict=True):
                x = hand[turn % len(hand)][0]
                around = draw(plan.pair.input, plan.pair.operands, x, plan.pair.spec.channel_axis)
                feeds |= {str(plan.pair.operands[name].name): array for name, array in around.items()}
                feeds[str(entry.name)] = x
            values = feeds | session.run(feeds)
            for plan, hand in zip(plans, dealt, strict=True):
                if turn < len(hand):
                    own = hand[turn][1]
                    more = judge_pair(plan.pair, values, case="probe", hand=own, promise=promise, override=override)
                    gather(found[plan.pair], more)
    finally:
        session.close()
    return found


def _dealt(plan: _Plan, dtype: str, asked: str) -> list[tuple[Array, list[str]]]:
    """Tensors in ``dtype``, exact in the type asked for and in the output's, with the families in their slots."""
    spec = plan.pair.spec
    stored = plan.pair.output.dtype
    asked = plan.pair.half or asked
    held = coarser(dtype, asked if asked in FLOAT_DTYPES else "", "" if stored is None else str(stored.numpy()))
    tensors = deal(plan.shape, spec, dtype=held)
    dealt = [(x.astype(dtype), hand) for x, hand in zip(tensors, hands(plan.shape, spec), strict=True)]
    return dealt[:1] if math.prod(plan.shape) > LARGE else dealt
