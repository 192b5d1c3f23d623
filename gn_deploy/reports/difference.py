"""What changed from one report to the next: verdicts, errors, places, versions, precision, and whether it is worse.

The JSON document of ``gn-deploy report diff`` (``schema_version`` 1)::

    schema_version  int
    worse     bool     whether anything got worse; then the exit code is 1
    before, after   {title, reference, candidate, verdict}
    changes   [{kind, place, runtime, before, after, direction}]   the worse ones first, then the better ones

``kind`` is one of verdict, runtime, site, output, task, precision, version, environment, unpaired, accepted,
confidence, noticed; ``direction`` one of worse, better, changed; before and after are words for people, "" for nothing.

Worse is

- a verdict graver than before, in the order of ``Status``, or something that held and is no longer judged;
- an error over its bound, or a noise ratio of a broken output, that is broken before and after and grew by more than
  twice;
- a site or output that is new and broken; a site of the reference that no longer has a counterpart;
- a runtime that computes in a coarser precision; a task whose interval lies below the one before;
- fewer seeded faults noticed; a confidence that is no longer settled.

An error that grew inside its bound, another version, a place that came or went is told, and is not worse.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, TypeVar

from gn_deploy.parity.report import OutputVerdict, ParityReport, RuntimeVerdict, SiteVerdict, TaskVerdict
from gn_deploy.parity.status import Status
from gn_deploy.reports import sentences, summary
from gn_deploy.rounding import FORMATS

DIFFERENCE_VERSION = 1
FACTOR = 2.0  # errors of right runtimes move by tens of percent from one release of a runtime to the next
T = TypeVar("T")


class Direction(StrEnum):
    """Whether a change is for the worse; the order is the one changes are told in."""

    WORSE = "worse"
    BETTER = "better"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that is not what it was; ``before`` or ``after`` is "" where there was or is nothing."""

    kind: str
    place: str
    runtime: str
    before: str
    after: str
    direction: Direction = Direction.CHANGED


@dataclass(frozen=True, slots=True)
class Difference:
    """Everything that changed, the worse first, each part in the order of the report."""

    before: ParityReport
    after: ParityReport
    changes: tuple[Change, ...]

    @property
    def worse(self) -> bool:
        return any(change.direction is Direction.WORSE for change in self.changes)

    def to_dict(self) -> dict[str, Any]:
        def told(report: ParityReport) -> dict[str, str]:
            names = {"title": report.title, "reference": report.reference, "candidate": report.candidate}
            return names | {"verdict": report.verdict}

        head = {"schema_version": DIFFERENCE_VERSION, "worse": self.worse}
        sides = {"before": told(self.before), "after": told(self.after)}
        return head | sides | {"changes": [asdict(c) | {"direction": str(c.direction)} for c in self.changes]}


def difference(before: ParityReport, after: ParityReport) -> Difference:
    """What changed from ``before`` to ``after``. Sites are matched by name, else by the module they came from."""
    parts = (_verdict, _runtimes, _sites, _outputs, _tasks, _unpaired, _accepted, _confidence, _noticed, _environment)
    changes = [change for part in parts for change in part(before, after)]
    ranked = sorted(changes, key=lambda change: list(Direction).index(change.direction))
    return Difference(before, after, tuple(ranked))


def _verdict(a: ParityReport, b: ParityReport) -> Iterator[Change]:
    if a.held != b.held:
        yield Change("verdict", "", "", a.verdict, b.verdict, Direction.BETTER if b.held else Direction.WORSE)


def _runtimes(a: ParityReport, b: ParityReport) -> Iterator[Change]:
    for name, old, new in _pairs(a.runtimes, b.runtimes, lambda v: v.runtime):
        if old is None or new is None:
            yield Change("runtime", "", name, _runtime(old), _runtime(new), _arrival(new))
            continue
        if old.status is not new.status:
            yield Change("runtime", "", name, str(old.status), str(new.status), _graver(old.status, new.status))
        if old.precision != new.precision:
            yield Change("precision", "", name, old.precision, new.precision, _coarser(old.precision, new.precision))
        if old.version != new.version:
            yield Change("version", "", name, old.version, new.version)


