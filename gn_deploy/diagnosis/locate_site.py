"""Where a GroupNorm goes wrong that its own probe shows and the network around it hides."""

import zlib
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from gn_deploy.diagnosis.judge import promised, wrong_values
from gn_deploy.diagnosis.locate import ORACLE, Located, Tell, locate_run, told
from gn_deploy.diagnosis.piece import Piece, plain
from gn_deploy.diagnosis.search import Open
from gn_deploy.diagnosis.stretches import typed
from gn_deploy.errors import GnDeployError
from gn_deploy.graph.cut import cut
from gn_deploy.parity.cases import Array, Case
from gn_deploy.parity.families import FAMILIES
from gn_deploy.parity.operands import draw
from gn_deploy.parity.oracle import open_oracle
from gn_deploy.parity.pairing import Pair
from gn_deploy.parity.per_site import is_dynamic
from gn_deploy.parity.probe import probe_shapes, shape_feeds
from gn_deploy.parity.report import Divergence, SiteVerdict

if TYPE_CHECKING:
    import onnx_ir as ir

_USUAL = 1e-5  # the epsilon to draw for where the spec has none


def locate_site(
    a: "ir.Model",
    b: "ir.Model",
    pair: Pair,
    verdict: SiteVerdict,
    opened: Open,
    *,
    runtime: str,
    against: str,
    asked: str = "",
    tell: Tell | None = None,
) -> Located:
    """The site's nodes in ``b`` alone on the family that its ``verdict`` tells of: first against ``a``'s, both in
    float64, which blames what is written, then on the runtime. Else what the verdict itself says, at its output."""
    (tell or (lambda _: None))(f"looking at {verdict.module or verdict.site} alone")
    fallback = _by_verdict(pair, verdict, runtime)
    region = region_of(b, pair)
    try:
        case = site_case(pair, verdict, region)
        written = _written(a, pair, region, case, asked)
        if written is not None:
            reason = pair.differs or "what is written there computes another function"
            return Located(replace(fallback.divergence, against=against, reason=reason), written)
        found = locate_run(region, opened, [case], runtime=runtime, asked=asked)
        return found if found.piece is not None else fallback
    except GnDeployError:
        return fallback


def region_of(candidate: "ir.Model", pair: Pair) -> "ir.Model":
    """The site's nodes as a model."""
    return cut(candidate, [pair.input, *pair.operands.values()], [pair.output])


def site_case(pair: Pair, verdict: SiteVerdict, region: "ir.Model") -> Case:
    """One family in every group: the one on which the site is worst, "normal" when that was a case of the user's.

    Gives the inputs of ``region`` a type where the file does not. Raises GnDeployError when it needs other values.
    """
    if is_dynamic(pair.site.scale) or is_dynamic(pair.site.bias):
        raise GnDeployError("scale or bias is only known at run time")
    spec = pair.spec
    family = verdict.case.rpartition(" ")[2]
    family = family if family in FAMILIES else "normal"
    layers = (layer.input for layer in pair.site.layers if layer.spec == spec)
    shape = probe_shapes(spec, [pair.input, *layers])[0]
    slots = shape[0] * spec.num_groups
    size = int(np.prod(shape))
    rng = np.random.default_rng(zlib.crc32(family.encode()))
    rows = FAMILIES[family].draw(rng, (slots, size // slots), spec.epsilon or _USUAL, spec.dtype)
    last = spec.channel_axis == -1
    moved = rows.reshape((shape[0], shape[-1], *shape[1:-1]) if last else shape)
    x: Array = np.ascontiguousarray(np.moveaxis(moved, 1, -1) if last else moved).astype(spec.dtype)
    around = draw(pair.input, pair.operands, x, spec.channel_axis)
    feeds = {str(pair.operands[name].name): array for name, array in around.items()} | {str(pair.input.name): x}
    others = shape_feeds(region, shape, known=list(feeds))
    if isinstance(others, str):
        raise GnDeployError(others)
    typed(region, feeds | others)
    return Case(verdict.case, feeds | others, family, conditioned=True)


def _written(a: "ir.Model", pair: Pair, region: "ir.Model", case: Case, asked: str) -> Piece | None:
    """The candidate's nodes with the reference's as their truth, when in float64 they differ."""
    layer = next((la for la in pair.site.layers if la.spec == pair.spec), None)
    if layer is None:
        return None
    truth = cut(a, [layer.input, *layer.operands.values()], [layer.output])
    names = {str(layer.input.name): str(pair.input.name)}
    names |= {str(v.name): str(pair.operands[n].name) for n, v in layer.operands.items() if n in pair.operands}
    for value in truth.graph.inputs:
        value.name = names.get(str(value.name), value.name)
    what = plain(region.clone(), truth, case.feeds, promised(region, asked))
    session = open_oracle(what.model)
    answer = session.run(what.feeds)[what.output]
    session.close()
    given = {str(truth.graph.outputs[0].name): answer}
    feeds = {str(v.name): what.feeds[str(v.name)] for v in truth.graph.inputs}
    return what if wrong_values(truth, feeds, given, what.types) else None


def _by_verdict(pair: Pair, verdict: SiteVerdict, runtime: str) -> Located:
    found = told(Divergence(runtime, ORACLE, str(pair.output.name)), pair.output.producer(), None, verdict.case)
    return Located(
        replace(
            found,
            module=verdict.module,
            source=verdict.source,
            metrics=verdict.metrics,
            looks_like=verdict.looks_like,
            reason=f"seen only in the GroupNorm by itself: {verdict.reason}",
        )
    )
