"""One subject of a comparison: run on its runtime, its sites and outputs judged."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from gn_deploy.errors import GnDeployError, InputError, UnavailableError
from gn_deploy.parity.cases import Array, Case, input_specs
from gn_deploy.parity.drawing import keep_few
from gn_deploy.parity.end_to_end import EndToEnd, gravity
from gn_deploy.parity.in_place import Listening, evidence_in_place, evidence_in_torch
from gn_deploy.parity.inputs import fed_to
from gn_deploy.parity.pairing import Pair, Pairing, pair
from gn_deploy.parity.per_site import Evidence, Override, gather, settled, verdict
from gn_deploy.parity.probe import probe
from gn_deploy.parity.promise import Promise
from gn_deploy.parity.report import OutputVerdict, RuntimeVerdict, SiteVerdict
from gn_deploy.parity.status import Status, worst
from gn_deploy.parity.taps import Taps
from gn_deploy.registry import Unavailable
from gn_deploy.runtimes import RUNTIMES, asked_precision, resolve
from gn_deploy.runtimes.base import Pinned, RuntimeFailure, TimeLimitExceeded
from gn_deploy.runtimes.isolated import ChildSession, isolated
from gn_deploy.targets import DTYPES

if TYPE_CHECKING:
    import onnx_ir as ir

    from gn_deploy.forms.base import GroupNormSite
    from gn_deploy.runtimes.base import Opener, Runtime
    from gn_deploy.runtimes.isolated import Limits

T = TypeVar("T")


MAX_HELD = 1 << 28  # bytes of outputs kept of cases on which they are not judged, to compare the tapped network with


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """Something to be judged: a model on a runtime.

    1. ``label`` is unique in a report; it is what rows are named by.
    2. ``runtime`` may carry a precision, "openvino:bf16", which is then promised; without one it is what the model is
       written in. A runtime that cannot be told runs the model written in that type.
    3. ``model`` is an ``onnx_ir.Model``, the TorchModel of the torch runtime, or the path of an engine, of which only
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
    accepted: tuple[Status, ...] = ()
    """Verdicts that the user takes for held."""
    known: "Callable[[Pair, str], bool] | None" = None
    """Whether what "probe" or "in place" would say of a pair is known already: then it is not judged again."""


@dataclass(slots=True)
class Findings:
    """What one subject adds to the report."""

    runtime: RuntimeVerdict
    sites: list[SiteVerdict]
    outputs: list[OutputVerdict]
    unpaired: list[str]


