"""The golden files of exporters as examples to judge by: what each computes, what to feed it, what must come out."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from gn_deploy.forms.base import GroupNormSite
from gn_deploy.graph.io import as_model
from gn_deploy.graph.normalize import normalize
from gn_deploy.parity.cases import Array, Case, input_specs, model_cases
from gn_deploy.parity.end_to_end import EndToEnd
from gn_deploy.parity.metrics import classify, nonfinite_mismatch
from gn_deploy.parity.oracle import open_oracle
from gn_deploy.parity.per_site import channels
from gn_deploy.parity.status import Status
from gn_deploy.parity.tolerance import Bounds, bounds
from gn_deploy.rounding import FORMATS
from gn_deploy.sites import find
from gn_deploy.spec import Activation, GroupNormSpec

GOLDEN = Path(__file__).parents[1] / "golden" / "exporters"
TRUTH: dict[str, dict[str, Any]] = {e["file"]: e for e in json.loads((GOLDEN / "truth.json").read_text())}
AROUND = {"skip", "adaptive", "conv", "act:gelu", "act:hardswish", "trap", "subgraph"}
"""Tags of files in which more than one Group Normalization with its ReLU or SiLU stands between input and output."""
INVALID = {  # not valid ONNX: parameters per group where they must be per channel, or the other way round
    "spec18__native_perchannel_INVALID.onnx",
    "spec18__onnxvc21_dynshape.onnx",
    "spec21__native_pergroup_INVALID.onnx",
}
STORES = 4  # difference, quotient, product, sum: what a form stores in half precision between x and y
SLACK = 4.0  # both sides are float64, each off by as much as the bound, and their orders of summation differ
FREE = ((2, 8), (3, 7))  # batch and image size where the file leaves them free; the second pair shares no factor


@dataclass(frozen=True, eq=False)
class Exemplar:
    """One file, with what the truth says of it."""

    file: str

    @property
    def truth(self) -> dict[str, Any]:
        return TRUTH[self.file]

    @cached_property
    def model(self) -> ir.Model:
        return normalize(as_model(GOLDEN / self.file))

    @cached_property
    def site(self) -> GroupNormSite:
        sites = find(self.model).sites
        assert len(sites) == self.truth["n_gn"] == 1, f"{len(sites)} found in {self.file}"
        return sites[0]

    @property
    def alone(self) -> bool:
        """Whether it is one Group Normalization with its activation, so that the derived bounds judge its output."""
        more = self.truth["pattern"] == "affine_on_hw" or not AROUND.isdisjoint(self.truth["tags"])
        return self.truth["n_gn"] == 1 and not more

    @cached_property
    def spec(self) -> GroupNormSpec:
        """What the truth says; epsilon and the type of the statistics are those of the file, which rounds them."""
        tags = self.truth["tags"]
        return GroupNormSpec(
            self.truth["groups"],
            self.truth["channels"],
            self.site.spec.epsilon,
            self.truth["rank"],
            self.truth["dtype"],
            self.site.spec.stash_dtype,
            -1 if "nhwc" in tags else 1,
            next((Activation(t[4:]) for t in tags if t in ("act:relu", "act:silu")), Activation.NONE),
        )

    @cached_property
    def trials(self) -> "list[Trial]":
        """Inputs drawn from the families, at two sizes where sizes are free; answered by the file in float64."""
        specs, cases = input_specs(self.model), []
        for batch, size in FREE:
            dims = {d: size for s in specs for d in s.shape if isinstance(d, str)}
            dims |= {d: batch for s in specs for d in s.shape[:1] if isinstance(d, str)}
            cases += [replace(c, name=f"{c.name} {batch}x{size}") for c in model_cases(specs, dims=dims)]
            if not dims:
                break
        session = open_oracle(self.model)
        try:
            return [Trial(self, c, next(iter(session.run(c.feeds).values()))) for c in cases if self._says_much(c)]
        finally:
            session.close()

    def _says_much(self, case: Case) -> bool:
        """A whole network is judged on what does not blow up rounding; 0 / 0 by epsilon 0 is nobody's fault."""
        divides_by_zero = case.family == "constant" and self.truth["n_gn"] and not self.site.spec.epsilon
        return (case.conditioned or self.alone) and not divides_by_zero


