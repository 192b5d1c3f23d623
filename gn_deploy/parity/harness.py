"""The comparison itself: one reference, any number of models on runtimes, one report."""

import platform
from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np

from gn_deploy.errors import GnDeployError, InputError
from gn_deploy.parity.cases import Case, input_specs, model_cases
from gn_deploy.parity.end_to_end import EndToEnd
from gn_deploy.parity.inputs import match_inputs
from gn_deploy.parity.oracle import REFERENCE_RUNTIME, open_oracle
from gn_deploy.parity.per_site import Override
from gn_deploy.parity.progress import Progress, Tell
from gn_deploy.parity.report import ParityReport
from gn_deploy.parity.status import acceptable
from gn_deploy.parity.stream import batches
from gn_deploy.parity.subject import Examination, Findings, Standard, Subject, find_sites
from gn_deploy.runtimes import asked_precision

if TYPE_CHECKING:
    import onnx_ir as ir

    from gn_deploy.forms.base import GroupNormSite
    from gn_deploy.runtimes.base import Session
    from gn_deploy.runtimes.isolated import Limits

__all__ = ["REFERENCE_RUNTIME", "Subject", "compare", "judge"]

_PACKAGES = ("gn-deploy", "numpy", "onnx", "onnx_ir")


def compare(
    a: "ir.Model",
    b: "ir.Model",
    *,
    runtimes: Sequence[str] = (REFERENCE_RUNTIME,),
    cases: Iterable[Case] | None = None,
    dims: Mapping[str, int] | None = None,
    atol: float | None = None,
    rtol: float | None = None,
    network: bool = True,
    names: tuple[str, str] = ("a", "b"),
    title: str = "parity",
    command: str = "",
    accept: Sequence[str] = (),
    limits: "Limits | None" = None,
    progress: Tell | None = None,
) -> ParityReport:
    """Whether ``b`` on each runtime computes what ``a`` means.

    ``a`` gives the truth: its GroupNorms' specs and parameters, and its graph in float64. Without ``cases`` (named by
    a's inputs) families are drawn, dynamic dims taking the sizes in ``dims``. ``atol`` and ``rtol`` replace every
    derived bound; ``accept`` names verdicts to be taken for held. ``network=False`` probes the GroupNorms and runs
    neither network, for models too large to evaluate.
    With ``limits`` each runtime runs in a process of its own, which may take that much.
    Sites are found best in normalized models. Raises InputError when the models do not take and give the same things.
    """
    accepted = acceptable(accept)
    for name in runtimes:
        asked_precision(name)
    match_inputs(a, input_specs(b))
    if len(a.graph.outputs) != len(b.graph.outputs):
        raise InputError(f"{names[0]} has {len(a.graph.outputs)} outputs, {names[1]} has {len(b.graph.outputs)}")
    if network and cases is None:
        cases = model_cases(input_specs(a), dims=dims)
    report = judge(
        a,
        find_sites(a),
        [Subject(name, name, b) for name in runtimes],
        cases or (),
        network=network,
        names=names,
        title=title,
        command=command,
        limits=limits,
        override=None if atol is None and rtol is None else Override(atol or 0.0, rtol or 0.0),
        progress=progress,
    )
    return replace(report, accepted=accepted)


def judge(
    reference: "ir.Model",
    sites: "Sequence[GroupNormSite]",
    subjects: Sequence[Subject],
    cases: Iterable[Case],
    *,
    oracle: "Session | None" = None,
    network: bool = True,
    names: tuple[str, str] = ("reference", "candidate"),
    title: str = "parity",
    command: str = "",
    override: Override | None = None,
    limits: "Limits | None" = None,
    progress: Tell | None = None,
) -> ParityReport:
    """Every subject against the reference's specs, parameters and float64 graph.

    1. A site is judged by its probe and on the values the network brings to it.
    2. Outputs are judged on conditioned cases only, against ``oracle``: the reference in float64, opened here
       when it is not given; without one they are NOTRUN with the reason.
    3. With ``network=False`` probes alone judge: neither the reference nor a subject is run, ``cases`` play no part.
    4. A runtime that is absent or has no kernel is NOTRUN, one that is too slow TIMEOUT, one that fails CRASH; none of
       them stops the others.
    5. ``cases`` may be any stream, also one larger than memory: it is read once and a few cases are held at a time.
    6. With ``limits`` a runtime has a process of its own. A TorchModel that cannot
       be made again over there runs here.
    """
    tell = progress or (lambda _: None)
    own: Session | None = None
    whole: EndToEnd | str = "only probes were asked for"
    if network:
        try:
            if oracle is None:
                oracle = own = open_oracle(reference)
            whole = EndToEnd(reference, oracle)
        except GnDeployError as error:
            whole = f"no float64 oracle: {error.message}"
    standard = Standard(reference, sites, network, whole, override, limits)
    try:
        findings = _examine(subjects, cases if network else (), standard, tell)
    finally:
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


def _examine(subjects: Sequence[Subject], cases: Iterable[Case], by: Standard, tell: Tell) -> list[Findings]:
    """Every subject on every case. The stream is read once: while more is to come, all subjects stay open."""
    total = len(cases) if isinstance(cases, Sized) else None
    opened: list[Examination] = []
    done = 0
    try:
        for batch, last in batches(cases):
            for i, subject in enumerate(subjects):
                tell(Progress(f"{subject.label}: judging {len(by.sites)} GroupNorm(s)", done, total))
                if i == len(opened):
                    opened.append(Examination(subject, by))
                opened[i].take(batch, last=last)
            if isinstance(by.whole, EndToEnd):
                by.whole.forget()
            done += len(batch)
            del batch  # before the next one is read
        for subject in subjects[len(opened) :]:  # there was no case
            tell(Progress(f"{subject.label}: probing {len(by.sites)} GroupNorm(s)"))
            opened.append(Examination(subject, by))
        return [examination.finish() for examination in opened]
    finally:
        for examination in opened:
            examination.close()


def _environment() -> dict[str, str]:
    """What a difference between two machines may come from; nothing that tells one machine from its like."""
    cpu = " ".join((platform.machine(), *_vector_extensions()))
    found = {"python": platform.python_version(), "system": platform.system(), "cpu": cpu}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _vector_extensions() -> list[str]:
    """The newest that NumPy found in the CPU: they decide which kernels and which precision a runtime picks."""
    told: Any = np.show_config(mode="dicts")
    extensions = told.get("SIMD Extensions", {})
    return [*extensions.get("baseline", ()), *extensions.get("found", ())][-1:]
