"""Three or more runtimes on what is broken: who agrees with whom, and who is right by the float64 oracle."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from gn_deploy.diagnosis.deployed import Deployed
from gn_deploy.diagnosis.judge import promised
from gn_deploy.diagnosis.locate_site import region_of, site_case
from gn_deploy.errors import GnDeployError
from gn_deploy.parity.cases import Array, Case
from gn_deploy.parity.end_to_end import PASS_RATIO, EndToEnd
from gn_deploy.parity.inputs import fed_to
from gn_deploy.parity.operands import for_oracle
from gn_deploy.parity.oracle import open_oracle
from gn_deploy.parity.pairing import Pair, pair
from gn_deploy.parity.per_site import channels
from gn_deploy.parity.report import ParityReport, SiteVerdict, Vote
from gn_deploy.parity.status import Status
from gn_deploy.parity.subject import find_sites
from gn_deploy.parity.tolerance import bounds
from gn_deploy.rounding import coarser

if TYPE_CHECKING:
    import onnx_ir as ir

FEWEST = 3  # of two, nobody is alone
_SITES = 8  # broken GroupNorms that are voted on, the worst: each is run on every runtime

Ballot = Mapping[str, tuple[Array, Array]]
"""Runtime -> its answer, and how far it may be from what is right, number by number."""


def votes(
    report: ParityReport,
    reference: "ir.Model",
    candidate: "ir.Model",
    cases: Iterable[Case],
    deployed: Sequence[Deployed],
) -> tuple[Vote, ...]:
    """One vote for every broken output, on the case on which it is worst, and for the worst broken GroupNorms.

    All runtimes are fed the same: the network its case, a GroupNorm alone one family of inputs. Two agree where they
    are no further apart than both may be from what is right; who is right is not voted on, the oracle says it. A
    runtime that fails has no vote. Nothing when fewer than three have run, or nothing is broken.
    """
    ran = {v.runtime for v in report.runtimes if v.status not in (Status.NOTRUN, Status.CRASH, Status.TIMEOUT)}
    voters = [one for one in deployed if one.label in ran]
    if len(voters) < FEWEST:
        return ()
    return (*_outputs(report, reference, candidate, cases, voters), *_sites(report, reference, candidate, voters))


def camps(labels: Sequence[str], agree: Callable[[str, str], bool]) -> tuple[tuple[str, ...], ...]:
    """Who agrees with everybody else in the camp, the largest first; agreement need not be transitive, so that the
    first that fits is taken."""
    found: list[list[str]] = []
    for label in labels:
        home = next((camp for camp in found if all(agree(label, other) for other in camp)), None)
        if home is None:
            found.append([label])
        else:
            home.append(label)
    return tuple(tuple(camp) for camp in sorted(found, key=len, reverse=True))


def _outputs(
    report: ParityReport,
    reference: "ir.Model",
    candidate: "ir.Model",
    cases: Iterable[Case],
    voters: Sequence[Deployed],
) -> list[Vote]:
    broken = {v.output: v.case for v in report.outputs if v.status.broken and v.status is not Status.NOTRUN}
    if not broken:
        return []
    wanted = {case.name: case for case in cases if case.name in set(broken.values())}
    names = [str(v.name) for v in reference.graph.outputs]
    try:
        oracle = open_oracle(reference)
    except GnDeployError:  # without an oracle nobody can be said to be right
        return []
    whole = EndToEnd(reference, oracle)
    found = []
    try:
        for name, at in broken.items():
            if at not in wanted:
                continue
            case = wanted[at]
            (fed,) = fed_to(reference, candidate, [case])
            ballot = {}
            for one in voters:
                answer = _answers(one, candidate, fed)
                if answer is None:
                    continue
                got = answer.get(name, list(answer.values())[names.index(name)])
                want, noise = whole.scale(name, case, promised(candidate, one.asked))
                ballot[one.label] = got, np.full(want.shape, PASS_RATIO * noise)
            found += _count(name, at, ballot, want)
    except GnDeployError:  # it opens a network that it cannot evaluate
        return found
    finally:
        whole.close()
        oracle.close()
    return found


def _sites(
    report: ParityReport, reference: "ir.Model", candidate: "ir.Model", voters: Sequence[Deployed]
) -> list[Vote]:
    worst: dict[str, SiteVerdict] = {}
    for verdict in report.sites:
        if verdict.status.broken and _size(verdict) > _size(worst.get(verdict.site)):
            worst[verdict.site] = verdict
    chosen = sorted(worst.values(), key=_size, reverse=True)[:_SITES]
    if not chosen:
        return []
    pairs = {p.site.name: p for p in pair(reference, find_sites(reference), candidate, find_sites(candidate)).pairs}
    found = []
    for verdict in [v for v in worst.values() if v in chosen]:
        if verdict.site in pairs:
            try:
                found += _site(pairs[verdict.site], verdict, candidate, voters)
            except GnDeployError:  # its region cannot be fed alone
                continue
    return found


def _site(pair: Pair, verdict: SiteVerdict, candidate: "ir.Model", voters: Sequence[Deployed]) -> list[Vote]:
    region = region_of(candidate, pair)
    case = site_case(pair, verdict, region)
    spec = pair.spec
    x = case.feeds[str(pair.input.name)]
    scale, bias = channels(pair.site.scale, spec), channels(pair.site.bias, spec)
    operands = {name: case.feeds[str(v.name)] for name, v in pair.operands.items() if str(v.name) in case.feeds}
    around = for_oracle(operands, x, spec.channel_axis)
    ballot = {}
    want: Array | None = None
    for one in voters:
        answer = _answers(one, region, case)
        if answer is None:
            continue
        got = answer[str(pair.output.name)]
        dtype = coarser(got.dtype.name, *([one.asked] if one.asked else []))
        limits = bounds(x, spec, scale, bias, dtype=dtype, **around)
        want = limits.reference
        ballot[one.label] = got.reshape(want.shape) if got.size == want.size else got, limits.two_pass
    return [] if want is None else _count(verdict.module or verdict.site, case.family, ballot, want)


def _answers(one: Deployed, model: "ir.Model", case: Case) -> dict[str, Array] | None:
    try:
        session = one.opened(model)
        try:
            return session.run(case.feeds)
        finally:
            session.close()
    except GnDeployError:
        return None


def _count(place: str, case: str, ballot: Ballot, want: Array) -> list[Vote]:
    if len(ballot) < FEWEST:
        return []

    def agree(one: str, other: str) -> bool:
        (a, allowed), (b, too) = ballot[one], ballot[other]
        return _near(a, b, allowed + too)

    right = tuple(label for label, (got, allowed) in ballot.items() if _near(got, want, allowed))
    return [Vote(place, case, camps(list(ballot), agree), right)]


def _near(a: Array, b: Array, allowed: Array) -> bool:
    if a.shape != b.shape:
        return False
    if a.dtype.kind in "biu" and b.dtype.kind in "biu":
        return bool(np.array_equal(a, b))
    one, other = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(all="ignore"):
        same = (one == other) | (np.isnan(one) & np.isnan(other)) | np.isposinf(allowed)
        return bool((same | (np.abs(one - other) <= allowed)).all())


def _size(verdict: SiteVerdict | None) -> float:
    if verdict is None:
        return -1.0
    return verdict.metrics.error_over_bound if verdict.metrics is not None else 0.0
