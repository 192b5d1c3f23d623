"""The comparison itself: every subject run on its runtime, every site and output judged, one report."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gn_deploy.errors import GnDeployError, InputError, UnavailableError
from gn_deploy.parity.cases import Array, Case, InputSpec, input_specs, model_cases
from gn_deploy.parity.end_to_end import EndToEnd
from gn_deploy.parity.in_place import Listening, evidence_in_place, evidence_in_torch
from gn_deploy.parity.oracle import REFERENCE_RUNTIME, open_oracle
from gn_deploy.parity.pairing import Pair, Pairing, pair
from gn_deploy.parity.per_site import Evidence, Override, verdict, worst
from gn_deploy.parity.probe import probe
from gn_deploy.parity.report import OutputVerdict, ParityReport, RuntimeVerdict, SiteVerdict, Status
from gn_deploy.registry import Unavailable
from gn_deploy.runtimes import RUNTIMES, resolve
from gn_deploy.runtimes.base import RuntimeFailure
from gn_deploy.spec import FLOAT_DTYPES, Activation

if TYPE_CHECKING:
    import onnx_ir as ir

    from gn_deploy.forms.base import GroupNormSite
    from gn_deploy.runtimes.base import Runtime, Session

__all__ = ["REFERENCE_RUNTIME", "Subject", "compare", "judge", "match_inputs"]

_PACKAGES = ("numpy", "onnx", "onnx_ir")


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


@dataclass(slots=True)
class _Findings:
    """What one subject adds to the report."""

    runtime: RuntimeVerdict
    sites: list[SiteVerdict]
    outputs: list[OutputVerdict]
    unpaired: list[str]


def compare(
    a: "ir.Model",
    b: "ir.Model",
    *,
    runtimes: Sequence[str] = (REFERENCE_RUNTIME,),
    cases: Sequence[Case] | None = None,
    dims: Mapping[str, int] | None = None,
    atol: float | None = None,
    rtol: float | None = None,
    in_place: bool = True,
    names: tuple[str, str] = ("a", "b"),
    title: str = "parity",
    command: str = "",
    progress: Callable[[str], None] | None = None,
) -> ParityReport:
    """Whether ``b`` on each runtime computes what ``a`` means.

    ``a`` gives the truth: its GroupNorms' specs and parameters, and its graph in float64. Without ``cases`` (named by
    a's inputs) families are drawn, dynamic dims taking the sizes in ``dims``. ``atol`` and ``rtol`` replace every
    derived bound. Sites are found best in normalized models. Raises InputError when the models do not take and give
    the same things.
    """
    match_inputs(a, input_specs(b))
    if len(a.graph.outputs) != len(b.graph.outputs):
        raise InputError(f"{names[0]} has {len(a.graph.outputs)} outputs, {names[1]} has {len(b.graph.outputs)}")
    override = None if atol is None and rtol is None else Override(atol or 0.0, rtol or 0.0)
    return judge(
        a,
        _sites(a),
        [Subject(name, name, b) for name in runtimes],
        model_cases(input_specs(a), dims=dims) if cases is None else cases,
        names=names,
        title=title,
        command=command,
        override=override,
        in_place=in_place,
        progress=progress,
    )


def judge(
    reference: "ir.Model",
    sites: "Sequence[GroupNormSite]",
    subjects: Sequence[Subject],
    cases: Sequence[Case],
    *,
    oracle: "Session | None" = None,
    names: tuple[str, str] = ("reference", "candidate"),
    title: str = "parity",
    command: str = "",
    override: Override | None = None,
    in_place: bool = True,
    progress: Callable[[str], None] | None = None,
) -> ParityReport:
    """Every subject against the reference's specs, parameters and float64 graph.

    1. A site is judged by its probe and, when ``in_place``, on the values the network brings to it.
    2. Outputs are judged on conditioned cases only, against ``oracle``: the reference in float64, opened here
       when it is not given; without one they are NOTRUN with the reason.
    3. A runtime that is absent is NOTRUN, one that fails is CRASH; neither stops the others.
    """
    tell = progress or (lambda _: None)
    whole: EndToEnd | str
    own: Session | None = None
    try:
        if oracle is None:
            oracle = own = open_oracle(reference)
        whole = EndToEnd(reference, oracle)
    except GnDeployError as error:
        whole = f"no float64 oracle: {error.message}"
    findings = []
    for subject in subjects:
        tell(f"{subject.label}: judging {len(sites)} GroupNorm(s)")
        findings.append(_subject(reference, sites, subject, cases, whole, override, in_place))
    if isinstance(whole, EndToEnd):
        whole.close()
    if own is not None:
        own.close()
    return ParityReport(
        reference=names[0],
        candidate=names[1],
        runtimes=tuple(f.runtime for f in findings),
        sites=tuple(v for f in findings for v in f.sites),
        outputs=tuple(v for f in findings for v in f.outputs),
        unpaired=tuple(dict.fromkeys(text for f in findings for text in f.unpaired)),
        environment=_environment() | {f.runtime.runtime: f.runtime.version for f in findings if f.runtime.version},
        command=command,
        title=title,
    )


def match_inputs(reference: "ir.Model", candidate: Sequence[InputSpec]) -> dict[str, InputSpec]:
    """Reference input name -> the candidate's input: by name when all names agree, else by position.

    Raises InputError when count, kind (float, integer, boolean), rank or a static size differs.
    """
    wanted = input_specs(reference)
    if len(wanted) != len(candidate):
        raise InputError(
            f"the models take {len(wanted)} and {len(candidate)} inputs",
            f"{', '.join(s.name for s in wanted)} against {', '.join(s.name for s in candidate)}",
        )
    named = {s.name: s for s in candidate}
    same = named.keys() == {s.name for s in wanted}
    found = {s.name: named[s.name] if same else candidate[i] for i, s in enumerate(wanted)}
    for spec in wanted:
        other = found[spec.name]
        kinds = [np.dtype(s.dtype).kind if s.dtype not in FLOAT_DTYPES else "f" for s in (spec, other)]
        sizes = zip(spec.shape, other.shape, strict=False)
        clash = any(isinstance(x, int) and isinstance(y, int) and x != y for x, y in sizes)
        if kinds[0] != kinds[1] or len(spec.shape) != len(other.shape) or clash:
            raise InputError(
                f"input '{spec.name}' is {spec.dtype}{list(spec.shape)} in one model, "
                f"'{other.name}' is {other.dtype}{list(other.shape)} in the other",
                "the models must take the same inputs",
            )
    return found


def _subject(
    reference: "ir.Model",
    sites: "Sequence[GroupNormSite]",
    subject: Subject,
    cases: Sequence[Case],
    whole: EndToEnd | str,
    override: Override | None,
    in_place: bool,
) -> _Findings:
    start = time.perf_counter()
    entry = RUNTIMES.get(resolve(subject.runtime))
    reason = entry.reason if isinstance(entry, Unavailable) else ""
    ran, package = None, ""
    if not isinstance(entry, Unavailable):
        probed = entry.probe()
        ran, package = probed.run, probed.version or ""
        reason = "" if ran else ran.reason
    found = _Findings(RuntimeVerdict(subject.label, Status.NOTRUN, package, reason=reason), [], [], [])
    if isinstance(entry, Unavailable) or not ran:
        return found
    precision = ""
    try:
        fed = _feeds(reference, subject.model, cases)
        session = entry.open(subject.model)
        try:
            precision = session.precision
            used = "+".join([precision, *_float_dtypes(subject.model)])
            answers = {c.name: session.run(c.feeds) for c in fed if c.conditioned}
            _judge_sites(found, reference, sites, subject, entry, session, fed, override, in_place)
        finally:
            session.close()
        _judge_outputs(found, reference, subject, fed, answers, whole, used, override)
        status = worst([v.status for v in found.sites] + [v.status for v in found.outputs])
        reason = "" if status is not Status.NOTRUN else "nothing could be judged"
    except UnavailableError as error:
        status, reason = Status.NOTRUN, error.message
    except InputError:
        raise
    except GnDeployError as error:
        status, reason = Status.CRASH, error.message
    seconds = time.perf_counter() - start
    found.runtime = replace(found.runtime, status=status, precision=precision, reason=reason, seconds=seconds)
    return found


def _judge_sites(
    found: _Findings,
    reference: "ir.Model",
    sites: "Sequence[GroupNormSite]",
    subject: Subject,
    runtime: "Runtime",
    session: "Session",
    cases: Sequence[Case],
    override: Override | None,
    in_place: bool,
) -> None:
    import onnx_ir as ir

    evidence: dict[Pair, list[Evidence]]
    if isinstance(subject.model, ir.Model):
        pairing = pair(reference, sites, subject.model, _sites(subject.model))
        evidence = probe(pairing.pairs, subject.model, runtime, override)
        if in_place:
            for p, more in evidence_in_place(pairing.pairs, subject.model, runtime, cases, override).items():
                evidence[p] = [*evidence[p], *more]
    elif isinstance(session, Listening):
        plain = tuple(
            Pair(s, replace(s.spec, activation=Activation.NONE), s.input, s.output, "module", "module path")
            for s in sites
        )
        pairing = Pairing(plain, ())
        evidence = evidence_in_torch(plain, session, cases, override)
    else:
        pairing = Pairing((), tuple((s, "an engine does not show its inner values") for s in sites))
        evidence = {}
    found.sites += [verdict(p, subject.label, evidence[p], override) for p in pairing.pairs]
    found.unpaired += [f"{s.name}: {why}" for s, why in pairing.unpaired]


def _judge_outputs(
    found: _Findings,
    reference: "ir.Model",
    subject: Subject,
    fed: Sequence[Case],
    answers: Mapping[str, Mapping[str, Array]],
    whole: EndToEnd | str,
    precision: str,
    override: Override | None,
) -> None:
    wanted = [str(v.name) for v in reference.graph.outputs]
    conditioned = [case for case in fed if case.conditioned]
    if isinstance(whole, str) or not conditioned:
        why = whole if isinstance(whole, str) else "no case on which a whole network can be judged"
        found.outputs += [OutputVerdict(name, subject.label, Status.NOTRUN, reason=why) for name in wanted]
        return
    given = answers[conditioned[0].name].keys()
    if len(given) != len(wanted):
        raise InputError(f"{subject.label} gives {len(given)} outputs, the reference {len(wanted)}")
    mine = {n: n for n in wanted} if given == set(wanted) else dict(zip(wanted, given, strict=True))
    judged = bool(found.sites) and not found.unpaired and all(v.status is not Status.NOTRUN for v in found.sites)
    # The oracle is fed what the runtime received, rounding and all, under the reference's own names.
    inputs = [s.name for s in input_specs(reference)]
    received = [replace(c, feeds=dict(zip(inputs, c.feeds.values(), strict=True))) for c in conditioned]
    for name in wanted:
        arrays = {case.name: answers[case.name][mine[name]] for case in received}
        options: dict[str, Any] = {"precision": precision, "sites_judged": judged, "override": override}
        try:
            found.outputs.append(whole.judge(subject.label, name, arrays, received, **options))
        except RuntimeFailure as error:  # of the oracle: it says nothing about the subject
            why = f"no float64 oracle: {error.message}"
            found.outputs.append(OutputVerdict(name, subject.label, Status.NOTRUN, reason=why))


def _float_dtypes(model: Any) -> list[str]:
    """What a model stores numbers in, whatever the runtime says it computes in."""
    import onnx_ir as ir

    if not isinstance(model, ir.Model):
        return []
    values = [*model.graph.initializers.values(), *(v for node in model.graph for v in node.outputs)]
    return sorted({str(v.dtype.numpy()) for v in values if v.dtype is not None and v.dtype.is_floating_point()})


def _sites(model: "ir.Model") -> "list[GroupNormSite]":
    """With their activations, so that what is judged ends at a value that every spelling keeps."""
    from gn_deploy.passes.fuse_activation import fuse_activation
    from gn_deploy.sites import find

    return [fuse_activation(site) for site in find(model).sites]


def _feeds(reference: "ir.Model", model: Any, cases: Sequence[Case]) -> list[Case]:
    """The cases under the subject's own input names and in its dtypes, inputs in the order of the reference's."""
    import onnx_ir as ir

    specs = input_specs(reference)
    match = {s.name: s for s in specs}
    if isinstance(model, ir.Model):
        match = match_inputs(reference, input_specs(model))
    elif not isinstance(model, Path) and match.keys() != set(model.input_names):
        match = {s.name: replace(s, name=own) for s, own in zip(specs, model.input_names, strict=True)}
    fed = []
    for case in cases:
        if missing := [s.name for s in specs if s.name not in case.feeds]:
            raise InputError(f"case '{case.name}' has no array for input '{missing[0]}'")
        fed.append(replace(case, feeds={own.name: case.feeds[n].astype(own.dtype) for n, own in match.items()}))
    return fed


def _environment() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
