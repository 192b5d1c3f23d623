"""Which setting of a runtime makes a piece of a network go wrong, found by switching settings off."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from gn_deploy.diagnosis.judge import Wrong, wrong_values
from gn_deploy.diagnosis.locate import Tell
from gn_deploy.diagnosis.piece import Piece
from gn_deploy.diagnosis.settings import EXECUTION, LEVEL_NAMES, LEVELS, RULES, WITH_RULES
from gn_deploy.errors import GnDeployError, InputError, UnavailableError
from gn_deploy.parity.end_to_end import PASS_RATIO
from gn_deploy.parity.report import Blame

OpenWith = Callable[..., Any]
"""``Runtime.open``: a model and options."""


class Trial:
    """A piece run again and again with other settings; remembers what was tried."""

    def __init__(self, piece: Piece, open_with: OpenWith, tell: Tell) -> None:
        self._piece, self._open, self._tell = piece, open_with, tell
        self.tried: dict[str, None] = {}
        self.refused = ""

    def ratio(self, name: str, **options: Any) -> float:
        """Error over rounding noise with ``options``: 0 when nothing is wrong, infinite when it fails or gives NaN,
        NaN when the setting does not exist here."""
        self.tried.setdefault(name)
        self._tell(f"trying {name}")
        what = self._piece
        feeds = {str(v.name): what.feeds[str(v.name)] for v in what.model.graph.inputs}
        try:
            session = self._open(what.model, **options)
        except (InputError, UnavailableError, TypeError):  # this release, or this runtime, does not know it
            return math.nan
        except GnDeployError as error:
            self.refused = error.message
            return math.inf
        try:
            answer = session.run(feeds)[what.output]
        except GnDeployError as error:
            self.refused = error.message
            return math.inf
        finally:
            session.close()
        found = self._judged(answer)
        return found.ratio if found is not None else 0.0

    def right(self, name: str, **options: Any) -> bool:
        return self.ratio(name, **options) <= PASS_RATIO

    def _judged(self, answer: Any) -> Wrong | None:
        truth = self._piece.truth
        feeds = {str(v.name): self._piece.feeds[str(v.name)] for v in truth.graph.inputs}
        found = wrong_values(truth, feeds, {str(truth.graph.outputs[0].name): answer}, self._piece.types, limit=0.0)
        return found[0] if found else None


def blame(
    piece: Piece, open_with: OpenWith, *, label: str, runtime: str, asked: str = "", tell: Tell | None = None
) -> tuple[Blame, dict[str, Any]]:
    """The setting without which ``piece`` is right, and the options of ``open`` that do without it; else the reason.

    ``asked`` is the lower precision that the runtime was asked for. A rule of the optimizer is found by halves: of all
    names switched off at once, the half that is enough. Two rules that only together go right are named together.
    """
    trial = Trial(piece, open_with, tell or (lambda _: None))
    base = {"precision": asked} if asked else {}
    before = trial.ratio("as it was", **base)
    if before <= PASS_RATIO:
        return Blame(label, "", reason="alone it is right: it goes wrong only inside the whole network"), {}

    def found(name: str, kind: str, remedy: str, reason: str = "", **options: Any) -> tuple[Blame, dict[str, Any]]:
        without = trial.ratio(f"without {name}", **options)
        return Blame(label, name, kind, before, without, tuple(trial.tried), remedy, reason=reason), options

    if asked and trial.right(f"without {asked}"):
        return found(f"the precision {asked} that was asked for", "precision hint", f"--runtime {runtime}")
    if runtime in WITH_RULES and trial.right("every optimization off", **base, optimization="none"):
        return _optimizer(trial, base, found)
    for setting in EXECUTION.get(runtime, ()):
        if trial.right(f"without {setting.name}", **(base | setting.options)):
            return found(setting.name, setting.kind, setting.remedy, **(base | setting.options))
    nodes = ", ".join(dict.fromkeys(n.op_type for n in piece.nodes))
    known = len(trial.tried) > 1
    reason = f"no setting that was tried makes a difference: it is how {label} computes {nodes}" if known else ""
    reason = reason or f"no settings of {label} are known to try"
    return Blame(label, "", "", before, math.nan, tuple(trial.tried), reason=reason), {}


def _optimizer(
    trial: Trial, base: dict[str, Any], found: Callable[..., tuple[Blame, dict[str, Any]]]
) -> tuple[Blame, dict[str, Any]]:
    """Everything is right without any optimization: a rule, else a level."""

    def enough(rules: Sequence[str]) -> bool:
        name = f"without {rules[0]}" if len(rules) == 1 else f"without {len(rules)} rules"
        return trial.right(name, **base, disabled_optimizers=tuple(rules))

    if enough(RULES):
        rules = _least(RULES, enough)
        code = f"onnxruntime.InferenceSession(path, disabled_optimizers={list(rules)!r})".replace("'", '"')
        kind = "optimizer rule" if len(rules) == 1 else "optimizer rules"
        return found(" and ".join(rules), kind, code, disabled_optimizers=tuple(rules), **base)
    for lower, level in pairwise(LEVELS):
        if trial.ratio(LEVEL_NAMES[level], **base, optimization=level) > PASS_RATIO:
            code = f"options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.{LEVEL_NAMES[lower]}"
            reason = "no single rule that is known by name"
            return found(LEVEL_NAMES[level], "optimization level", code, reason, optimization=lower, **base)
    code = f"options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.{LEVEL_NAMES['none']}"
    return found("graph optimization", "optimization level", code, optimization="none", **base)


def _least(rules: Sequence[str], enough: Callable[[Sequence[str]], bool]) -> list[str]:
    """A smallest set of rules that is enough: delta debugging (Zeller & Hildebrandt, IEEE TSE 28, 2002)."""
    held = list(dict.fromkeys(rules))
    parts = 2
    while len(held) > 1:
        size = -(-len(held) // parts)
        chunks = [held[i : i + size] for i in range(0, len(held), size)]
        if smaller := next((chunk for chunk in chunks if enough(chunk)), None):
            held, parts = smaller, 2
            continue
        rest = ([r for r in held if r not in chunk] for chunk in chunks) if parts > 2 else iter(())
        if smaller := next((others for others in rest if enough(others)), None):
            held, parts = smaller, max(parts - 1, 2)
        elif size == 1:
            break
        else:
            parts = min(2 * parts, len(held))
    return held
