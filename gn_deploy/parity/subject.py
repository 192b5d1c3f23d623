"""One subject of a comparison: run on its runtime, its sites and outputs judged."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from gn_deploy.errors import GnDeployError, InputError, UnavailableError
from gn_deploy.parity.cases import Array, Case, input_specs
from gn_deploy.parity.drawing import keep_few
from gn_deploy.parity.end_to_end import EndToEnd
from gn_deploy.parity.in_place import Listening, evidence_in_place, evidence_in_torch
from gn_deploy.parity.inputs import fed_to
from gn_deploy.parity.pairing import Pair, Pairing, pair
from gn_deploy.parity.per_site import Evidence, Override, gather, verdict
from gn_deploy.parity.probe import probe
from gn_deploy.parity.report import OutputVerdict, RuntimeVerdict, SiteVerdict
from gn_deploy.parity.status import Status, worst
from gn_deploy.registry import Unavailable
from gn_deploy.runtimes import RUNTIMES, resolve
from gn_deploy.runtimes.base import RuntimeFailure

if TYPE_CHECKING:
    import onnx_ir as ir

    from gn_deploy.forms.base import GroupNormSite
    from gn_deploy.runtimes.base import Runtime


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """Something to be judged: a model on a runtime.

    1. ``label`` is unique in a report; it is what rows are named by.
    2. ``model`` is an ``onnx_ir.Model``, the TorchModel of the torch runtime, or the path of an engine, of which only
       the outputs can be judged.
    """

    label: str
    runtime: str
    model: Any


@dataclass(frozen=True, slots=True, eq=False)
class Standard:
    """What every subject of one comparison is judged by.

    1. ``cases`` have the names of ``reference``'s inputs. Without any the network is never run: probes alone judge.
    2. ``whole`` judges outputs; when nothing can, it is the reason.
    """

    reference: "ir.Model"
    sites: "Sequence[GroupNormSite]"
    cases: Sequence[Case]
    whole: EndToEnd | str
    override: Override | None


@dataclass(slots=True)
class Findings:
    """What one subject adds to the report."""

    runtime: RuntimeVerdict
    sites: list[SiteVerdict]
    outputs: list[OutputVerdict]
    unpaired: list[str]


def examine(subject: Subject, by: Standard) -> Findings:
    """A runtime that is absent is NOTRUN, one that fails is CRASH; InputError is the caller's."""
    start = time.perf_counter()
    entry = RUNTIMES.get(resolve(subject.runtime))
    found = Findings(RuntimeVerdict(subject.label, Status.NOTRUN), [], [], [])
    if isinstance(entry, Unavailable):
        found.runtime = replace(found.runtime, reason=entry.reason)
        return found
    probed = entry.probe()
    found.runtime = replace(found.runtime, version=probed.version or "", reason=probed.run.reason)
    if not probed.run:
        return found
    reason = ""
    try:
        _judge(found, subject, entry, by)
        status = worst([v.status for v in found.sites] + [v.status for v in found.outputs])
        reason = "nothing could be judged" if status is Status.NOTRUN else ""
    except UnavailableError as error:
        status, reason = Status.NOTRUN, error.message
    except InputError:
        raise
    except GnDeployError as error:
        status, reason = Status.CRASH, error.message
    seconds = time.perf_counter() - start
    found.runtime = replace(found.runtime, status=status, reason=reason, seconds=seconds)
    return found


def find_sites(model: "ir.Model") -> "list[GroupNormSite]":
    from gn_deploy.sites import find

    return list(find(model).sites)


def _judge(found: Findings, subject: Subject, runtime: "Runtime", by: Standard) -> None:
    if not by.cases:
        _judge_sites(found, subject, runtime, None, (), by)
        _judge_outputs(found, subject, (), {}, "", by)
        return
    fed = fed_to(by.reference, subject.model, by.cases)
    session = runtime.open(subject.model)
    try:
        found.runtime = replace(found.runtime, precision=session.precision)
        answers = {c.name: session.run(c.feeds) for c in fed if c.conditioned}
        _judge_sites(found, subject, runtime, session, fed, by)
    finally:
        session.close()
    types = "+".join([session.precision, *_float_dtypes(subject.model)])
    _judge_outputs(found, subject, fed, answers, types, by)


def _judge_sites(
    found: Findings, subject: Subject, runtime: "Runtime", session: Any, cases: Sequence[Case], by: Standard
) -> None:
    """``session`` is the subject opened, None when it is not to be run."""
    import onnx_ir as ir

    evidence: dict[Pair, list[Evidence]] = {}
    if isinstance(subject.model, ir.Model):
        pairing = pair(by.reference, by.sites, subject.model, find_sites(subject.model))
        evidence = probe(pairing.pairs, subject.model, runtime, by.override)
        if cases:
            for p, more in evidence_in_place(pairing.pairs, subject.model, runtime, cases, by.override).items():
                gather(evidence[p], more)
    elif isinstance(session, Listening):
        plain = tuple(
            Pair(s, s.bare.spec, s.bare.input, s.bare.output, "module", "module path") for s in by.sites
        )
        pairing = Pairing(plain, ())
        evidence = evidence_in_torch(plain, session, cases, by.override)
    else:
        why = "an engine does not show its inner values" if cases else "only an ONNX model can be probed"
        pairing = Pairing((), tuple((s, why) for s in by.sites))
    found.sites += keep_few(verdict(p, subject.label, evidence[p], by.override) for p in pairing.pairs)
    found.unpaired += [f"{s.name}: {why}" for s, why in pairing.unpaired]


def _judge_outputs(
    found: Findings,
    subject: Subject,
    fed: Sequence[Case],
    answers: Mapping[str, Mapping[str, Array]],
    types: str,
    by: Standard,
) -> None:
    wanted = [str(v.name) for v in by.reference.graph.outputs]
    conditioned = [case for case in fed if case.conditioned]
    if isinstance(by.whole, str) or not conditioned:
        why = by.whole if isinstance(by.whole, str) else "no case on which a whole network can be judged"
        found.outputs += [OutputVerdict(name, subject.label, Status.NOTRUN, reason=why) for name in wanted]
        return
    given = answers[conditioned[0].name].keys()
    if len(given) != len(wanted):
        raise InputError(f"{subject.label} gives {len(given)} outputs, the reference {len(wanted)}")
    mine = {n: n for n in wanted} if given == set(wanted) else dict(zip(wanted, given, strict=True))
    # The oracle is fed what the runtime received, rounding and all, under the reference's own names.
    inputs = [s.name for s in input_specs(by.reference)]
    received = [replace(c, feeds=dict(zip(inputs, c.feeds.values(), strict=True))) for c in conditioned]
    for name in wanted:
        arrays = {case.name: answers[case.name][mine[name]] for case in received}
        try:
            judged = by.whole.judge(subject.label, name, arrays, received, types=types, override=by.override)
        except RuntimeFailure as error:  # of the oracle: it says nothing about the subject
            why = f"no float64 oracle: {error.message}"
            judged = OutputVerdict(name, subject.label, Status.NOTRUN, reason=why)
        found.outputs.append(judged)


def _float_dtypes(model: Any) -> list[str]:
    """What a model stores numbers in, whatever the runtime says it computes in."""
    import onnx_ir as ir

    if not isinstance(model, ir.Model):
        return []
    values = [*model.graph.initializers.values(), *(v for node in model.graph for v in node.outputs)]
    return sorted({str(v.dtype.numpy()) for v in values if v.dtype is not None and v.dtype.is_floating_point()})
