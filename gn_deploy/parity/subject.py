"""One subject of a comparison: run on its runtime, its sites and outputs judged."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from gn_deploy.errors import GnDeployError, InputError, UnavailableError
from gn_deploy.parity.cases import Array, Case, input_specs
from gn_deploy.parity.drawing import keep_few
from gn_deploy.parity.end_to_end import EndToEnd, gravity
from gn_deploy.parity.in_place import Listening, Taps, evidence_in_place, evidence_in_torch
from gn_deploy.parity.inputs import fed_to
from gn_deploy.parity.pairing import Pair, Pairing, pair
from gn_deploy.parity.per_site import Evidence, Override, gather, verdict
from gn_deploy.parity.probe import probe
from gn_deploy.parity.report import OutputVerdict, RuntimeVerdict, SiteVerdict
from gn_deploy.parity.status import Status, worst
from gn_deploy.registry import Unavailable
from gn_deploy.runtimes import RUNTIMES, resolve
from gn_deploy.runtimes.base import RuntimeFailure, TimeLimitExceeded
from gn_deploy.runtimes.isolated import ChildSession, isolated

if TYPE_CHECKING:
    import onnx_ir as ir

    from gn_deploy.forms.base import GroupNormSite
    from gn_deploy.runtimes.base import Runtime
    from gn_deploy.runtimes.isolated import Limits

T = TypeVar("T")


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

    1. Without ``network`` no network is ever run: probes alone judge.
    2. ``whole`` judges outputs; when nothing can, it is the reason.
    """

    reference: "ir.Model"
    sites: "Sequence[GroupNormSite]"
    network: bool
    whole: EndToEnd | str
    override: Override | None
    limits: "Limits | None" = None
    """Of the process that a runtime runs in; None for this one."""


@dataclass(slots=True)
class Findings:
    """What one subject adds to the report."""

    runtime: RuntimeVerdict
    sites: list[SiteVerdict]
    outputs: list[OutputVerdict]
    unpaired: list[str]


class Examination:
    """One subject under judgement: it takes cases batch by batch and keeps what they say, not the arrays.

    A runtime that is absent is NOTRUN, one that fails is CRASH, one that is too slow TIMEOUT, and takes no more cases;
    InputError is the caller's.
    """

    def __init__(self, subject: Subject, by: Standard) -> None:
        self.subject, self._by = subject, by
        self._found = Findings(RuntimeVerdict(subject.label, Status.NOTRUN), [], [], [])
        self._pairing = Pairing((), ())
        self._evidence: dict[Pair, list[Evidence]] = {}
        self._outputs: dict[str, OutputVerdict] = {}
        self._session: Any = None
        self._taps = Taps()
        self._ended = ""
        self._seconds = 0.0
        entry = RUNTIMES.get(resolve(subject.runtime))
        if isinstance(entry, Unavailable):
            self._end(Status.NOTRUN, entry.reason)
            return
        self._runtime: Runtime = entry if by.limits is None else isolated(entry, by.limits)
        probed = entry.probe()
        self._found.runtime = replace(self._found.runtime, version=probed.version or "")
        if probed.run:
            self._guarded(self._start)
        else:
            self._end(Status.NOTRUN, probed.run.reason)

    def take(self, cases: Sequence[Case], *, last: bool = False) -> set[str]:
        """Judges the subject on ``cases``; the names of those on which something broke. After the ``last`` batch the
        subject is closed, which is what makes room for the next one."""
        if self._ended:
            return set()
        broken = self._guarded(lambda: self._take(cases))
        if last:
            self.close()
        return set() if broken is None else broken

    def finish(self) -> Findings:
        """Everything that was found; the subject is closed."""
        self.close()
        if self._ended:
            return self._found
        by, found = self._by, self._found
        if not self._outputs:
            why = by.whole if isinstance(by.whole, str) else "no case on which a whole network can be judged"
            self._outputs = {
                name: OutputVerdict(name, self.subject.label, Status.NOTRUN, reason=why)
                for name in (str(v.name) for v in by.reference.graph.outputs)
            }
        found.sites += keep_few(
            verdict(p, self.subject.label, self._evidence[p], by.override) for p in self._pairing.pairs
        )
        found.outputs += self._outputs.values()
        found.unpaired += [f"{s.name}: {why}" for s, why in self._pairing.unpaired]
        status = worst([v.status for v in found.sites] + [v.status for v in found.outputs])
        reason = "nothing could be judged" if status is Status.NOTRUN else ""
        found.runtime = replace(found.runtime, status=status, reason=reason, seconds=self._seconds)
        return found

    def close(self) -> None:
        if self._session is not None:
            self._session.close()
        self._taps.close()

    def _end(self, status: Status, reason: str) -> None:
        self._ended = reason or str(status)
        self._found.runtime = replace(self._found.runtime, status=status, reason=reason, seconds=self._seconds)

    def _guarded(self, work: Callable[[], T]) -> T | None:
        """What ``work`` gives; when it fails the examination ends, and what was found is not told: it is not whole."""
        start = time.perf_counter()
        try:
            return work()
        except UnavailableError as error:
            self._end(Status.NOTRUN, error.message)
        except InputError:
            self.close()
            raise
        except TimeLimitExceeded as error:
            self._end(Status.TIMEOUT, error.message)
        except GnDeployError as error:
            self._end(Status.CRASH, error.message)
        finally:
            self._seconds += time.perf_counter() - start
        self.close()
        return None

    def _start(self) -> None:
        """Opens the subject, pairs its GroupNorms with the reference's and probes them."""
        import onnx_ir as ir

        by, model = self._by, self.subject.model
        if by.network:
            self._session = self._runtime.open(model)
            process = "own" if isinstance(self._session, ChildSession) else "shared"
            self._found.runtime = replace(self._found.runtime, precision=self._session.precision, process=process)
        if isinstance(model, ir.Model):
            self._pairing = pair(by.reference, by.sites, model, find_sites(model))
            self._evidence = probe(self._pairing.pairs, model, self._runtime, by.override)
        elif isinstance(self._session, Listening):
            plain = tuple(Pair(s, s.bare.spec, s.bare.input, s.bare.output, "module", "module path") for s in by.sites)
            self._pairing = Pairing(plain, ())
            self._evidence = {p: [] for p in plain}
        else:
            why = "an engine does not show its inner values" if by.network else "only an ONNX model can be probed"
            self._pairing = Pairing((), tuple((s, why) for s in by.sites))

    def _take(self, cases: Sequence[Case]) -> set[str]:
        import onnx_ir as ir

        by, model, session = self._by, self.subject.model, self._session
        assert session is not None, "cases are for networks that run"
        fed = fed_to(by.reference, model, cases)
        answers = {c.name: session.run(c.feeds) for c in fed if c.conditioned}
        more: Mapping[Pair, Sequence[Evidence]] = {}
        if isinstance(model, ir.Model):
            more = evidence_in_place(self._pairing.pairs, model, self._runtime, fed, by.override, self._taps)
        elif isinstance(session, Listening):
            more = evidence_in_torch(self._pairing.pairs, session, fed, by.override)
        for p, evidence in more.items():
            gather(self._evidence[p], evidence)
        broken = {e.case for evidence in more.values() for e in evidence if e.status.broken}
        types = "+".join([session.precision, *_float_dtypes(model)])
        for judged in _judge_outputs(self.subject, fed, answers, types, by):
            known = self._outputs.setdefault(judged.output, judged)
            self._outputs[judged.output] = max((known, judged), key=gravity)
            if judged.status.broken:
                broken.add(judged.case)
        return broken


