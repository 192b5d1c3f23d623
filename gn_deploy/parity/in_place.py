"""GroupNorms judged inside the running network, on the values that really arrive there."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from gn_deploy.graph.cut import tap
from gn_deploy.parity.cases import Array, Case
from gn_deploy.parity.pairing import Pair
from gn_deploy.parity.per_site import (
    Evidence,
    Override,
    channels,
    gather,
    is_dynamic,
    judge_arrays,
    low_precision_stores,
)
from gn_deploy.parity.status import Status
from gn_deploy.spec import FLOAT_DTYPES

if TYPE_CHECKING:
    import onnx_ir as ir

    from gn_deploy.forms.base import GroupNormSite
    from gn_deploy.runtimes.base import Runtime, Session


@runtime_checkable
class Listening(Protocol):
    """A session that tells, beside its outputs, "P:input" and "P:output" of every GroupNorm module at path P."""

    def run_tapped(self, feeds: Mapping[str, Array]) -> dict[str, Array]: ...


TAP_BYTES = 1 << 29  # tapped values held at once: with more, the network is opened and run again for the rest
_GUESS = 1 << 23  # bytes of a value whose shape is not known: 2 x 256 x 64 x 64 float32


class Taps:
    """The tapped network, kept open from one batch of cases to the next where one does for all pairs."""

    def __init__(self) -> None:
        self.session: Session | None = None

    def close(self) -> None:
        if self.session is not None:
            self.session.close()
        self.session = None


def evidence_in_place(
    pairs: Sequence[Pair],
    model: "ir.Model",
    runtime: "Runtime",
    cases: Sequence[Case],
    override: Override | None = None,
    taps: Taps | None = None,
) -> dict[Pair, list[Evidence]]:
    """What every case says about every pair, from taps on ``model``; ``cases`` feed its inputs by its own names.

    With ``taps`` the network stays open for the next call, which is of the same pairs and model.

    Pairs inside subgraphs and functions, and those whose run-time scale or bias is not in the candidate, are left out
    with the reason. Raises what ``runtime`` raises.
    """
    found: dict[Pair, list[Evidence]] = {}
    names = {v.name for v in model.graph.inputs} | {v.name for node in model.graph for v in node.outputs}
    seen: list[Pair] = []
    for pair in pairs:
        if reason := _hidden(pair, model, names):
            found[pair] = [Evidence("in place", Status.NOTRUN, reason=reason)]
        else:
            seen.append(pair)
    chunks = [*_chunks(seen)]
    kept = taps if taps is not None and len(chunks) == 1 else Taps()
    for chunk in chunks:
        wanted = list(dict.fromkeys(name for pair in chunk for name in _tapped(pair)))
        inputs = {v.name for v in model.graph.inputs}
        session = kept.session = kept.session or runtime.open(tap(model, [n for n in wanted if n not in inputs]))
        try:
            precision = session.precision if session.precision in FLOAT_DTYPES else ""
            for case in cases:
                values: dict[str, Array] = {**case.feeds, **session.run(case.feeds)}
                for pair in chunk:
                    x, y = values[str(pair.input.name)], values[str(pair.output.name)]
                    gather(
                        found.setdefault(pair, []),
                        judge_arrays(
                            x, y, pair.spec, *_parameters(pair.site, values),
                            case=case.name, precision=precision,
                            stores=low_precision_stores(pair, y.dtype.name), tapped=True, override=override,
                            operands={name: _array(value, values) for name, value in pair.operands.items()},
                        ),
                    )  # fmt: skip
        finally:
            if kept is not taps:
                kept.close()
    return found


def evidence_in_torch(
    pairs: Sequence[Pair], session: Listening, cases: Sequence[Case], override: Override | None = None
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
                parameters = _parameters(pair.site, {})
                gather(found[pair], judge_arrays(x, y, pair.spec, *parameters, case=case.name, override=override))
    return found


def _hidden(pair: Pair, model: "ir.Model", names: set[str | None]) -> str:
    for value in (pair.input, pair.output, *pair.operands.values()):
        producer = value.producer()
        held = value in model.graph.inputs or value.const_value is not None
        if producer.graph is not model.graph if producer is not None else not held:
            return "it is inside a subgraph or a function"
    for parameter in (pair.site.scale, pair.site.bias):
        if is_dynamic(parameter) and _name(parameter) not in names:
            return f"the candidate has no value '{_name(parameter)}', which is a parameter at run time"
    return ""


def _tapped(pair: Pair) -> list[str]:
    dynamic = [_name(p) for p in (pair.site.scale, pair.site.bias) if is_dynamic(p)]
    operands = [str(value.name) for value in pair.operands.values() if value.const_value is None]
    return [str(pair.input.name), str(pair.output.name), *operands, *dynamic]


def _array(value: "ir.Value", values: Mapping[str, Array]) -> Array:
    return values[str(value.name)] if value.const_value is None else value.const_value.numpy()


def _name(parameter: Any) -> str:
    return str(parameter.value.name) if parameter.value is not None else ""


def _parameters(site: "GroupNormSite", values: Mapping[str, Array]) -> tuple[Array | None, Array | None]:
    scale, bias = (channels(p, site.spec, values.get(_name(p)) if p else None) for p in (site.scale, site.bias))
    return scale, bias


def _chunks(pairs: Sequence[Pair]) -> Iterator[list[Pair]]:
    chunk: list[Pair] = []
    held = 0
    for pair in pairs:
        size = 2 * _bytes(pair.input)
        if chunk and held + size > TAP_BYTES:
            yield chunk
            chunk, held = [], 0
        chunk.append(pair)
        held += size
    if chunk:
        yield chunk


def _bytes(value: "ir.Value") -> int:
    dims = list(value.shape) if value.shape is not None else [None]
    return 4 * math.prod(dims) if all(isinstance(d, int) for d in dims) else _GUESS  # type: ignore[arg-type]
