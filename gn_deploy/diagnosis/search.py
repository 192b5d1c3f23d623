"""The search for the first place where a runtime leaves its float64 oracle, by taps, as few at a time as it takes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from gn_deploy.diagnosis.judge import Wrong, wrong_values
from gn_deploy.diagnosis.stretches import Row, names, typed
from gn_deploy.errors import GnDeployError
from gn_deploy.graph.cut import tap
from gn_deploy.parity.cases import Array, Case
from gn_deploy.parity.end_to_end import PASS_RATIO, WARN_RATIO
from gn_deploy.runtimes.base import RuntimeFailure

if TYPE_CHECKING:
    import onnx_ir as ir

    from gn_deploy.runtimes.base import Session

Open = Callable[["ir.Model"], "Session"]
"""Opens a model the way it is deployed: on a runtime, with its settings."""

_PARTS = (4, 2)  # a stretch is first cut into four, which takes half the runs; fewer taps where that hides the error
_SMALL = 12  # nodes: a stretch so short is cut at every place before it is said that no cut shows the error
_WALK = 8  # stretches judged one by one where whole networks show nothing: an error drowns in what comes after it


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """Nodes ``start`` to ``end`` of the row make ``wrong`` of ``feeds``, which is what the runtime itself had there."""

    start: int
    end: int
    wrong: Wrong
    case: Case
    """Of the whole network."""
    feeds: dict[str, Array]
    values: dict[str, Array]
    """Everything that was seen in the run that showed it."""

    @property
    def fused(self) -> bool:
        """No cut between its nodes shows the error: it is there only while the runtime has them together."""
        return self.end - self.start > 1


class Search:
    """One model on one runtime; ``types`` is what the model promises to be computed in.

    A stretch of nodes is judged on the values that the runtime had at its start and at its end, in one run in which
    these are outputs as well: so no error is handed on, and the rest of the network is fused as it always is. What no
    oracle can evaluate is taken for right.
    """

    def __init__(self, row: Row, opened: Open, types: str, tell: Callable[[str], None] | None = None) -> None:
        self._row, self._open, self._types = row, opened, types
        self._tell = tell or (lambda _: None)
        self.unjudged: list[str] = []
        """Why some stretch has no oracle."""

    def run(self, cases: Sequence[Case]) -> Found | None:
        """The first wrong value, on the case that shows it best; None when every stretch is right on every case."""
        seen: list[Found] = []
        session = self._open(self._row.model)
        try:
            for case in cases:
                self._tell(f"running the whole network on '{case.name}'")
                found = self._judge(0, len(self._row.nodes), case, {**case.feeds, **session.run(case.feeds)})
                # where the inputs are no network's diet, its own noise says less
                if found is not None and found.wrong.ratio > (PASS_RATIO if case.conditioned else WARN_RATIO):
                    seen.append(found)
        finally:
            session.close()
        if not seen:
            return next(filter(None, (self._walk(case) for case in cases if case.conditioned)), None)
        conditioned = [f for f in seen if f.case.conditioned] or seen
        return self.narrow(max(conditioned, key=lambda f: f.wrong.ratio))

    def narrow(self, found: Found) -> Found:
        """The shortest stretch inside ``found`` that is still wrong, and of several the first.

        A cut between two nodes that a runtime takes together hides what goes wrong there, and something later is found
        in its stead: so what lies before it is looked at once more, with no cut inside.
        """
        outer = found.start
        found = self._shortest(found)
        while found.start > outer and (before := self._first([outer, found.start, found.end], found.case, last=1)):
            found = self._shortest(before)
        return found

    def _shortest(self, found: Found) -> Found:
        while found.end - found.start > 1:
            self._tell(f"{found.end - found.start} nodes left, error {found.wrong.ratio:.3g} times rounding noise")
            inner = self._inside(found)
            if inner is None:
                break
            found = inner
        return found

    def _walk(self, case: Case) -> Found | None:
        self._tell(f"walking through the network on '{case.name}'")
        end = len(self._row.nodes)
        found = self._first([0, *self._row.cuts(0, end, _WALK), end], case, WARN_RATIO)
        return self.narrow(found) if found is not None else None

    def _inside(self, found: Found) -> Found | None:
        i, j = found.start, found.end
        tried: list[list[int]] = []
        for parts in _PARTS:
            cuts = self._row.cuts(i, j, parts)
            if cuts and cuts not in tried and (inner := self._first([i, *cuts, j], found.case)):
                return inner
            tried.append(cuts)
        shares = range(i + 1, j) if j - i <= _SMALL else [i + (j - i) * k // 12 for k in (4, 8, 2, 10, 1, 11)]
        for at in shares:
            if [at] not in tried and i < at < j and self._row.cost[at] < float("inf"):
                if inner := self._first([i, at, j], found.case):
                    return inner
                tried.append([at])
        return None

    def _first(
        self, positions: Sequence[int], case: Case, limit: float = PASS_RATIO, last: int | None = None
    ) -> Found | None:
        """The first wrong stretch between neighbouring positions, or of the first ``last``, all seen in one run."""
        wanted = [n for at in positions for n in names(self._row.alive[at])]
        given = {str(v.name) for v in self._row.model.graph.inputs}
        try:
            session = self._open(tap(self._row.model, [n for n in dict.fromkeys(wanted) if n not in given]))
            try:
                values = {**case.feeds, **session.run(case.feeds)}
            finally:
                session.close()
        except RuntimeFailure as error:  # with these taps it does not run: nothing is seen
            self.unjudged.append(error.message)
            return None
        for i, j in list(pairwise(positions))[:last]:
            found = self._judge(i, j, case, values)
            if found is not None and found.wrong.ratio > limit:
                return found
        return None

    def _judge(self, i: int, j: int, case: Case, values: Mapping[str, Array]) -> Found | None:
        try:
            stretch = self._row.stretch(i, j)
            feeds = {n: values[n] for n in names(stretch.graph.inputs)}
            wrong = wrong_values(typed(stretch, feeds), feeds, values, self._types)
        except GnDeployError as error:
            self.unjudged.append(error.message)
            return None
        return Found(i, j, wrong[0], case, feeds, dict(values)) if wrong else None
