"""Every subject of a comparison on every case of a stream, which is read once."""

from collections.abc import Callable, Iterable, Sequence, Sized
from dataclasses import replace
from itertools import islice

import numpy as np

from gn_deploy.parity.cases import Case
from gn_deploy.parity.confidence import Tally
from gn_deploy.parity.end_to_end import EndToEnd
from gn_deploy.parity.progress import Progress, Tell
from gn_deploy.parity.stream import BATCH, batches
from gn_deploy.parity.subject import Examination, Findings, Standard, Subject
from gn_deploy.runtimes.base import RuntimeFailure

SETTLING_BATCH = 4  # inputs between two looks at the clock and at the violations; a round of the families


class Comparison:
    """Subjects under one standard. While more cases are to come all of them stay open; the last batch closes each in
    turn, so that one batch never needs more than one."""

    def __init__(
        self, subjects: Sequence[Subject], by: Standard, tell: Tell, tally: Tally | None = None, *, again: bool = False
    ) -> None:
        """With ``again`` the first cases are kept, and the oracle's answers to the last batch: needed again."""
        self._subjects, self._by, self._tell, self._tally, self._again = subjects, by, tell, tally, again
        self.kept: list[Case] = []
        self._opened: list[Examination] = []
        self._sizes: dict[str, str] = {}
        """Sizes that were tried -> why the reference does not take them, "" when it does."""
        self._judged = 0
        self._in_all: int | None = None
        """GroupNorms to be judged, when that is known."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Which sizes were tried, and which could not be."""
        tried = [size for size, why in self._sizes.items() if not why]
        left_out = [f"not run at {size}: {why}" for size, why in self._sizes.items() if why]
        return (*([f"judged at {'; '.join(tried)}"] if tried else []), *left_out)

    def run(self, cases: Iterable[Case]) -> list[Findings]:
        """What was found about each subject; without cases by its probes."""
        total = len(cases) if isinstance(cases, Sized) else None
        most = None
        if self._tally is not None:
            total, most = self._tally.until.needed, SETTLING_BATCH
            cases = islice(cases, total)
        if total is not None:
            self._in_all = len(self._subjects) * len(self._by.sites) * (total + 1)  # each by its probe, too
        done = 0
        try:
            for batch, last in batches(cases, most):
                taken = [case for case in batch if not self._refusal(case)]
                self.kept += taken[: BATCH - len(self.kept)] if self._again else []
                broken = self._take(taken, last, Progress("", done, total)) if taken else set()
                done += len(batch)
                if self._is_over(taken, broken):
                    break
                del batch, taken  # before the next ones are read
            for subject in self._subjects[len(self._opened) :]:  # there was no case
                self._tell(Progress(f"{subject.label}: probing {len(self._by.sites)} GroupNorm(s)"))
                self._opened.append(Examination(subject, self._by, self._counter(subject.label)))
            return [examination.finish() for examination in self._opened]
        finally:
            for examination in self._opened:
                examination.close()

    def _counter(self, label: str) -> Callable[[int], None]:
        def count(more: int) -> None:
            self._judged += more
            done = self._judged if self._in_all is None else min(self._judged, self._in_all)  # taps may be tried twice
            self._tell(Progress(label, done, self._in_all, "GroupNorms"))

        return count

    def _take(self, cases: Sequence[Case], last: bool, progress: Progress) -> set[str]:
        """The names of the cases on which something broke on any subject."""
        broken: set[str] = set()
        for i, subject in enumerate(self._subjects):
            self._tell(replace(progress, doing=f"{subject.label}: judging {len(self._by.sites)} GroupNorm(s)"))
            if i == len(self._opened):
                self._opened.append(Examination(subject, self._by, self._counter(subject.label)))
            broken |= self._opened[i].take(cases, last=last and self._tally is None)
        if isinstance(self._by.whole, EndToEnd) and not (self._again and last):
            self._by.whole.forget()
        return broken

    def _is_over(self, cases: Sequence[Case], broken: set[str]) -> bool:
        """Whether no more cases are wanted."""
        if self._opened and all(examination.ended for examination in self._opened) and not broken:
            if self._tally is not None:
                self._tally.stop("no runtime ran")
            return True
        if self._tally is None:
            return False
        self._tally.add(len(cases), len(broken))
        if broken:
            self._tally.stop(self._repeated(next(case for case in cases if case.name in broken)))
        elif any(examination.broken for examination in self._opened):
            self._tally.stop("a probe broke it, whatever the inputs")
        return self._tally.over

    def _repeated(self, case: Case) -> str:
        """Whether what broke on a case breaks on it again, in words."""
        again = [e.take([replace(case, name=f"{case.name} again")]) for e in self._opened if not e.ended]
        if not again:
            return f"it ended on input '{case.name}'"
        if any(again):
            return f"broken on input '{case.name}', and again when it was repeated"
        return f"broken on input '{case.name}', not when it was repeated: answers differ from run to run"

    def _refusal(self, case: Case) -> str:
        """Why the reference does not take a case of a size that is only tried out; "" when it does, or nobody knows."""
        if not case.size or not isinstance(self._by.whole, EndToEnd):
            return ""
        if case.size not in self._sizes:
            self._sizes[case.size] = _refused(self._by.whole, case)
        return self._sizes[case.size]


def _refused(whole: EndToEnd, case: Case) -> str:
    try:
        answers = whole.exact(case)
    except RuntimeFailure as error:
        return f"the reference does not take it: {error.message}"
    if empty := [name for name, array in answers.items() if not array.size]:
        return f"output '{empty[0]}' of the reference has no element there"
    if undefined := [name for name, array in answers.items() if array.dtype.kind == "f" and np.isnan(array).any()]:
        return f"output '{undefined[0]}' of the reference is NaN there"
    return ""
