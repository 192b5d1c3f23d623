"""Whether a comparison would have noticed: faults seeded into its candidate one at a time, judged as that was."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from gn_deploy.decision import Rejected
from gn_deploy.errors import GnDeployError
from gn_deploy.faults import FAULTS
from gn_deploy.graph.cut import tap
from gn_deploy.graph.subgraphs import subgraphs
from gn_deploy.mutation.effect import EFFECTIVE, Exact, probed, read_by
from gn_deploy.mutation.reasons import BROKEN, cannot_act, no_effect, unnoticed
from gn_deploy.mutation.seeding import seed
from gn_deploy.parity.harness import Compared
from gn_deploy.parity.inputs import fed_to
from gn_deploy.parity.pairing import Pair, pair
from gn_deploy.parity.progress import Progress
from gn_deploy.parity.report import Noticed, ParityReport
from gn_deploy.parity.status import Status
from gn_deploy.parity.subject import Examination, Findings, Subject, find_sites
from gn_deploy.runtimes import RUNTIMES, resolve

if TYPE_CHECKING:
    from gn_deploy.forms.base import GroupNormSite

SECONDS = 600.0  # a network of 50 GroupNorms and 40 faults are 2,000 comparisons: nobody waits for all of them
_SAID = 2  # reasons in a row of the table; the most frequent ones
_DEAD = (Status.CRASH, Status.TIMEOUT, Status.NOTRUN)


@dataclass(slots=True)
class _Row:
    """What becomes of one fault."""

    seeded: int = 0
    effective: int = 0
    noticed: int = 0
    named: int = 0
    missed: list[str] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)

    def told(self, fault: str, tried: str) -> Noticed:
        said = [
            f"{why}{f' ({count} GroupNorms)' if count > 1 else ''}" for why, count in self.reasons.most_common(_SAID)
        ]
        more = len(self.reasons) - _SAID
        said += [f"{more} more reason{'s' * (more > 1)}"] * (more > 0)
        said += [tried] * bool(tried)
        counts = (self.seeded, self.effective, self.noticed, self.named)
        return Noticed(fault, *counts, missed=tuple(self.missed), reason="; ".join(said))


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """Seeds ``faults`` into the GroupNorms of the candidate, and judges each seeded model by the comparison's standard.

    1. GroupNorms are taken in an order that is spread over the depth of the network at any time, so that what
       ``seconds`` leave undone is an even part of it. At least one is seeded with every fault.
    2. What does not depend on the seeded one is not judged again; the oracle's answers are those of the comparison.
    3. Noticed: something is broken that was not before. Named: of the GroupNorms only the seeded one.
    4. A seeded model is judged on one case after the other until it is noticed.
    """

    faults: Sequence[str] = tuple(FAULTS)
    seconds: float = SECONDS

    def __call__(self, compared: Compared) -> tuple[Noticed, ...]:
        alive = [
            (subject, found)
            for subject, found in zip(compared.subjects, compared.findings, strict=True)
            if isinstance(subject.model, ir.Model) and found.runtime.status not in _DEAD
        ]
        if not alive:
            why = "no runtime ran the candidate as it is"
            return tuple(Noticed(fault, 0, 0, 0, 0, reason=why) for fault in self.faults)
        stage = _Stage(compared, alive)
        rows = {fault: _Row() for fault in self.faults}
        order = [*_spread(len(stage.sites))]
        start, done = time.monotonic(), 0
        for turn, at in enumerate(order):
            place = _Place(stage, stage.sites[at])
            for fault, row in rows.items():
                if turn and time.monotonic() - start > self.seconds:
                    tried = f"{turn} of {len(order)} GroupNorms were tried in {self.seconds:g} seconds"
                    return tuple(row.told(fault, tried) for fault, row in rows.items())
                done += 1
                total = len(order) * len(rows)
                compared.tell(Progress(f"would it notice '{fault}' in {place.name}? {done} of {total}"))
                place.try_out(fault, row)
        return tuple(row.told(fault, "") for fault, row in rows.items())


class _Stage:
    """The comparison that every seeded model goes through again."""

    def __init__(self, compared: Compared, alive: Sequence[tuple[Subject, Findings]]) -> None:
        self.compared, self.accepted = compared, compared.accepted
        self.subjects = [subject for subject, _ in alive]
        self.model: ir.Model = self.subjects[0].model
        self.sites = find_sites(self.model)
        standard = compared.standard
        self.pairs = {p.site: p for p in pair(standard.reference, standard.sites, self.model, self.sites).pairs}
        self.before = {subject.label: self.alarms([found]) for subject, found in alive}
        self.verdicts = {verdict.site: verdict for _, found in alive for verdict in found.sites}
        self.cases = fed_to(standard.reference, self.model, compared.cases)

    def alarms(self, findings: Sequence[Findings]) -> set[tuple[str, str]]:
        """("site" or another word, name) of everything that keeps the comparison from holding."""
        report = ParityReport(
            reference="",
            candidate="",
            runtimes=(),
            sites=tuple(v for f in findings for v in f.sites),
            outputs=tuple(v for f in findings for v in f.outputs),
            unpaired=tuple(text for f in findings for text in f.unpaired),
        )
        found = {("site", v.site) for v in report.sites if v.status.broken and v.status not in self.accepted}
        found |= {("output", v.output) for v in report.outputs if v.status.broken and v.status not in self.accepted}
        return found | {("unjudged", text) for text in (report.unpaired if not report.outputs else ())}

    def examine(self, model: ir.Model, subject: Subject, seeded: "_Place") -> Findings:
        by = replace(self.compared.standard, known=seeded.known)
        examination = Examination(Subject(subject.label, subject.runtime, model), by)
        quiet = not self.before[subject.label]
        try:
            for at, case in enumerate(self.compared.cases):
                examination.take([case], last=at + 1 == len(self.compared.cases))
                if quiet and examination.broken:
                    break
            return examination.finish()
        finally:
            examination.close()


class _Place:
    """One GroupNorm of the candidate, in which every fault has its turn."""

    def __init__(self, stage: _Stage, site: "GroupNormSite") -> None:
        self.stage, self.site = stage, site
        self.name = site.module or site.name
        own = {layer.output for layer in site.layers}
        last = site.bare.output.producer()
        pairs = stage.pairs.values()
        judged = next((p for p in pairs if p.output in own), None)
        judged = judged or next((p for p in pairs if last in p.region), None)
        self.pair: Pair | None = judged

    def try_out(self, fault: str, row: _Row) -> None:
        if self.pair and any(("site", self.pair.site.name) in alarms for alarms in self.stage.before.values()):
            row.reasons[BROKEN] += 1
            return
        moved, why = self._moved(fault)
        if moved is None:
            row.reasons[cannot_act(why)] += 1
            return
        model = seed(self.stage.model, self.site, fault)
        if isinstance(model, Rejected):
            row.reasons[cannot_act(model.reason)] += 1
            return
        row.seeded += 1
        if moved <= EFFECTIVE:
            row.reasons[no_effect(FAULTS[fault], self.site)] += 1
            return
        named = False
        new: set[tuple[str, str]] = set()
        failed = ""
        for subject in self.stage.subjects:
            found = self.stage.examine(model, subject, self)
            if found.runtime.status in _DEAD:
                failed = f"{subject.label} could not run it: {found.runtime.reason}"
                continue
            new |= self.stage.alarms([found]) - self.stage.before[subject.label]
            named = {name for kind, name in new if kind == "site"} == {self.pair and self.pair.site.name}
            if named:
                break
        if failed and not new:
            row.seeded -= 1
            row.reasons[failed] += 1
            return
        row.effective += 1
        row.noticed += bool(new)
        row.named += named
        if not new:
            row.missed.append(self.name)
            verdict = self.stage.verdicts.get(self.pair.site.name) if self.pair else None
            override = self.stage.compared.standard.override
            row.reasons[unnoticed(FAULTS[fault], self.calls, override, verdict)] += 1

    def _moved(self, fault: str) -> tuple[float | None, str]:
        """How far the fault moves the answer on the data that moves it at all; None and why where it cannot act."""
        most, why = None, "nothing is known of what reaches it"
        for call in self.calls:
            moved = call.moved(FAULTS[fault])
            if isinstance(moved, Rejected):
                why = moved.reason
                continue
            most = max(moved, most or 0.0)
            if most > EFFECTIVE:
                break
        return most, why

    def known(self, other: Pair, kind: str) -> bool:
        """Whether what was found out about another GroupNorm still holds: it is the same, and is fed the same."""
        before = self.stage.pairs.get(other.site)
        if before is None or _names(before) != _names(other) or other.site is (self.pair and self.pair.site):
            return False
        return kind == "probe" or before.site.name not in self._reached

    @cached_property
    def _reached(self) -> set[str]:
        """Names of the reference's sites that the seeded one's answer reaches, its own left out."""
        reached = {layer.output for layer in self.site.layers}
        for node in self.stage.model.graph:
            if any(v in reached for v in node.inputs) or _holds(node, reached):
                reached.update(node.outputs)
        main = {v for node in self.stage.model.graph for v in node.outputs}
        return {
            p.site.name
            for p in self.stage.pairs.values()
            if p.input in reached or p.output not in main or any(v in reached for v in p.operands.values())
        }

    @cached_property
    def calls(self) -> list[Exact]:
        """What the unseeded candidate is fed here, in each case and in the probe."""
        return [*self._in_place(), *self._probed()]

    def _in_place(self) -> Iterator[Exact]:
        stage = self.stage
        names = {str(v.name) for v in read_by(self.site)}
        main = {v.name for node in stage.model.graph for v in node.outputs} | {v.name for v in stage.model.graph.inputs}
        if not stage.cases or not names <= main:
            return
        inputs = {v.name for v in stage.model.graph.inputs}
        try:
            runtime = RUNTIMES.require(resolve(stage.subjects[0].runtime))
            session = runtime.open(tap(stage.model, sorted(names - inputs)))
            try:
                for case in stage.cases:
                    values: dict[str, Any] = {**case.feeds, **session.run(case.feeds)}
                    yield Exact(self.site, case.name, {name: values[name] for name in names})
            finally:
                session.close()
        except GnDeployError:
            return  # the probe is left

    def _probed(self) -> Iterator[Exact]:
        verdict = self.stage.verdicts.get(self.pair.site.name) if self.pair else None
        if verdict is not None and any(case.startswith("probe") for case in verdict.cases):
            for values in probed(self.site):
                yield Exact(self.site, "probe", values)


def _names(pair: Pair) -> tuple[str, ...]:
    ends = (pair.input, pair.output, *pair.operands.values())
    return (pair.form, pair.how, *(str(value.name) for value in ends))


def _holds(node: ir.Node, values: set[ir.Value]) -> bool:
    """Whether a subgraph of ``node`` reads one of the values."""
    return any(v in values for graph in subgraphs(node) for inner in graph.all_nodes() for v in inner.inputs if v)


def _spread(count: int) -> Iterator[int]:
    """0 to count - 1, the first few of them evenly spread at any time: halves, quarters, eighths (van der Corput)."""
    met: set[int] = set()
    parts = 1
    while len(met) < count:
        for i in range(1, 2 * parts, 2):
            at = count * i // (2 * parts)
            if at not in met:
                met.add(at)
                yield at
        parts *= 2
