"""Whole networks: a runtime's outputs against the float64 oracle, in units of what rounding does to the reference."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from gn_deploy.parity.cases import Array, Case
from gn_deploy.parity.metrics import measure
from gn_deploy.parity.oracle import reference_runtime
from gn_deploy.parity.per_site import Override, coarser
from gn_deploy.parity.report import OutputVerdict, Status
from gn_deploy.parity.tolerance import FORMATS, Bounds

if TYPE_CHECKING:
    import onnx_ir as ir

    from gn_deploy.runtimes.base import Session

PASS_RATIO = 4.0  # right runtimes reached 3.5 over 64 networks
WARN_RATIO = 16.0  # the one real bug met there was at 791; wrong GroupNorms start at about this
PERTURBED = 3  # runs with every parameter and input moved by one ulp, beside the run as it is
GROSS = {"float64": 1e-8, "float32": 1e-2, "float16": 1e-1, "bfloat16": 3e-1}
"""Relative L2 error beyond any accumulation of roundings: 10^5 float32 ulps, about 200 float16, 80 bfloat16 ones."""
_SHAPING = ("Resize", "Upsample", "Range", "Concat", "Cast", "Floor", "Ceil", "Round")
"""Ops through which a floating-point constant can become a size."""


class EndToEnd:
    """The oracle's answers and the size of the reference's own rounding noise, computed once per case and dtype.

    noise = the largest distance from the oracle of the reference run in its own dtype, as it is and with every
    parameter and input moved by one unit in the last place of ``dtype``.
    """

    def __init__(self, reference: "ir.Model", oracle: "Session") -> None:
        self._reference, self._oracle = reference, oracle
        self._sessions: dict[str, list[Session]] = {}
        self._known: dict[tuple[str, str, bytes], tuple[dict[str, Array], list[dict[str, Array]]]] = {}

    def judge(
        self, runtime: str, name: str, answers: Mapping[str, Array], cases: Sequence[Case], *,
        precision: str, sites_judged: bool, override: Override | None = None,
    ) -> OutputVerdict:  # fmt: skip
        """The worst case of one output. ``answers`` is what the runtime gave per case, ``cases`` what it was fed.

        ``precision`` is the lowest type the candidate computes or stores in ("float32+float16": both), and
        ``sites_judged`` tells that every GroupNorm was judged in itself: then only gross errors break parity here.
        """
        verdicts = [self._one(runtime, name, answers[c.name], c, precision, sites_judged, override) for c in cases]
        order = (Status.NOTRUN, Status.PASS, Status.WARN, Status.NAN, Status.FAIL)
        return max(verdicts, key=lambda v: (order.index(v.status), np.nan_to_num(v.noise_ratio)))

    def close(self) -> None:
        for sessions in self._sessions.values():
            for session in sessions:
                session.close()

    def _one(
        self,
        runtime: str,
        name: str,
        got: Array,
        case: Case,
        precision: str,
        sites_judged: bool,
        override: Override | None,
    ) -> OutputVerdict:
        is_float = got.dtype.name in FORMATS
        dtype = coarser(got.dtype.name, *precision.split("+")) if is_float else ""
        exact, noisy = self._answers(case, dtype or "float32")
        want = exact[name]
        if got.shape != want.shape:
            return OutputVerdict(name, runtime, Status.FAIL, case.name, reason=f"shape {got.shape}, not {want.shape}")
        if not is_float:
            differ = int((got != want).sum())
            told = (
                f"{differ} of {got.size} numbers differ, which one rounding before a decision can do" if differ else ""
            )
            return OutputVerdict(name, runtime, Status.WARN if differ else Status.PASS, case.name, reason=told)
        want = want.astype(np.float64)
        runs = [run[name].astype(np.float64) for run in noisy]
        unit = FORMATS[dtype].u * float(np.abs(want[np.isfinite(want)]).max(initial=0.0)) + FORMATS[dtype].least
        with np.errstate(invalid="ignore"):
            distance = np.abs(np.stack(runs) - want)
        noise = max(unit, float(distance[np.isfinite(distance)].max(initial=0.0)))
        sound = np.isfinite(np.stack(runs)).all(0) | ~np.isfinite(want)  # the reference itself overflows elsewhere
        bound = np.where(sound, PASS_RATIO * noise, np.inf)
        if override is not None:
            bound = override.replace(Bounds(want, bound, bound)).two_pass
        metrics = measure(got, want, bound, dtype=dtype)
        ratio = metrics.max_abs / noise
        status, reason = _status(metrics.error_over_bound, ratio, metrics.rel_l2 > GROSS[dtype], sites_judged, override)
        return OutputVerdict(name, runtime, status, case.name, metrics, ratio, reason)

    def _answers(self, case: Case, dtype: str) -> tuple[dict[str, Array], list[dict[str, Array]]]:
        key = (case.name, dtype, _digest(case))
        if key not in self._known:
            rng = np.random.default_rng(0)
            first, *moved = self._opened(dtype)
            noisy = [first.run(case.feeds)]
            for session in moved:
                noisy.append(session.run({n: _moved(a, dtype, rng) for n, a in case.feeds.items()}))
            self._known[key] = (self._oracle.run(case.feeds), noisy)
        return self._known[key]

    def _opened(self, dtype: str) -> "list[Session]":
        import onnx_ir as ir

        if dtype not in self._sessions:
            sessions = [reference_runtime().open(self._reference)]
            rng = np.random.default_rng(1)
            for _ in range(PERTURBED):
                clone = self._reference.clone()
                for value in clone.graph.initializers.values():
                    tensor = value.const_value
                    if tensor is not None and _is_weight(value):
                        value.const_value = ir.Tensor(_moved(tensor.numpy(), dtype, rng), name=value.name)
                sessions.append(reference_runtime().open(clone))
            self._sessions[dtype] = sessions
        return self._sessions[dtype]


def _status(
    over: float, ratio: float, gross: bool, sites_judged: bool, override: Override | None
) -> tuple[Status, str]:
    if np.isinf(over):
        return Status.NAN, "NaN or Inf where the reference has a number, or the other way round"
    if override is not None:
        return (Status.PASS if over <= 1 else Status.FAIL), str(override)
    if ratio <= PASS_RATIO:
        return Status.PASS, ""
    told = f"{ratio:.3g} times the noise that rounding makes in the reference"
    if ratio <= WARN_RATIO:
        return Status.WARN, told
    if gross:
        return Status.FAIL, f"{told}, and no accumulation of roundings is this large"
    if not sites_judged:
        return Status.FAIL, f"{told}, and not every GroupNorm could be judged in itself"
    return Status.WARN, f"{told}; the GroupNorms were judged in themselves: where they hold, look at other operators"


def _is_weight(value: "ir.Value") -> bool:
    """Whether moving it by one ulp changes numbers only; a scale of Resize moved changes shapes."""
    if value.const_value is None or not value.const_value.dtype.is_floating_point():
        return False
    return all(use.node.op_type not in _SHAPING for use in value.uses())


def _digest(case: Case) -> bytes:
    """Equal for equal feeds: two subjects may receive one case rounded differently."""
    digest = hashlib.sha256()
    for name, array in case.feeds.items():
        digest.update(f"{name}{array.dtype}{array.shape}".encode() + array.tobytes())
    return digest.digest()


def _moved(array: Array, dtype: str, rng: np.random.Generator) -> Array:
    """Every number moved up or down by one unit in the last place of ``dtype``; integers stay."""
    if array.dtype.name not in FORMATS:
        return array
    step = 2 * FORMATS[coarser(dtype, array.dtype.name)].u
    moved = array.astype(np.float64) * (1 + step * rng.choice((-1.0, 1.0), array.shape))
    return np.asarray(moved, array.dtype)