@dataclass(frozen=True, eq=False)
class Trial:
    """One exemplar's inputs with the float64 answer to its first output, and how far from it another may be.

    1. A file that is one Group Normalization is judged by the derived bounds of the spec that the truth tells; that
       the answer is this spec's is checked to the precision it is known in (one-pass: what that formula leaves of it).
    2. A file with more around it is judged by the noise that rounding makes in the file itself.
    """

    exemplar: Exemplar
    case: Case
    answer: Array
    known_in: str = "float64"
    unrounded: bool = False
    """The answer is that to x and parameters before they were rounded to the type of the file."""

    def judge(self, got: Array, types: str, *, serial: bool = False) -> Status:
        """``types`` is what the candidate computes in, ``serial`` whether it sums over axes that are not innermost."""
        if self.exemplar.alone:
            limits = self._serial_bounds if serial else self._bounds
            return classify(got, limits, dtype=self.exemplar.spec.dtype)
        name = str(self.exemplar.model.graph.outputs[0].name)
        return self._noise.judge("", name, {self.case.name: got}, [self.case], types=types).status

    @cached_property
    def _noise(self) -> EndToEnd:
        name = str(self.exemplar.model.graph.outputs[0].name)
        return EndToEnd(self.exemplar.model, _Recorded({name: self.answer}))

    @cached_property
    def _bounds(self) -> Bounds:
        return self._bounds_of(serial=False)

    @cached_property
    def _serial_bounds(self) -> Bounds:
        return self._bounds_of(serial=True)

    def _bounds_of(self, *, serial: bool) -> Bounds:
        (x, *others), spec = self.case.feeds.values(), self.exemplar.spec
        scale, bias = (self._parameter(which, others) for which in ("scale", "bias"))
        rounding: dict[str, Any] = {}
        if self.unrounded:
            rounding = {"input_dtype": spec.dtype, "parameter_rounding": FORMATS[spec.dtype].u}
        told = replace(spec, dtype=self.known_in, stash_dtype=self.known_in)
        known = bounds(x, told, scale, bias, epsilon_rounding=self._epsilon_rounding, **rounding)
        allowed = SLACK * known.one_pass
        with np.errstate(invalid="ignore"):
            wrong = nonfinite_mismatch(self.answer, known.reference, allowed, self.known_in)
            wrong |= np.abs(self.answer - known.reference) > allowed
        assert not wrong.any(), f"{self.exemplar.file} does not compute what the truth says, on {self.case.name}"
        options: dict[str, Any] = {"arithmetic": spec.stash_dtype, "stores": STORES, "serial": serial}
        return bounds(x, spec, scale, bias, **options, **rounding)

    @property
    def _epsilon_rounding(self) -> float:
        """Relative: an attribute is a float32, a constant of a half-precision graph is a float16, 1e-5 a subnormal."""
        half = FORMATS["float16"].least / 2 / self.exemplar.truth["eps"]
        return half if self.exemplar.truth["dtype"] == "float16" else FORMATS["float32"].u

    def _parameter(self, which: str, others: Sequence[Array]) -> Array | None:
        fed = others[which == "bias"] if others else None  # where they are inputs, their order is x, scale, bias
        return channels(getattr(self.exemplar.site, which), self.exemplar.spec, fed)


@dataclass(frozen=True)
class _Recorded:
    """A session that answers what was written down."""

    outputs: dict[str, Array]
    runtime: str = "recorded"
    precision: str = "float64"

    def run(self, feeds: Any) -> dict[str, Array]:
        return self.outputs

    def close(self) -> None:
        pass


EXEMPLARS = [Exemplar(file) for file, e in TRUTH.items() if e["n_gn"] and file not in INVALID]
LOOK_ALIKES = [Exemplar(file) for file, e in TRUTH.items() if not e["n_gn"]]
