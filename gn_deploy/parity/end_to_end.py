"""Whole networks: a runtime's outputs against the float64 oracle, in units of what rounding does to the reference."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gn_deploy.parity.cases import Array, Case
from gn_deploy.parity.metrics import measure
from gn_deploy.parity.per_site import Override
from gn_deploy.parity.report import OutputVerdict
from gn_deploy.parity.status import Status
from gn_deploy.parity.tolerance import Bounds
from gn_deploy.reference import F64
from gn_deploy.rounding import FORMATS, coarser
from gn_deploy.runtimes.onnx_reference import ONNX_REFERENCE, OnnxReferenceSession
from gn_deploy.spec import FLOAT_DTYPES

if TYPE_CHECKING:
    import onnx_ir as ir

    from gn_deploy.runtimes.base import Session

PASS_RATIO = 4.0  # right runtimes reached 3.5 over 64 networks
WARN_RATIO = 16.0  # four times that; the one real bug met there, ONNX Runtime's Pad_Fusion, was at 791
DISTURBED = 3  # runs with every number moved by one ulp, beside the run as it is
MOVABLE_AXES = 2  # scalars and vectors may be sizes in the making (Resize, Range), which must not move


class EndToEnd:
    """The oracle's answers and the size of the reference's own rounding noise, computed once per case and dtype.

    noise = the largest distance from the oracle of the reference run by ``onnx-reference`` in its own dtype: as it is,
    and with every input, weight and intermediate tensor moved by one unit in the last place of the candidate's
    coarsest type, up or down at random (Monte Carlo arithmetic: Parker, UCLA CSD-970002, 1997), and statistics summed
    by eight accumulators, whose roundings line up on constant images as a real kernel's do.

    A noise ratio, max |output - oracle| / noise, up to PASS_RATIO is a pass, up to WARN_RATIO a warning, above it a
    FAIL even when every GroupNorm held: then something else is wrong, and a model that answers wrongly has not held.
    Measured on the digits ResNet and a diffusion U-Net (normal, all-zero, all-grey, x 0.001 and x 100 inputs; ONNX
    Runtime, OpenVINO, onnx-reference; float32, float16, bfloat16): right runtimes at most 1.4. Wrong models: a channel
    of a Conv off by 0.1 %, 62 and 115; one bias off by 1e-3, 18 and 194; groups permuted, 5e4 and 3e5; an activation
    left out, 7e4 and 4e5. What stays below is of the size of rounding: one number of a Conv off by 0.1 %, 3.9.
    """

    def __init__(self, reference: "ir.Model", oracle: "Session") -> None:
        self._reference, self._oracle = reference, oracle
        self._session: OnnxReferenceSession | None = None
        self._known: dict[tuple[str, str, bytes], _Answers] = {}

    def judge(
        self, runtime: str, name: str, answers: Mapping[str, Array], cases: Sequence[Case], *,
        types: str, override: Override | None = None,
    ) -> OutputVerdict:  # fmt: skip
        """The worst case of one output. ``answers`` is what the runtime gave per case, ``cases`` what it was fed.

        ``types`` names what the candidate computes or stores in ("float32+float16": both).
        """
        verdicts = [self._one(runtime, name, answers[case.name], case, types.split("+"), override) for case in cases]
        return max(verdicts, key=gravity)

    def exact(self, case: Case) -> dict[str, Array]:
        """The oracle's own answers; raises RuntimeFailure where the reference does not take the case."""
        return self._oracle.run(case.feeds)

    def forget(self) -> None:
        """Lets go of the answers to the cases so far; they are computed anew when asked for again."""
        self._known.clear()

    def scale(self, name: str, case: Case, types: str) -> tuple[Array, float]:
        """The oracle's answer, and how far off it rounding to the coarsest of ``types`` puts one number of it; 0 for
        integers."""
        known = self._answers(case, dtype := coarser(*types.split("+")))
        if known.exact[name].dtype.name not in FORMATS:
            return known.exact[name], 0.0
        want, noise, _ = _scale(known.exact[name], np.stack([run[name] for run in known.noisy]), dtype)
        return want, noise

    def close(self) -> None:
        if self._session is not None:
            self._session.close()

    def _one(
        self, runtime: str, name: str, got: Array, case: Case, types: list[str], override: Override | None
    ) -> OutputVerdict:
        types = [t for t in (got.dtype.name, *types) if t in FORMATS]
        known = self._answers(case, coarser(*types) if types else "float32")
        want = known.exact[name]
        if got.shape != want.shape:
            return OutputVerdict(name, runtime, Status.FAIL, case.name, reason=f"shape {got.shape}, not {want.shape}")
        runs = np.stack([run[name] for run in known.noisy])
        if got.dtype.name not in FORMATS:
            status, reason = decisions(got, want, runs)
            return OutputVerdict(name, runtime, status, case.name, reason=reason)
        dtype = coarser(*(t for t in types if t in FLOAT_DTYPES))
        want, noise, sound = _scale(want, runs, coarser(*types))
        bound = np.where(sound, PASS_RATIO * noise, np.inf)
        if override is not None:
            bound = override.replace(Bounds(want, bound, bound)).two_pass
        metrics = measure(got, want, bound, dtype=dtype)
        if not (np.isfinite(want) & np.isfinite(bound)).any() and metrics.error_over_bound == 0:
            return OutputVerdict(name, runtime, Status.NOTRUN, case.name, reason="it holds no number")
        ratio = metrics.max_abs / noise
        status, reason = _status(metrics.error_over_bound, ratio, override)
        return OutputVerdict(name, runtime, status, case.name, metrics, ratio, reason)

    def _answers(self, case: Case, dtype: str) -> "_Answers":
        key = (case.name, dtype, _digest(case))
        if key not in self._known:
            if self._session is None:
                self._session = ONNX_REFERENCE.open(self._reference)
            run, rng = self._session.run, np.random.default_rng(0)
            noisy = [run(case.feeds)]
            noisy += [run(case.feeds, disturb=lambda array: _moved(array, dtype, rng)) for _ in range(DISTURBED)]
            self._known[key] = _Answers(self._oracle.run(case.feeds), noisy)
        return self._known[key]


