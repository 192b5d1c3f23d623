"""GroupNorms judged inside the running network, on the values that really arrive there."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from gn_deploy.graph.cut import tap
from gn_deploy.parity.cases import Array, Case
from gn_deploy.parity.pairing import Pair
from gn_deploy.parity.per_site import (
    Evidence,
    Override,
    gather,
    is_dynamic,
    judge_arrays,
    judge_pair,
    name_of,
    parameters,
)
from gn_deploy.parity.promise import Promise
from gn_deploy.parity.status import Status
from gn_deploy.parity.taps import Chunks, Taps

if TYPE_CHECKING:
    import onnx_ir as ir

    from gn_deploy.runtimes.base import Opener


@runtime_checkable
class Listening(Protocol):
    """A session that tells, beside its outputs, "P:input" and "P:output" of every GroupNorm module at path P."""

    def run_tapped(self, feeds: Mapping[str, Array]) -> dict[str, Array]: ...


TAP_BYTES = 1 << 29  # tapped values held at once: with more, the network is opened and run again for the rest


def evidence_in_place(
    pairs: Sequence[Pair],
    model: "ir.Model",
    runtime: "Opener",
    cases: Sequence[Case],
    override: Override | None = None,
    taps: Taps | None = None,
    promise: Promise = Promise(),  # noqa: B008 -- immutable
) -> dict[Pair, list[Evidence]]:
    """What every case says about every pair, from taps on ``model``; ``cases`` feed its inputs by its own names.

    1. Pairs inside subgraphs and functions, and those whose run-time scale or bias is not in the candidate, are left
       out with the reason.
    2. ``taps`` is what one call leaves to the next, which is of the same pairs and model, and what the network answers
       without taps. Where it answers otherwise with them, the taps are halved until it is known which of them does
       it: there the runtime computes otherwise than it would (a fusion less), and the evidence says by how much.
    3. Raises what ``runtime`` raises.
    """
    taps = taps or Taps()
    found: dict[Pair, list[Evidence]] = {}
    names = {v.name for v in model.graph.inputs} | {v.name for node in model.graph for v in node.outputs}
    seen: list[Pair] = []
    for pair in pairs:
        if reason := _hidden(pair, model, names):
            found[pair] = [Evidence("in place", Status.NOTRUN, reason=reason)]
        else:
            seen.append(pair)
    chunks = taps.chunks(seen, model, cases, TAP_BYTES)
    while chunk := chunks.next():
        divisible = len(chunk) > 1 and taps.may_split
        told, changed = _tapped_run(chunk, model, runtime, cases, override, promise, taps, chunks, divisible)
        if changed:
            if taps.steady(runtime, model) and divisible:
                taps.split(chunk, chunks)
                continue
            if divisible:  # it was given up for a difference that says nothing
                told, _ = _tapped_run(chunk, model, runtime, cases, override, promise, taps, chunks, False)
            why = taps.words(chunk)
            told = {pair: [replace(e, note=why) for e in evidence] for pair, evidence in told.items()}
        taps.settle(chunk)
        found |= told
    return found


def _tapped_run(
    chunk: Sequence[Pair],
    model: "ir.Model",
    runtime: "Opener",
    cases: Sequence[Case],
    override: Override | None,
    promise: Promise,
    taps: Taps,
    chunks: Chunks,
    divisible: bool,
) -> tuple[dict[Pair, list[Evidence]], bool]:
    """With whether any output is not what it is without the taps; then a ``divisible`` chunk is given up at once."""
    found: dict[Pair, list[Evidence]] = {}
    changed = False
    wanted = list(dict.fromkeys(name for pair in chunk for name in _tapped(pair)))
    inputs = {v.name for v in model.graph.inputs}
    session = taps.session = taps.session or runtime.open(tap(model, [n for n in wanted if n not in inputs]))
    try:
        promise = promise.heard(session.precision)
        for case in cases:
            values: dict[str, Array] = {**case.feeds, **session.run(case.feeds)}
            changed |= not taps.same(case, values)
            if changed and divisible:
                break
            for pair in chunk:
                chunks.learn(pair, values[str(pair.input.name)].nbytes)
                more = judge_pair(pair, values, case=case.name, promise=promise, tapped=True, override=override)
                gather(found.setdefault(pair, []), more)
                taps.judged(1)
    finally:
        if not chunks.only or (changed and divisible):
            taps.close()
    return found, changed


def evidence_in_torch(
    pairs: Sequence[Pair],
    session: Listening,
    cases: Sequence[Case],
    override: Override | None = None,
    promise: Promise = Promise(),  # noqa: B008 -- immutable
) -> dict[Pair, list[Evidence]]:
    """The same for a module: ``pairs`` without activation, found by module path and number of the call."""
    found: dict[Pair, list[Evidence]] = {pair: [] for pair in pairs}
    for case in cases:
        values = session.run_tapped(case.feeds)
        calls: dict[str, int] = {}
        for pair in pairs:
            module = pair.site.module
            count = calls[module] = calls.get(module, -1) + 1
            key = f"{module}@{count}" if count else module
            if f"{key}:output" not in values:
                found[pair] = [Evidence("in place", Status.NOTRUN, reason=f"no GroupNorm module at '{module}'")]
            elif is_dynamic(pair.site.scale) or is_dynamic(pair.site.bias):
                found[pair] = [Evidence("in place", Status.NOTRUN, reason="scale or bias is only known at run time")]
            else:
                x, y = values[f"{key}:input"], values[f"{key}:output"]
                own = parameters(pair.site, {})
                more = judge_arrays(x, y, pair.spec, *own, case=case.name, override=override, promise=promise)
                gather(found[pair], more)
    return found


def _hidden(pair: Pair, model: "ir.Model", names: set[str | None]) -> str:
    for value in (pair.input, pair.output, *pair.operands.values()):
        producer = value.producer()
        held = value in model.graph.inputs or value.const_value is not None
        if producer.graph is not model.graph if producer is not None else not held:
            return "it is inside a subgraph or a function"
    for parameter in (pair.site.scale, pair.site.bias):
        if is_dynamic(parameter) and name_of(parameter) not in names:
            return f"the candidate has no value '{name_of(parameter)}', which is a parameter at run time"
    return ""


def _tapped(pair: Pair) -> list[str]:
    dynamic = [name_of(p) for p in (pair.site.scale, pair.site.bias) if is_dynamic(p)]
    operands = [str(value.name) for value in pair.operands.values() if value.const_value is None]
    return [str(pair.input.name), str(pair.output.name), *operands, *dynamic]
