"""The parts of a run, in the order of their worth: checks, times, the sanitizer, times beside torch.compile."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from gn_deploy.plugin.binding import VARIANTS
from scripts.gpu import child
from scripts.gpu.budget import Budget
from scripts.gpu.cases import Case
from scripts.gpu.measure import SECONDS
from scripts.gpu.sample import Check
from scripts.gpu.supervise import Lost, Supervised

CHECK_LIMIT = 30.0  # seconds for one check on all variants: the largest takes the oracle four
CASE_LIMIT = 45.0  # seconds for one case without torch.compile
COMPILE_LIMIT = 120.0  # autotuning of a shape that is split in three kernels takes tens of seconds
SHARES = {"checks": 0.35, "times": 0.75, "sanitizer": 0.9, "compile": 1.0}
"""Of the time after building, what is spent when a phase must end to leave the next ones theirs."""
PATIENCE = 2  # times a variant may take its process down before it is not asked again


class OutOfTime(Exception):  # noqa: N818 -- the end of a phase, not a mistake
    """The budget ended in the middle of an answer, which is nobody's fault."""


Write = Callable[[], None]
Tell = Callable[[str], None]


@dataclass
class Run:
    """What is known so far; ``results`` is written after every step."""

    process: Supervised
    budget: Budget
    results: dict[str, Any]
    write: Write
    tell: Tell
    phases: Sequence[str]
    """Those that were asked for."""
    seconds: float = SECONDS
    """Of replays for one case."""
    since: float = field(init=False)
    """Seconds that were spent before: on building."""
    lost: dict[str, list[str]] = field(default_factory=dict)
    """Variant -> how each process that it took down ended."""

    def __post_init__(self) -> None:
        self.since = self.budget.spent

    def part(self, phase: str) -> Budget:
        """What a phase may spend: everything when no other follows."""
        later = list(SHARES)[list(SHARES).index(phase) + 1 :]
        return self.budget.until(SHARES[phase], self.since) if set(later) & set(self.phases) else self.budget

    def distrusted(self) -> dict[str, str]:
        return {v: f"not asked any more: {ends[-1]}" for v, ends in self.lost.items() if len(ends) >= PATIENCE}

    def stopped(self, phase: str, done: int, all_of: int) -> None:
        """The budget ended it."""
        if done < all_of:
            self.results["unfinished"].append(f"{phase}: {done} of {all_of} in the time given")
            self.tell(f"{phase}: out of time after {done} of {all_of}")


def check_all(run: Run, checks: Sequence[Check], variants: Sequence[str] = VARIANTS) -> None:
    """Every check on every variant; fills results["checks"]."""
    part, told = run.part("checks"), run.results["checks"]
    done = 0
    for asked in checks:
        if not part.allows(1.0):  # a second, as the plain ones take less
            break
        try:
            answers = _checked(run, asked, variants, part)
        except OutOfTime:
            break
        _add(told, asked, answers)
        bad = {v: a["faults"] for v, a in answers.items() if a.get("faults")}
        for variant, faults in bad.items():
            run.tell(f"FAULT {variant}: {asked.key}: {'; '.join(faults)}")
        done += 1
        run.write()
    worst = max((v["worst"] for v in told["variants"].values()), default=0.0)
    run.tell(f"checks: {told['ran']} ran, {len(told['faults'])} with faults, at most {worst:.2f} of the bound")
    run.stopped("checks", done, len(checks))


def _checked(run: Run, asked: Check, variants: Sequence[str], budget: Budget) -> dict[str, dict[str, Any]]:
    answers: dict[str, dict[str, Any]] = {}
    waiting = [v for v in variants if v not in run.distrusted()]
    while waiting:
        try:
            limit = budget.limit(CHECK_LIMIT)
            answers |= run.process.ask(f"checking {asked.key}", child.check, asked, waiting, limit=max(limit, 1.0))
            break
        except Lost as lost:
            if lost.late and limit < CHECK_LIMIT:
                raise OutOfTime from None
            if lost.step not in waiting:  # before any variant was asked
                return answers | {v: {"ran": True, "faults": [lost.message], "ratio": None} for v in waiting}
            run.lost.setdefault(lost.step, []).append(lost.message)
            answers[lost.step] = {"ran": True, "faults": [lost.message], "ratio": None}
            waiting.remove(lost.step)
    return answers