@dataclass(frozen=True, slots=True, eq=False)
class _Answers:
    """Output name -> array: the oracle's, and those of the reference's noisy runs."""

    exact: dict[str, Array]
    noisy: list[dict[str, Array]]


def gravity(verdict: OutputVerdict) -> tuple[int, float]:
    """The larger, the worse: by the status, then by the noise ratio."""
    return verdict.status.severity, float(np.nan_to_num(verdict.noise_ratio))


def _scale(want: Array, runs: Array, dtype: str) -> tuple[F64, float, NDArray[np.bool_]]:
    """The exact answer in float64, the noise of ``runs`` around it, where the reference itself does not overflow."""
    want, runs, form = want.astype(np.float64), runs.astype(np.float64), FORMATS[dtype]
    unit = form.u * float(np.abs(want[np.isfinite(want)]).max(initial=0.0)) + form.least
    with np.errstate(invalid="ignore"):
        distance = np.abs(runs - want)
    noise = max(unit, float(distance[np.isfinite(distance)].max(initial=0.0)))
    return want, noise, np.isfinite(runs).all(0) | ~np.isfinite(want)


def _status(over: float, ratio: float, override: Override | None) -> tuple[Status, str]:
    if np.isinf(over):
        return Status.NAN, "NaN or Inf where the reference has a number, or the other way round"
    if override is not None:
        return (Status.PASS if over <= 1 else Status.FAIL), str(override)
    if ratio <= PASS_RATIO:
        return Status.PASS, ""
    told = f"{ratio:.3g} times the noise that rounding makes in the reference"
    if ratio <= WARN_RATIO:
        return Status.WARN, told
    return Status.FAIL, f"{told}: if every GroupNorm holds, the cause is another operator or its weights"


def decisions(got: Array, want: Array, runs: Array) -> tuple[Status, str]:
    """Integers and booleans: how many may differ is told by how many rounding changes in the reference."""
    differ = int((got != want).sum())
    if not differ:
        return Status.PASS, ""
    usual = int((runs != want).reshape(len(runs), -1).sum(1).max())
    told = f"{differ} of {got.size} numbers differ, rounding changes {usual} in the reference"
    return (Status.WARN if differ <= PASS_RATIO * (usual + 1) else Status.FAIL), told


def _digest(case: Case) -> bytes:
    """Equal for equal feeds: two subjects may receive one case rounded differently."""
    digest = hashlib.sha256()
    for name, array in case.feeds.items():
        digest.update(f"{name}{array.dtype}{array.shape}".encode() + array.tobytes())
    return digest.digest()


def _moved(array: Array, dtype: str, rng: np.random.Generator) -> Array:
    """Every number moved up or down by one unit in the last place of ``dtype``; integers and vectors stay."""
    if array.ndim < MOVABLE_AXES or array.dtype.name not in FORMATS:
        return array
    step = 2 * FORMATS[coarser(dtype, array.dtype.name)].u
    up = np.unpackbits(np.frombuffer(rng.bytes(-(-array.size // 8)), np.uint8), count=array.size).reshape(array.shape)
    number = array.dtype.type
    return np.asarray(array * (up * number(2 * step) + number(1 - step)), array.dtype)
