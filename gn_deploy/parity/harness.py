"""The comparison itself: one reference, any number of models on runtimes, one report."""

import platform
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np

from gn_deploy.errors import GnDeployError, InputError
from gn_deploy.parity.cases import Case, input_specs
from gn_deploy.parity.comparison import Comparison
from gn_deploy.parity.confidence import Tally, Until
from gn_deploy.parity.end_to_end import EndToEnd
from gn_deploy.parity.inputs import match_inputs
from gn_deploy.parity.oracle import REFERENCE_RUNTIME, open_oracle
from gn_deploy.parity.per_site import Override
from gn_deploy.parity.progress import Tell
from gn_deploy.parity.redraw import redraw
from gn_deploy.parity.report import Noticed, ParityReport
from gn_deploy.parity.sizes import drawn
from gn_deploy.parity.status import Status, acceptable
from gn_deploy.parity.subject import Findings, Standard, Subject, find_sites
from gn_deploy.parity.together import together
from gn_deploy.runtimes import asked_precision

if TYPE_CHECKING:
    import onnx_ir as ir

    from gn_deploy.forms.base import GroupNormSite
    from gn_deploy.runtimes.base import Session
    from gn_deploy.runtimes.isolated import Limits

__all__ = ["REFERENCE_RUNTIME", "Subject", "compare", "judge"]

_PACKAGES = ("gn-deploy", "numpy", "onnx", "onnx_ir")


@dataclass(frozen=True, slots=True, eq=False)
class Compared:
    """A comparison as it was made, for what is done after it by the same standard, whose oracle is still open."""

    standard: Standard
    subjects: Sequence[Subject]
    cases: Sequence[Case]
    """The first ones, as many as are held at once."""
    findings: Sequence[Findings]
    accepted: Collection[Status]
    tell: Tell


After = Callable[[Compared], tuple[Noticed, ...]]


def compare(
    a: "ir.Model",
    b: "ir.Model",
    *,
    runtimes: Sequence[str] = (REFERENCE_RUNTIME,),
    cases: Iterable[Case] | None = None,
    dims: Mapping[str, int | Sequence[int]] | None = None,
    sizes: str | None = None,
    until: Until | None = None,
    redrawn: bool = False,
    atol: float | None = None,
    rtol: float | None = None,
    network: bool = True,
    names: tuple[str, str] = ("a", "b"),
    title: str = "parity",
    command: str = "",
    accept: Sequence[str] = (),
    limits: "Limits | None" = None,
    progress: Tell | None = None,
    after: After | None = None,
) -> ParityReport:
    """Whether ``b`` on each runtime computes what ``a`` means.

    ``a`` gives the truth: its GroupNorms' specs and parameters, and its graph in float64. Without ``cases`` (named by
    a's inputs) families are drawn at every combination of the sizes in ``dims``, or with ``sizes="auto"`` also at those
    that find most; see ``sizes.drawn``. With ``until`` fresh inputs are drawn, or ``cases`` taken, until the verdict
    is settled. ``redrawn`` judges once more, on drawn inputs, with other scales and biases. ``atol`` and ``rtol``
    replace every derived bound; ``accept`` names verdicts to be taken for held.
    ``network=False`` probes the GroupNorms and runs neither network, for models too large to evaluate.
    With ``limits`` each runtime runs in a process of its own, which may take that much.
    Sites are found best in normalized models. Raises InputError when the models do not take and give the same things.
    """
    accepted = acceptable(accept)
    for name in runtimes:
        asked_precision(name)
    match = match_inputs(a, input_specs(b))
    if len(a.graph.outputs) != len(b.graph.outputs):
        raise InputError(f"{names[0]} has {len(a.graph.outputs)} outputs, {names[1]} has {len(b.graph.outputs)}")
    if network and cases is None:
        cases = drawn(input_specs(a), list(match.values()), dims=dims, sizes=sizes, endless=until is not None)
    override = None if atol is None and rtol is None else Override(atol or 0.0, rtol or 0.0)
    options: dict[str, Any] = {
        "network": network, "names": names, "title": title, "command": command, "limits": limits,
        "override": override, "accepted": accepted, "progress": progress,
    }  # fmt: skip
    anew = redraw(a, b) if redrawn else None
    plainly = None if anew and anew.sites else after  # what hides with plain parameters may show with others
    subjects = [Subject(name, name, b) for name in runtimes]
    report = judge(a, find_sites(a), subjects, cases or (), until=until, after=plainly, **options)
    if anew is None:
        return report
    notes = (*report.notes, *anew.notes)
    if not anew.sites:
        return replace(report, notes=notes)
    again_on = drawn(input_specs(a), list(match.values()), dims=dims) if network else ()
    subjects = [Subject(name, name, anew.candidate) for name in runtimes]
    again = judge(anew.reference, find_sites(anew.reference), subjects, again_on, after=after, **options)
    return replace(together(report, again, "redrawn"), notes=notes, noticed=again.noticed)


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
    until: Until | None = None,
    accepted: tuple[Status, ...] = (),
    progress: Tell | None = None,
    after: After | None = None,
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
    7. With ``until`` no more cases are taken than it takes to settle the verdict; ``confidence`` says how sure it is.
    8. ``after`` is called before the oracle is closed; what it gives is ``noticed`` in the report.
    """
    own: Session | None = None
    whole: EndToEnd | str = "only probes were asked for"
    if network:
        try:
            if oracle is None:
                oracle = own = open_oracle(reference)
            whole = EndToEnd(reference, oracle)
        except GnDeployError as error:
            whole = f"no float64 oracle: {error.message}"
    standard = Standard(reference, sites, network, whole, override, limits, accepted)
    tally = Tally(until) if until is not None and network else None
    comparison = Comparison(subjects, standard, progress or (lambda _: None), tally, again=after is not None)
    try:
        findings = comparison.run(cases if network else ())
        done = Compared(standard, subjects, comparison.kept, findings, accepted, progress or (lambda _: None))
        noticed = () if after is None else after(done)
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
        notes=comparison.notes,
        accepted=accepted,
        noticed=noticed,
        confidence=None if tally is None else tally.confidence(),
    )


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