def _sites(a: ParityReport, b: ParityReport) -> Iterator[Change]:
    names, both = _renamed(a.sites, b.sites), _in_both(a.sites, b.sites)
    for _, old, new in _pairs(a.sites, b.sites, lambda v: (names.get(v.site, v.site), v.runtime)):
        known = new or old
        assert known is not None
        place, told = summary.place(known), (_site(old), _site(new))
        if old is None or new is None:
            if known.runtime in both or known.status.broken:
                yield Change("site", place, known.runtime, *told, _arrival(new))
        elif old.status is not new.status:
            yield Change("site", place, known.runtime, *told, _graver(old.status, new.status))
        elif grown := _grown(summary.error(old), summary.error(new), new.status.broken):
            yield Change("site", place, known.runtime, *told, grown)


def _outputs(a: ParityReport, b: ParityReport) -> Iterator[Change]:
    both = _in_both(a.outputs, b.outputs)
    for _, old, new in _pairs(a.outputs, b.outputs, lambda v: (v.output, v.runtime)):
        known = new or old
        assert known is not None
        place, told = f"output {known.output}", (_output(old), _output(new))
        if old is None or new is None:
            if known.runtime in both or known.status.broken:
                yield Change("output", place, known.runtime, *told, _arrival(new))
        elif old.status is not new.status:
            yield Change("output", place, known.runtime, *told, _graver(old.status, new.status))
        elif grown := _grown(old.noise_ratio, new.noise_ratio, new.status.broken):
            yield Change("output", place, known.runtime, *told, grown)


def _tasks(a: ParityReport, b: ParityReport) -> Iterator[Change]:
    for _, old, new in _pairs(a.tasks, b.tasks, lambda v: (v.metric, v.runtime)):
        known = new or old
        assert known is not None
        told = _task(old), _task(new)
        if old is None or new is None:
            yield Change("task", known.metric, known.runtime, *told, _arrival(new))
        elif old.status is not new.status:
            yield Change("task", known.metric, known.runtime, *told, _graver(old.status, new.status))
        elif told[0] != told[1]:
            below = len(old.interval) == len(new.interval) == 2 and new.interval[1] < old.interval[0]
            direction = Direction.WORSE if below else Direction.CHANGED
            yield Change("task", known.metric, known.runtime, *told, direction)


def _unpaired(a: ParityReport, b: ParityReport) -> Iterator[Change]:
    yield from (Change("unpaired", text, "", "compared", "not compared", Direction.WORSE)
                for text in b.unpaired if text not in a.unpaired)  # fmt: skip
    yield from (Change("unpaired", text, "", "not compared", "", Direction.BETTER)
                for text in a.unpaired if text not in b.unpaired)  # fmt: skip


def _accepted(a: ParityReport, b: ParityReport) -> Iterator[Change]:
    if set(a.accepted) != set(b.accepted):
        old, new = (", ".join(sorted(r.accepted)) for r in (a, b))
        yield Change("accepted", "", "", old, new)


def _confidence(a: ParityReport, b: ParityReport) -> Iterator[Change]:
    if a.confidence == b.confidence:
        return
    lost = bool(a.confidence and b.confidence and a.confidence.settled > b.confidence.settled)
    old, new = (sentences.confidence(r.confidence) for r in (a, b))
    yield Change("confidence", "", "", old, new, Direction.WORSE if lost else Direction.CHANGED)


def _noticed(a: ParityReport, b: ParityReport) -> Iterator[Change]:
    for fault, old, new in _pairs(a.noticed, b.noticed, lambda v: v.fault):
        told, now = (f"{v.noticed} of {v.effective}" if v else "" for v in (old, new))
        if told != now:
            before, after = (v.noticed / v.effective if v and v.effective else math.nan for v in (old, new))
            yield Change("noticed", fault, "", told, now, _direction(before - after))