def find_sites(model: "ir.Model") -> "list[GroupNormSite]":
    from gn_deploy.sites import find

    return list(find(model).sites)


def _judge_outputs(
    subject: Subject, fed: Sequence[Case], answers: Mapping[str, Mapping[str, Array]], types: str, by: Standard
) -> list[OutputVerdict]:
    """One verdict for each output on the conditioned cases of ``fed``, the worst; none when there is no such case."""
    wanted = [str(v.name) for v in by.reference.graph.outputs]
    conditioned = [case for case in fed if case.conditioned]
    if isinstance(by.whole, str) or not conditioned:
        return []
    given = answers[conditioned[0].name].keys()
    if len(given) != len(wanted):
        raise InputError(f"{subject.label} gives {len(given)} outputs, the reference {len(wanted)}")
    mine = {n: n for n in wanted} if given == set(wanted) else dict(zip(wanted, given, strict=True))
    # The oracle is fed what the runtime received, rounding and all, under the reference's own names.
    inputs = [s.name for s in input_specs(by.reference)]
    received = [replace(c, feeds=dict(zip(inputs, c.feeds.values(), strict=True))) for c in conditioned]
    found = []
    for name in wanted:
        arrays = {case.name: answers[case.name][mine[name]] for case in received}
        try:
            judged = by.whole.judge(subject.label, name, arrays, received, types=types, override=by.override)
        except RuntimeFailure as error:  # of the oracle: it says nothing about the subject
            why = f"no float64 oracle: {error.message}"
            judged = OutputVerdict(name, subject.label, Status.NOTRUN, reason=why)
        found.append(judged)
    return found


def _float_dtypes(model: Any) -> list[str]:
    """What a model stores numbers in, whatever the runtime says it computes in."""
    import onnx_ir as ir

    if not isinstance(model, ir.Model):
        return []
    values = [*model.graph.initializers.values(), *(v for node in model.graph for v in node.outputs)]
    return sorted({str(v.dtype.numpy()) for v in values if v.dtype is not None and v.dtype.is_floating_point()})