class Examination:
    """One subject under judgement: it takes cases batch by batch and keeps what they say, not the arrays.

    A runtime that is absent or has no kernel is NOTRUN, one that fails is CRASH, one that is too slow TIMEOUT, and
    takes no more cases; InputError is the caller's.
    """

    def __init__(self, subject: Subject, by: Standard, judged: Callable[[int], None] = lambda _: None) -> None:
        """``judged`` is told how many more GroupNorms have been, each by its probe and on every input."""
        self.subject, self._by, self._judged = subject, by, judged
        self._found = Findings(RuntimeVerdict(subject.label, Status.NOTRUN), [], [], [])
        self._pairing = Pairing((), ())
        self._evidence: dict[Pair, list[Evidence]] = {}
        self._outputs: dict[str, OutputVerdict] = {}
        self._session: Any = None
        self._taps = Taps(judged)
        self._ended = ""
        self._refused: dict[str, str] = {}
        """Sizes that the reference takes and the subject does not -> what it said."""
        self._seconds = 0.0
        entry = RUNTIMES.get(resolve(subject.runtime))
        if isinstance(entry, Unavailable):
            self._end(Status.NOTRUN, entry.reason)
            return
        self._entry: Runtime = entry
        self._runtime: Opener
        self._promise = Promise()
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
        if broken is None:
            return {cases[0].name} if self._found.runtime.status.broken else set()
        return broken

    @property
    def ended(self) -> bool:
        """Whether it takes no more cases: the runtime is absent or has failed."""
        return bool(self._ended)

    @property
    def broken(self) -> bool:
        """Whether anything is broken by now, a probe or the runtime itself included."""
        told = [self._found.runtime.status, *(v.status for v in self._outputs.values())]
        told += [e.status for evidence in self._evidence.values() for e in settled(evidence, self._promise)[0]]
        return bool(self._refused) or any(map(self._breaks, told))

    def _breaks(self, status: Status) -> bool:
        return status.broken and status not in self._by.accepted

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
            verdict(p, self.subject.label, self._evidence[p], by.override, self._promise) for p in self._pairing.pairs
        )
        found.outputs += self._outputs.values()
        found.unpaired += [f"{s.name}: {why}" for s, why in self._pairing.unpaired]
        status = worst([v.status for v in found.sites] + [v.status for v in found.outputs])
        reason = "nothing could be judged" if status is Status.NOTRUN else ""
        if self._refused:
            status = worst((status, Status.CRASH))
            reason = "; ".join(f"it does not take {size}: {why}" for size, why in self._refused.items())
        taps, seconds = self._taps.proof, self._seconds
        found.runtime = replace(found.runtime, status=status, reason=reason, taps=taps, seconds=seconds)
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

        self._keep_promise()
        by, model = self._by, self.subject.model
        if by.network:
            self._session = self._runtime.open(model)
            self._promise = self._promise.heard(self._session.precision)
            process = "own" if isinstance(self._session, ChildSession) else "shared"
            self._found.runtime = replace(self._found.runtime, precision=self._session.precision, process=process)
        if isinstance(model, ir.Model):
            self._pairing = pair(by.reference, by.sites, model, find_sites(model))
            pairs, runtime = self._pairing.pairs, self._runtime
            self._evidence = {p: [] for p in pairs}
            self._evidence |= probe(self._unknown("probe"), model, runtime, by.override, self._promise, self._judged)
        elif isinstance(self._session, Listening):
            plain = tuple(Pair(s, s.bare.spec, s.bare.input, s.bare.output, "module", "module path") for s in by.sites)
            self._pairing = Pairing(plain, ())
            self._evidence = {p: [] for p in plain}
        else:
            why = "an engine does not show its inner values" if by.network else "only an ONNX model can be probed"
            self._pairing = Pairing((), tuple((s, why) for s in by.sites))

    def _keep_promise(self) -> None:
        self.subject, self._runtime, precision = as_promised(self.subject, self._entry, self._by.limits)
        self._promise = Promise(precision, _float_dtypes(self.subject.model))

    def _unknown(self, kind: str) -> list[Pair]:
        known = self._by.known
        return [p for p in self._pairing.pairs if known is None or not known(p, kind)]

    def _take(self, cases: Sequence[Case]) -> set[str]:
        import onnx_ir as ir

        by, model = self._by, self.subject.model
        answers, fed = self._run(fed_to(by.reference, model, cases))
        session = self._session
        more: Mapping[Pair, Sequence[Evidence]] = {}
        if isinstance(model, ir.Model):
            self._taps.compare_with(answers, fed, session)
            pairs, runtime = self._unknown("in place"), self._runtime
            more = evidence_in_place(pairs, model, runtime, fed, by.override, self._taps, self._promise)
        elif isinstance(session, Listening):
            more = evidence_in_torch(self._pairing.pairs, session, fed, by.override, self._promise)
            self._judged(len(more) * len(fed))
        for p, evidence in more.items():
            gather(self._evidence[p], evidence)
        broken = {c.name for c in cases if c.size in self._refused}
        names, lower = {c.name for c in fed}, {self._promise.admitted}
        for gathered in self._evidence.values():
            told, precision = settled(gathered, self._promise)
            lower.add(precision)
            broken |= {e.case for e in told if e.case in names and self._breaks(e.status)}
        for judged in _judge_outputs(self.subject, fed, answers, self._promise, sorted(lower - {""}), by):
            known = self._outputs.setdefault(judged.output, judged)
            self._outputs[judged.output] = max((known, judged), key=gravity)
            if self._breaks(judged.status):
                broken.add(judged.case)
        return broken

    def _run(self, fed: Sequence[Case]) -> tuple[dict[str, dict[str, Array]], list[Case]]:
        """The outputs on every case on which they are judged, and on others as far as memory goes; and the cases
        without those of sizes that are tried out and that the subject refuses."""
        answers: dict[str, dict[str, Array]] = {}
        held = 0
        for case in sorted(fed, key=lambda case: not case.conditioned):
            if case.size in self._refused or not (case.conditioned or case.size or held < MAX_HELD):
                continue
            try:
                answers[case.name] = self._session.run(case.feeds)
            except TimeLimitExceeded:
                raise
            except RuntimeFailure as error:
                if not case.size:
                    raise
                self._refused[case.size] = error.message
                self._session.close()  # it may have died of it
                self._session = self._runtime.open(self.subject.model)
                continue
            held += sum(array.nbytes for array in answers[case.name].values())
        return answers, [case for case in fed if case.size not in self._refused]