def _add(told: dict[str, Any], asked: Check, answers: dict[str, dict[str, Any]]) -> None:
    for variant, answer in answers.items():
        row = told["variants"].setdefault(variant, {"ran": 0, "not_suited": 0, "faulty": 0, "worst": 0.0, "where": ""})
        if not answer["ran"]:
            row["not_suited"] += 1
            continue
        told["ran"] += 1
        row["ran"] += 1
        row["faulty"] += bool(answer["faults"])
        if answer["ratio"] is not None and answer["ratio"] > row["worst"]:
            row["worst"], row["where"] = answer["ratio"], asked.key
        if answer["faults"]:
            told["faults"].append({"check": asked.key, "variant": variant, "faults": answer["faults"]})


def time_all(run: Run, cases: Sequence[Case], variants: Sequence[str] = VARIANTS) -> None:
    """A row for each case, without torch.compile."""
    part, done, took = run.part("times"), 0, 0.0
    for case in cases:
        if not part.allows(2 * took + 2):  # the next one may take twice as long as the one before
            break
        begun = part.spent
        try:
            row = _timed(run, case, {"only": tuple(variants)}, CASE_LIMIT, part)
        except OutOfTime:
            break
        took = part.spent - begun
        run.results["cases"][case.key] |= row
        run.tell(_line(case, run.results["cases"][case.key]))
        done += 1
        run.write()
    run.stopped("times", done, len(cases))


def compile_all(run: Run, cases: Sequence[Case]) -> None:
    """The same cases again beside torch.compile, which takes far longer to compile than to run."""
    done, took = 0, 10.0
    for case in cases:
        known = run.results["cases"][case.key]
        if "us" not in known:
            done += 1
            continue
        if not run.budget.allows(1.5 * took):
            break
        begun = run.budget.spent
        try:
            row = _timed(run, case, {"compiled": True}, COMPILE_LIMIT, run.budget)
        except OutOfTime:
            break
        took = run.budget.spent - begun
        known |= {name: row[name] for name in ("compile_us", "compile_beside_us", "compile_fault") if name in row}
        run.tell(_line(case, known))
        done += 1
        run.write()
    run.stopped("torch.compile", done, len(cases))


def _timed(run: Run, case: Case, options: dict[str, Any], most: float, budget: Budget) -> dict[str, Any]:
    """What takes the process down is left out when it is asked again, and told in the row."""
    without = run.distrusted()
    while True:
        try:
            asked, limit = options | {"without": without, "seconds": run.seconds}, budget.limit(most)
            given = f"timing {case.key}", child.time, case, asked
            row: dict[str, Any] = run.process.ask(*given, limit=max(limit, 1.0))
            return row
        except Lost as lost:
            if lost.late and limit < most:
                raise OutOfTime from None
            if lost.step in without or lost.step not in (*VARIANTS, "eager", "compile"):
                return {"fault": f"{lost.step}: {lost.message}"}
            without = without | {lost.step: lost.message}
            if lost.step in VARIANTS:
                run.lost.setdefault(lost.step, []).append(lost.message)
            run.tell(f"FAULT {lost.step}: {case.key}: {lost.message}")


def _line(case: Case, row: dict[str, Any]) -> str:
    if "us" not in row:
        return f"{case.key}: {row.get('fault') or row.get('why') or 'not timed'}"
    told = [f"{case.key}: {row['selected']} {row['us']:.1f} us", f"{gigabytes(case, row['us']):.0f} GB/s"]
    for name, words in (("copy", "of a copy"), ("eager", "x torch"), ("compile", "x torch.compile")):
        if f"{name}_us" in row:
            told.append(f"{row[f'{name}_us'] / row.get(f'{name}_beside_us', row['us']):.2f} {words}")
    return ", ".join(told)


def gigabytes(case: Case, us: float) -> float:
    """10^9 bytes a second that go through memory at least."""
    return case.moved_bytes / us / 1e3