def _environment(a: ParityReport, b: ParityReport) -> Iterator[Change]:
    told = {v.runtime for r in (a, b) for v in r.runtimes}  # their versions are told with them
    for name in dict.fromkeys([*a.environment, *b.environment]):
        old, new = a.environment.get(name, ""), b.environment.get(name, "")
        if old != new and name not in told:
            yield Change("environment", name, "", old, new)


def _pairs(a: Sequence[T], b: Sequence[T], key: Callable[[T], Any]) -> Iterator[tuple[Any, T | None, T | None]]:
    """(key, before, after), in the order of ``a`` and then what is new."""
    old, new = ({key(v): v for v in side} for side in (a, b))
    for name in dict.fromkeys([*old, *new]):
        yield name, old.get(name), new.get(name)


def _in_both(a: "Sequence[SiteVerdict | OutputVerdict]", b: "Sequence[SiteVerdict | OutputVerdict]") -> set[str]:
    """Runtimes of both; of one that came or went only what is broken is told place by place."""
    return {v.runtime for v in a} & {v.runtime for v in b}


def _renamed(a: Sequence[SiteVerdict], b: Sequence[SiteVerdict]) -> dict[str, str]:
    """Name of a site of ``b`` -> its name in ``a``, where only the module they came from is still the same."""
    old, new = ({v.site: v.module for v in side} for side in (a, b))
    gone = {name: module for name, module in old.items() if name not in new and module}
    came = {name: module for name, module in new.items() if name not in old and module}
    found = {}
    for name, module in came.items():
        mine = [n for n, m in gone.items() if m == module]
        if len(mine) == 1 and list(came.values()).count(module) == 1:
            found[name] = mine[0]
    return found


def _arrival(new: "RuntimeVerdict | SiteVerdict | OutputVerdict | TaskVerdict | None") -> Direction:
    return Direction.WORSE if new is not None and new.status.broken else Direction.CHANGED


def _graver(old: Status, new: Status) -> Direction:
    """What is not judged any more is worse than held, and neither worse nor better than broken."""
    if Status.NOTRUN in (old, new):
        other = new if old is Status.NOTRUN else old
        if other.broken:
            return Direction.WORSE if old is Status.NOTRUN else Direction.CHANGED
        return Direction.BETTER if old is Status.NOTRUN else Direction.WORSE
    return Direction.WORSE if new.severity > old.severity else Direction.BETTER


def _grown(old: float, new: float, broken: bool) -> Direction | None:
    if math.isnan(old) or math.isnan(new) or (new <= FACTOR * old and old <= FACTOR * new) or old == new:
        return None
    if new > old:
        return Direction.WORSE if broken else Direction.CHANGED
    return Direction.BETTER if broken else Direction.CHANGED


def _coarser(old: str, new: str) -> Direction:
    if old not in FORMATS or new not in FORMATS:
        return Direction.CHANGED
    return _direction(FORMATS[new].u - FORMATS[old].u)


def _direction(worse: float) -> Direction:
    """Of a number that is above 0 when things got worse."""
    if math.isnan(worse) or worse == 0:
        return Direction.CHANGED
    return Direction.WORSE if worse > 0 else Direction.BETTER


def _runtime(verdict: RuntimeVerdict | None) -> str:
    return " ".join(filter(None, (str(verdict.status), verdict.version))) if verdict else ""


def _site(verdict: SiteVerdict | None) -> str:
    if verdict is None or verdict.metrics is None:
        return str(verdict.status) if verdict else ""
    return f"{verdict.status} {summary.ratio(summary.error(verdict))}"


def _output(verdict: OutputVerdict | None) -> str:
    if verdict is None or math.isnan(verdict.noise_ratio):
        return str(verdict.status) if verdict else ""
    return f"{verdict.status}, noise ratio {summary.number(verdict.noise_ratio)}"


def _task(verdict: TaskVerdict | None) -> str:
    if verdict is None:
        return ""
    value = summary.measured(verdict.metric, verdict.agreement if math.isnan(verdict.value) else verdict.value)
    return value if verdict.status is Status.NOTRUN else f"{verdict.status} {value}"