def as_promised(
    subject: Subject, entry: "Runtime", limits: "Limits | None" = None
) -> "tuple[Subject, Opener, str]":
    """What is opened, by what, and in which precision ("": that of the model), so that it computes as promised.

    Raises InputError when that cannot be had.
    """
    import onnx_ir as ir

    precision = asked_precision(subject.runtime)
    runtime = entry if limits is None else isolated(entry, limits)
    if not precision:
        return subject, runtime, ""
    if precision in getattr(entry, "precisions", ()):
        return subject, Pinned(runtime, precision), precision
    suffix = next((short for short, name in DTYPES.items() if name == precision), None)
    if suffix is None or not isinstance(subject.model, ir.Model):
        why = "an engine has its own precision" if suffix else f"it cannot be told to compute in {precision}"
        raise InputError(f"{subject.runtime}: {why}", "leave the precision away")
    from gn_deploy.passes.precision import convert

    written = subject.model.clone()
    convert(written, suffix)
    return replace(subject, model=written), runtime, ""


def find_sites(model: "ir.Model") -> "list[GroupNormSite]":
    from gn_deploy.sites import find

    return list(find(model).sites)


def _judge_outputs(
    subject: Subject,
    fed: Sequence[Case],
    answers: Mapping[str, Mapping[str, Array]],
    promise: Promise,
    lower: Sequence[str],
    by: Standard,
) -> list[OutputVerdict]:
    """One verdict for each output on the conditioned cases of ``fed``, the worst; none when there is no such case.

    In what was promised; what breaks there, and is within the noise of one of the ``lower`` precisions that the runtime
    admits or that its GroupNorms show, is LOWPREC.
    """
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
    types = "+".join(filter(None, [promise.asked, *promise.written])) or "float32"
    found = []
    for name in wanted:
        arrays = {case.name: answers[case.name][mine[name]] for case in received}
        try:
            judged = by.whole.judge(subject.label, name, arrays, received, types=types, override=by.override)
            for precision in () if by.override else lower:
                if not (judged.status.broken or judged.status is Status.WARN):
                    break
                again = by.whole.judge(subject.label, name, arrays, received, types=f"{types}+{precision}")
                if again.status in (Status.PASS, Status.WARN):
                    words = f"{judged.noise_ratio:.3g} times the noise of rounding, {again.noise_ratio:.2g} times"
                    judged = replace(judged, status=Status.LOWPREC, reason=f"{words} that of rounding in {precision}")
        except RuntimeFailure as error:  # of the oracle: it says nothing about the subject
            why = f"no float64 oracle: {error.message}"
            judged = OutputVerdict(name, subject.label, Status.NOTRUN, reason=why)
        found.append(judged)
    return found


def _float_dtypes(model: Any) -> tuple[str, ...]:
    """What a model stores numbers in, whatever the runtime says it computes in."""
    import onnx_ir as ir

    if not isinstance(model, ir.Model):
        return ()
    values = [*model.graph.initializers.values(), *(v for node in model.graph for v in node.outputs)]
    return tuple(sorted({str(v.dtype.numpy()) for v in values if v.dtype is not None and v.dtype.is_floating_point()}))
